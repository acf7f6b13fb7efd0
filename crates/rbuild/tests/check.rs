//! Checks of a text alone: BuildKit's own table, its documents, and outlines. Needs nothing.

use rbuild::{
    BuildError, BuildRequest, CancelToken, Checked, Parameter, Targets, check, outline, targets,
};
use rbuild_testkit::corpora::{Table, at_hand, dockerfiles, lines, same};
use serde_json::{Value, json};

use crate::tests;

tests![
    buildkits_lint_tests,
    buildkits_examples_of_good_and_bad,
    official_dockerfiles_have_no_errors,
    an_outline_holds_what_the_target_and_its_stages_take,
    defaults_of_arguments_lead_to_other_arguments,
    stages_are_targets,
    of_an_unknown_base_image_only_sure_slips_are_told,
    findings_name_the_lines_of_their_instruction,
];

/// A row whose lines are not those of its Dockerfile; its text counts.
const OTHER_LINES: &str = "testLegacyKeyValueFormat 2";

fn checked(request: &BuildRequest) -> Checked {
    check(request, None, &CancelToken::default()).unwrap()
}

fn checked_text(text: &str) -> Checked {
    let mut request = BuildRequest::new(".").dockerfile_text(text);
    request.context = rbuild::ContextInput::None;
    checked(&request)
}

/// The findings in the form of the table.
fn found(checked: &Checked) -> Vec<Value> {
    let findings = checked.findings.iter().map(|finding| {
        json!({
            "RuleName": finding.diagnostic.code,
            "Description": finding.description,
            "URL": finding.diagnostic.url,
            "Detail": finding.diagnostic.message,
            "Level": 1,
            "Line": finding.lines.unwrap().start,
        })
    });
    findings.collect()
}

fn codes(text: &str) -> Vec<&'static str> {
    checked_text(text).findings.iter().map(|finding| finding.diagnostic.code).collect()
}

fn buildkits_lint_tests() {
    let Some(file) = at_hand("buildkit/tables/integration.events.jsonl") else { return };
    let mut rows = Vec::new();
    for function in lines(&file) {
        let events = function["events"].as_array().unwrap().iter();
        for (number, row) in events.filter_map(|event| event.get("lint")).enumerate() {
            let name = format!("{} {number}", function["func"].as_str().unwrap());
            rows.push(json!({"name": name, "row": row}));
        }
    }
    assert_eq!(rows.len(), 89);
    Table::of("buildkit: lint tests", rows).check(|row| {
        let found = differs(&row["row"], row["name"] == OTHER_LINES);
        found.map_or(Ok(()), Err)
    });
}

fn differs(row: &Value, without_lines: bool) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    fs_err::write(directory.path().join("Dockerfile"), row["Dockerfile"].as_str()?).unwrap();
    if let Some(ignore) = row["DockerIgnore"].as_str() {
        fs_err::write(directory.path().join(".dockerignore"), ignore).unwrap();
    }
    let mut request = BuildRequest::new(directory.path());
    for (key, value) in row["FrontendAttrs"].as_object().into_iter().flatten() {
        request = request.arg(key.strip_prefix("build-arg:")?, value.as_str()?);
    }
    let checked = checked(&request);
    let expected = row.get("UnmarshalWarnings").or_else(|| row.get("Warnings"));
    let mut expected: Vec<Value> =
        expected.and_then(Value::as_array).into_iter().flatten().map(literal).collect();
    let mut found = found(&checked);
    // BuildKit tells them as it finds them, some of them in any order.
    for list in [&mut expected, &mut found] {
        if without_lines {
            list.iter_mut().for_each(|row| row["Line"] = json!(null));
        }
        list.sort_by_key(Value::to_string);
    }
    if found != expected {
        return Some(format!("expected {expected:#?}, found {found:#?}"));
    }
    let message = checked.build_error().map(|(message, _)| message).unwrap_or_default();
    match row["BuildErr"].as_str() {
        Some(error) if !message.contains(error) => Some(format!("{message:?} is not {error:?}")),
        None if !message.is_empty() => Some(message),
        _ => None,
    }
}

/// A row whose texts were put together by calls.
fn literal(row: &Value) -> Value {
    if row["$call"] == "makeLintWarning" {
        let instruction = row["args"][0].as_str().unwrap();
        return json!({
            "RuleName": "MultipleInstructionsDisallowed",
            "Description": "Multiple instructions of the same type should not be used in the same stage",
            "URL": "https://docs.docker.com/go/dockerfile/rule/multiple-instructions-disallowed/",
            "Detail": format!("Multiple {instruction} instructions should not be used in the same \
                stage because only the last one will be used"),
            "Level": 1,
            "Line": row["args"][1],
        });
    }
    let mut row = row.clone();
    if row["Detail"]["$call"] == "fmt.Sprintf" {
        let args = &row["Detail"]["args"];
        let text = args[0].as_str().unwrap().replacen("%s", args[1].as_str().unwrap(), 1);
        row["Detail"] = json!(text);
    }
    row
}

fn buildkits_examples_of_good_and_bad() {
    let Some(docs) = at_hand("buildkit/lint-docs") else { return };
    let mut rows = Vec::new();
    for entry in fs_err::read_dir(docs).unwrap().flatten() {
        let text = fs_err::read_to_string(entry.path()).unwrap();
        let title = text.lines().find_map(|line| line.strip_prefix("title: ")).unwrap();
        let examples = examples(&text).into_iter();
        rows.extend(examples.map(|(bad, text)| json!({"rule": title, "bad": bad, "text": text})));
    }
    assert_eq!(rows.len(), 58);
    Table::of("buildkit: lint-docs", rows).check(|row| {
        let (title, example) = (row["rule"].as_str().unwrap(), row["text"].as_str().unwrap());
        let is_bad = row["bad"] == true;
        let lower = example.to_lowercase();
        let has_stage = lower.starts_with("from") || lower.contains("\nfrom");
        let from = if has_stage { "" } else { "FROM scratch\n" };
        // Of an image that is not there only sure slips would be told.
        let example = match is_bad {
            true => example.replace("FROM alpine", "FROM scratch"),
            false => example.to_owned(),
        };
        let text = format!("# check=experimental=all\n{from}{example}");
        same(&codes(&text).contains(&title), &is_bad)
    });
}

/// The code blocks behind the marks for bad and good.
fn examples(text: &str) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    let (mut mark, mut block): (Option<bool>, Option<String>) = (None, None);
    for line in text.lines() {
        match (&mut block, line) {
            (None, line) if line.starts_with('❌') => mark = Some(true),
            (None, line) if line.starts_with('✅') => mark = Some(false),
            (None, "```dockerfile") => block = Some(String::new()),
            (Some(code), "```") => {
                // What is not code stands for any.
                if let Some(mark) = mark.take() {
                    found.push((mark, code.replace("\n...\n", "\n")));
                }
                block = None;
            }
            (Some(code), line) => {
                code.push_str(line);
                code.push('\n');
            }
            _ => {}
        }
    }
    found
}

fn official_dockerfiles_have_no_errors() {
    let Some(official) = at_hand("official") else { return };
    let rows: Vec<_> = dockerfiles(&official).into_iter().map(|path| json!(path)).collect();
    assert_eq!(rows.len(), 92);
    Table::of("checks of official Dockerfiles", rows).check(|path| {
        let text = fs_err::read_to_string(path.as_str().unwrap()).unwrap();
        let errors = checked_text(&text).errors;
        if errors.is_empty() { Ok(()) } else { Err(format!("{errors:?}")) }
    });
}

fn names(list: &[Parameter]) -> Vec<(&str, Option<&str>, usize)> {
    list.iter().map(|one| (one.name.as_str(), one.value.as_deref(), one.lines.start)).collect()
}

fn an_outline_holds_what_the_target_and_its_stages_take() {
    let text = "\
ARG inherited=box
ARG inherited2=box2
ARG unused=abc${inherited2}
# sfx is a suffix
ARG sfx=\"usy${inherited}\"
FROM b${sfx} AS first
# this is not assigned to anything
ARG FOO=123
# BAR is a number
ARG BAR=456
RUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true
FROM alpine${unused} AS second
ARG BAZ
RUN --mount=type=secret,id=unused true
FROM scratch AS third
ARG BAR
RUN --mount=type=secret,id=second${BAR} --mount=type=cache,target=/cache true
# target defines build target
FROM third AS target
COPY --from=first /etc/passwd /
RUN --mount=type=ssh,id=ssh3,required true
FROM second
";
    let request = BuildRequest::new(".").dockerfile_text(text).target("target").arg("BAR", "678");
    let found = outline(&request, None, &CancelToken::default()).unwrap();
    assert_eq!(found.name.as_deref(), Some("target"));
    assert_eq!(found.description.as_deref(), Some("defines build target"));
    let expected = [
        ("inherited", Some("box"), 1),
        ("sfx", Some("usybox"), 5),
        ("FOO", Some("123"), 8),
        ("BAR", Some("678"), 16),
    ];
    assert_eq!(names(&found.args), expected);
    assert_eq!(found.args[1].description.as_deref(), Some("is a suffix"));
    assert_eq!(names(&found.secrets), [("passwd", None, 11), ("second678", None, 17)]);
    assert!(found.secrets[0].required && !found.secrets[1].required);
    assert_eq!(names(&found.ssh), [("default", None, 11), ("ssh3", None, 21)]);
    assert_eq!(names(&found.caches), [("/cache", None, 17)]);
}

fn defaults_of_arguments_lead_to_other_arguments() {
    let text = "\
ARG FOO=123
ARG ABC=abc
ARG DEF=def
ARG FOO=${FOO}${ABC}
ARG BAR=${FOO}456
ARG FOO=${FOO}456${BAR}
FROM scratch
ARG FOO TARGETARCH
ARG INFOO=123
ARG INBAR=${INFOO}456
ARG INFOO=${INFOO}456${INBAR}
";
    let request = BuildRequest::new(".").dockerfile_text(text);
    let found = outline(&request, None, &CancelToken::default()).unwrap();
    let expected = [
        ("ABC", Some("abc"), 2),
        ("BAR", Some("123abc456"), 5),
        ("FOO", Some("123abc456123abc456"), 6),
        ("INBAR", Some("123456"), 10),
        ("INFOO", Some("123456123456"), 11),
    ];
    assert_eq!(names(&found.args), expected);
}

fn listed(text: &str) -> Result<Targets, BuildError> {
    let request = BuildRequest::new(".").dockerfile_text(text);
    targets(&request, None, &CancelToken::default())
}

fn stages_are_targets() {
    let text = "# one does it\nFROM $X AS one\nFROM --platform=$P one\n";
    let found = listed(text).unwrap().targets;
    let rows: Vec<_> = found
        .iter()
        .map(|one| (one.name.as_deref(), one.description.as_deref(), one.base.as_str()))
        .collect();
    assert_eq!(rows, [(Some("one"), Some("does it"), "$X"), (None, None, "one")]);
    assert_eq!(found[1].platform.as_deref(), Some("$P"));
    assert!(listed("FOO\n").is_err());
}

fn of_an_unknown_base_image_only_sure_slips_are_told() {
    let found = |text| -> Vec<String> {
        let checked = checked_text(text);
        checked.findings.into_iter().map(|finding| finding.diagnostic.message).collect()
    };
    let undefined = |text: &str| format!("Usage of undefined variable {text}");
    // BuildKit's rows whose base image the table lost.
    assert_eq!(found("FROM alpine AS base\nARG foo=a\nFROM base\nCOPY $foo .\n"), [""; 0]);
    assert_eq!(found("FROM alpine\nCOPY $foo .\nARG foo=bar\n"), [undefined("'$foo'")]);
    let text = "FROM alpine\nARG DIR_ASSETS=assets/\nCOPY $DIR_ASSET .\n";
    assert_eq!(found(text), [undefined("'$DIR_ASSET' (did you mean $DIR_ASSETS?)")]);
    let text = "FROM alpine\nENV PATH=$PAHT:/tmp/bin\n";
    assert_eq!(found(text), [undefined("'$PAHT' (did you mean $PATH?)")]);
    assert_eq!(found("FROM golang\nCOPY a $GOPATH/x\n"), [""; 0]);
    assert_eq!(found("FROM scratch\nCOPY a $GO111\n"), [undefined("'$GO111'")]);
    // The rest of those rows.
    assert_eq!(
        found(
            "ARG MY_OS=linux\nARG MY_ARCH=amd64\nFROM --platform=linux/${MYARCH:-amd64} scratch\n"
        ),
        ["FROM argument 'MYARCH' is not declared (did you mean MY_ARCH?)"]
    );
    assert_eq!(
        found("ARG tag=latest\nFROM busybox:${tag}${version} AS b\n"),
        ["FROM argument 'version' is not declared"]
    );
    assert_eq!(found("ARG VERSION=\"latest\"\nFROM busybox:${VERSION}\n"), [""; 0]);
}

fn findings_name_the_lines_of_their_instruction() {
    let lines = |text: &str| -> Vec<(&str, usize, usize)> {
        let findings = checked_text(text).findings;
        let rows = findings.iter().map(|one| (one.diagnostic.code, one.lines.unwrap()));
        rows.map(|(code, lines)| (code, lines.start, lines.end)).collect()
    };
    let text = "FROM scratch\nCOPY a \\\n  $nothing \\\n\n  /b\n";
    assert_eq!(lines(text), [("UndefinedVar", 2, 5), ("NoEmptyContinuation", 5, 5)]);
    assert_eq!(lines("# check=skip=Nonsense\nFROM scratch\n"), [("unknown-rule", 1, 1)]);
    let errors = checked_text("# check=skip=all;erorr=true\nFROM scratch\n").errors;
    let expected =
        "failed to parse check options: invalid check option \"erorr\" (did you mean error?)";
    assert_eq!(errors[0].message, expected);
}
