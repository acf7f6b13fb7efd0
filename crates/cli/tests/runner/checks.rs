//! `--check` and the other calls that build nothing.

use serde_json::Value;

use crate::program::Program;

const BAD: &str = "FROM scratch as base\nCOPY a \\\n  /b\nCMD a\n";

fn with(text: &str) -> Program {
    let program = Program::new();
    program.file("Dockerfile", text);
    program
}

#[test]
fn findings_look_as_docker_shows_them() {
    let program = with(BAD);
    let outcome = program.run("build --check .");
    assert_eq!(outcome.code, 1, "{outcome:#?}");
    let expected = "\
Check complete, 2 warnings have been found!

WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/
'as' and 'FROM' keywords' casing do not match
Dockerfile:1
--------------------
   1 | >>> FROM scratch as base
   2 |     COPY a \\
   3 |       /b
--------------------

WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
Dockerfile:4
--------------------
   2 |     COPY a \\
   3 |       /b
   4 | >>> CMD a
   5 |     
--------------------
";
    assert_eq!(outcome.stdout, expected);
    assert!(!program.context().with_file_name("store").exists(), "a check made a store");
}

#[test]
fn a_check_finds_nothing_or_says_why_it_ends() {
    let good = with("FROM scratch\n").run("--check .").good();
    assert_eq!(good.stdout, "Check complete, no warnings found.\n");
    let outcome = with("FROM scratch AS Bad\nBADCMD\n").run("--check .");
    assert_eq!(outcome.code, 1, "{outcome:#?}");
    assert!(outcome.stderr.contains("unknown instruction: BADCMD"), "{outcome:#?}");
    assert!(outcome.stdout.contains("WARNING: StageNameCasing - "), "{outcome:#?}");
    with(BAD).run("--call=check,ignorestatus=true .").good();
    with(BAD).run("--check --build-arg BUILDKIT_DOCKERFILE_CHECK=skip=all .").good();
}

#[test]
fn checks_are_a_document_too() {
    let outcome = with(BAD).run("--call=check,format=json .");
    assert_eq!(outcome.code, 1, "{outcome:#?}");
    let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let warning = &document["warnings"][0];
    assert_eq!(warning["ruleName"], "FromAsCasing");
    assert_eq!(
        warning["description"],
        "The 'as' keyword should match the case of the 'from' keyword"
    );
    assert_eq!(warning["url"], "https://docs.docker.com/go/dockerfile/rule/from-as-casing/");
    assert_eq!(warning["location"]["ranges"][0]["start"]["line"], 1);
    assert_eq!(document["sources"][0]["filename"], "Dockerfile");
    assert!(document["sources"][0]["data"].as_str().unwrap().starts_with("RlJPTSBz"));
    assert_eq!(document.get("buildError"), None);

    let outcome = with("FROM scratch\nBADCMD\n").run("--call=lint,format=json .");
    let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let message = "dockerfile parse error on line 2: unknown instruction: BADCMD";
    assert_eq!(document["buildError"]["message"], message);
    assert_eq!(document["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    assert_eq!(outcome.code, 1);
}

#[test]
fn parameters_and_targets_are_tables() {
    let text = "\
# VERSION is what is built
ARG VERSION=1
FROM scratch AS one
ARG VERSION
RUN --mount=type=secret,id=key,required --mount=type=cache,target=/c x
# two comes after one
FROM one AS two
";
    let program = with(text);
    let outline = program.run("--call=outline --build-arg VERSION=2 .").good();
    let expected = "\
TARGET:      two
DESCRIPTION: comes after one

BUILD ARG   VALUE   DESCRIPTION
VERSION     2       is what is built

SECRET   REQUIRED
key      true

CACHE MOUNT
/c

";
    assert_eq!(outline.stdout, expected);
    let targets = program.run("--call=targets .").good();
    let expected = "TARGET          DESCRIPTION\none\ntwo (default)   comes after one\n";
    assert_eq!(targets.stdout, expected);

    let document = program.run("--call=outline,format=json --target one .").good().stdout;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["args"][0]["description"], "is what is built");
    assert_eq!(document["secrets"][0]["required"], true);
    assert_eq!(document["cache"][0]["ID"], "/c");
    let document = program.run("--call=targets,format=json .").good().stdout;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["targets"][0]["base"], "scratch");
    assert_eq!(document["targets"][1]["default"], true);
}

/// Each is shown with its lines, which must not mean to read the file again for each.
#[test]
fn all_of_very_many_findings_are_shown() {
    let dockerfile = format!("FROM scratch\n{}", "LABEL a=$b\n".repeat(50_000));
    let outcome = Program::new().run_stdin("--check -", &dockerfile);
    assert_eq!(outcome.stdout.matches("WARNING: UndefinedVar").count(), 50_000);
}
