//! Whole Dockerfiles: what is written of each parses to the same tree, and is written the same
//! again.

use rbuild_parser::ast::Dockerfile;
use rbuild_parser::parse;
use rbuild_testkit::corpora::{Table, at_hand, dockerfiles, lines, same, strings};
use serde_json::{Value, json};

use crate::common::{read, render, without_spans};
use crate::{accepted, instruction, text};

/// Parses, writes, and parses again.
fn there_and_back(text: &str) -> Result<Dockerfile, String> {
    let (file, problems) = parse(text);
    accepted(&problems).map_err(|_| render(text, &problems))?;
    let printed = file.to_string();
    let (again, problems) = parse(&printed);
    accepted(&problems).map_err(|_| render(&printed, &problems))?;
    same(&without_spans(&again), &without_spans(&file))?;
    same(&again.to_string(), &printed)?;
    Ok(file)
}

/// Every Dockerfile below a folder, as rows of its path. Fails when there are not as many as there
/// were when this was written.
fn files(folder: &str, count: usize) -> Option<Table> {
    let found = dockerfiles(&at_hand(folder)?);
    assert_eq!(found.len(), count, "Dockerfiles below {folder}");
    let rows = found.into_iter().map(|path| json!(path.to_str().unwrap()));
    Some(Table::of(format!("Dockerfiles of {folder}"), rows.collect()))
}

fn all_go_there_and_back(folder: &str, count: usize) {
    let Some(table) = files(folder, count) else { return };
    table.check(|path| there_and_back(&read(path.as_str().unwrap())).map(drop));
}

fn count(file: &Dockerfile) -> usize {
    let inner: usize = file.stages.iter().map(|stage| stage.instructions.len()).sum();
    file.stages.len() + file.global_args.len() + inner
}

#[test]
fn of_official_images() {
    let keywords = [
        "FROM ",
        "RUN ",
        "COPY ",
        "ENV ",
        "ARG ",
        "CMD ",
        "ENTRYPOINT ",
        "WORKDIR ",
        "EXPOSE ",
        "VOLUME ",
        "STOPSIGNAL ",
        "LABEL ",
        "USER ",
        "ADD ",
    ];
    let Some(table) = files("official", 92) else { return };
    table.check(|path| {
        let text = read(path.as_str().unwrap());
        let (file, problems) = parse(&text);
        same(&render(&text, &problems).as_str(), &"")?;
        let is_instruction = |line: &&str| keywords.iter().any(|keyword| line.starts_with(keyword));
        same(&count(&file), &text.lines().filter(is_instruction).count())?;
        there_and_back(&text).map(drop)
    });
}

#[test]
fn of_other_tools() {
    all_go_there_and_back("kaniko", 93);
    all_go_there_and_back("buildah/conformance-testdata", 91);
    all_go_there_and_back("moby", 2);
    all_go_there_and_back("asottile-dockerfile", 1);
}

#[test]
fn of_buildkits_parser() {
    all_go_there_and_back("buildkit/parser/testfile-line", 1);
    let Some(table) = files("buildkit/parser/testfiles", 33) else { return };
    table.check(|path| {
        let text = read(path.as_str().unwrap());
        // Some are instructions without a stage.
        let file = there_and_back(&text).or_else(|_| there_and_back(&format!("FROM a\n{text}")));
        file.map(drop)
    });
}

const BUILDAH: &str = "buildah/conformance.tables.jsonl";

/// A text that the Go code joins of lines, some of them made by a format.
fn joined(value: &Value) -> String {
    let lines = value["args"][0].as_array().unwrap().iter();
    let lines = lines.map(|line| line.as_str().or(line["args"][0].as_str()).unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn of_buildahs_conformance_tests() {
    let Some(table) = Table::open(BUILDAH, "", "internalTestCases") else { return };
    let folder = at_hand("buildah/conformance-testdata").unwrap();
    table.check(|row| {
        let text = match &row["dockerfileContents"] {
            Value::Null => {
                let context = folder.join(text(row, "contextDir"));
                let name = row["dockerfile"].as_str().unwrap_or("Dockerfile");
                fs_err::read_to_string(context.join(name)).map_err(|error| error.to_string())?
            }
            Value::String(text) => text.clone(),
            call => joined(call),
        };
        there_and_back(&text).map(drop)
    });
}

#[test]
fn changes_of_buildahs_commits() {
    let Some(table) = Table::open(BUILDAH, "TestCommit", "testCases") else { return };
    let lists = table.rows().iter().flat_map(|row| [&row["changes"], &row["derivedChanges"]]);
    let changes = lists.flat_map(strings).filter(|change| !change.is_empty());
    Table::of("buildah: changes of TestCommit", changes.map(Value::from).collect())
        .check(|change| instruction(change.as_str().unwrap()).map(drop));
}

/// The texts of Dockerfiles in a test's events: files of the context and assigned strings.
fn in_events(value: &Value, found: &mut Vec<String>) {
    let is_source = |text: &str| text.contains("FROM ") || text.contains("from ");
    match value {
        Value::Array(items) => items.iter().for_each(|item| in_events(item, found)),
        Value::Object(fields) => {
            let args = fields.get("args").and_then(Value::as_array);
            let named = args.and_then(|args| args.first()?.as_str());
            let file = args.and_then(|args| args.get(1)?.as_str());
            let calls_file = fields.get("$call").and_then(Value::as_str);
            if calls_file.is_some_and(|call| call.ends_with("CreateFile"))
                && named.is_some_and(|name| name.ends_with("ockerfile"))
            {
                found.extend(file.map(str::to_owned));
            }
            for name in ["value", "Dockerfile"] {
                let text = fields.get(name).and_then(Value::as_str);
                found.extend(text.filter(|text| is_source(text)).map(str::to_owned));
            }
            fields.values().for_each(|field| in_events(field, found));
        }
        _ => {}
    }
}

/// The tests of BuildKit whose Dockerfiles are wrong on purpose or have holes that the Go code
/// fills, and a word of what is said of them.
const REFUSED: [(&str, &str); 8] = [
    ("testWarningsBeforeError", "unknown instruction: BADCMD"),
    ("testDockerfileInvalidInstruction", "(did you mean ENTRYPOINT?)"),
    ("testDockerfileCopyFromArgs", "variable expansion is not supported for --from"),
    ("testMountInvalid", "did you mean"),
    ("testMountFromError", "define alias stage instead"),
    ("testEmptyStages", "no stages to build"),
    ("testPlatformArgsImplicit", "invalid name for build stage: \"build-%s\""),
    ("testRunNoNetwork", "no build stage in current context"),
];

#[test]
fn of_buildkits_integration_tests() {
    let Some(file) = at_hand("buildkit/tables/integration.events.jsonl") else { return };
    let rows: Vec<Value> = lines(&file)
        .iter()
        .flat_map(|test| {
            let mut texts = Vec::new();
            in_events(&test["events"], &mut texts);
            let func = test["func"].clone();
            texts.into_iter().map(move |text| json!({"func": func, "text": text}))
        })
        .collect();
    assert!(rows.len() > 300, "{}", rows.len());
    Table::of("buildkit: Dockerfiles of integration tests", rows).check(|row| {
        let refused = REFUSED.iter().find(|(func, _)| row["func"] == *func);
        match (there_and_back(text(row, "text")), refused) {
            (Ok(_), _) => Ok(()),
            (Err(said), Some((_, words))) if said.contains(words) => Ok(()),
            (Err(said), _) => Err(said),
        }
    });
}
