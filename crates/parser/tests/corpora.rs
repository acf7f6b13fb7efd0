//! The public corpora at the level of words and lines, row by row: BuildKit's parser, heredoc,
//! JSON, instruction and shell tests, moby's patternmatcher, asottile/dockerfile, and the
//! Dockerfiles of some official images.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

mod common;

use std::collections::BTreeMap;

use common::{errors, folders, read, render, shared, table, without_spans};
use rbuild_parser::ast::{CommandLine, Dockerfile, Instruction, InstructionKind};
use rbuild_parser::expand::{self, Environment};
use rbuild_parser::ignore_file::{MatchedAbove, Patterns, glob_match};
use rbuild_parser::{dump, parse};
use rbuild_types::{Diagnostic, LineIndex};
use serde_json::Value;

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// Parses one instruction in a stage.
fn instruction(text: &str) -> Result<Instruction, Vec<Diagnostic>> {
    let (file, problems) = parse(&format!("FROM scratch\n{text}"));
    if problems.iter().any(Diagnostic::is_error) {
        return Err(problems);
    }
    Ok(file.stages[0].instructions[0].clone())
}

#[test]
fn buildkit_testfiles() {
    let Some(corpus) = shared("corpora/buildkit/parser") else { return };
    for folder in folders(&corpus.join("testfiles")) {
        let text = read(folder.join("Dockerfile"));
        let expected = read(folder.join("result"));
        let dumped = dump(&text).unwrap_or_else(|problems| render(&text, &problems));
        assert_eq!(dumped.trim(), expected.trim(), "{}", folder.display());
    }
    for folder in folders(&corpus.join("testfiles-negative")) {
        assert!(dump(&read(folder.join("Dockerfile"))).is_err(), "{}", folder.display());
    }
}

#[test]
fn buildkit_line_numbers() {
    let Some(corpus) = shared("corpora/buildkit") else { return };
    let text = read(corpus.join("parser/testfile-line/Dockerfile"));
    let (file, problems) = parse(&text);
    assert!(errors(&problems).is_empty(), "{}", render(&text, &problems));
    let index = LineIndex::new(&text);
    let stage = &file.stages[0];
    let spans = std::iter::once(stage.span).chain(stage.instructions.iter().map(|each| each.span));
    let lines: Vec<Value> = spans
        .map(|span| serde_json::json!([index.line(span.start), index.line(span.end - 1)]))
        .collect();
    let tables = corpus.join("tables/parser-parser.tables.jsonl");
    let expected = table(&tables, "TestParseIncludesLineNumbers", "expected");
    // The file ends in a continuation and a comment, which BuildKit counts and a span does not.
    let starts = |rows: &[Value]| rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>();
    assert_eq!(starts(&lines), starts(expected.as_array().unwrap()));
    assert_eq!(lines[..2], expected.as_array().unwrap()[..2]);
}

#[test]
fn buildkit_words() {
    let Some(corpus) = shared("corpora/buildkit/tables") else { return };
    let rows = table(&corpus.join("parser-parser.tables.jsonl"), "TestParseWords", "tests");
    for row in rows.as_array().unwrap() {
        let (input, expected) = (&strings(&row["input"])[0], strings(&row["expect"]));
        let arg = instruction(&format!("ARG {input}")).unwrap();
        let InstructionKind::Arg { args } = arg.kind else { panic!("{input}") };
        let words: Vec<String> = args
            .into_iter()
            .map(|arg| match arg.default {
                Some(default) => format!("{}={}", arg.name.value, default.value),
                None => arg.name.value,
            })
            .collect();
        assert_eq!(words, expected, "{input}");
    }
}

#[test]
fn buildkit_json() {
    let Some(corpus) = shared("corpora/buildkit/tables") else { return };
    let path = corpus.join("parser-json.tables.jsonl");
    for input in strings(&table(&path, "", "invalidJSONArraysOfStrings")) {
        let problems = instruction(&format!("CMD {input}")).unwrap_err();
        let message = "when using JSON array syntax, arrays must be comprised of strings only";
        assert_eq!(problems[0].message, message, "{input}");
    }
    for (input, expected) in table(&path, "", "validJSONArraysOfStrings").as_object().unwrap() {
        let InstructionKind::Cmd { command } = instruction(&format!("CMD {input}")).unwrap().kind
        else {
            panic!("{input}")
        };
        let CommandLine::Exec { argv, .. } = command else { panic!("{input}") };
        assert_eq!(argv, strings(expected), "{input}");
    }
}

#[test]
fn buildkit_heredocs() {
    let Some(corpus) = shared("corpora/buildkit/tables") else { return };
    let path = corpus.join("parser-parser_heredoc.tables.jsonl");
    for row in table(&path, "TestHeredocsFromLine", "srcs").as_array().unwrap() {
        let line = row["line"].as_str().unwrap();
        let mut names = strings(&row["heredocNames"]);
        if line == "RUN <<- EOF" {
            // The upstream test compares only the heredocs it finds, and it finds none here: its
            // lexer takes blanks after `<<`, not after `<<-`.
            names.clear();
        }
        let text = format!("{line}\n{}\n", names.join("\n"));
        let InstructionKind::Run(run) = instruction(&text).unwrap().kind else { panic!("{line}") };
        let found: Vec<_> = run.heredocs.into_iter().map(|heredoc| heredoc.name).collect();
        assert_eq!(found, names, "{line}");
    }

    let path = corpus.join("instructions-parse_heredoc.tables.jsonl");
    for row in table(&path, "TestErrorCasesHeredoc", "cases").as_array().unwrap() {
        let problems = instruction(row["dockerfile"].as_str().unwrap()).unwrap_err();
        assert!(problems[0].message.contains(row["expectedError"].as_str().unwrap()));
    }
    for row in table(&path, "TestCopyHeredoc", "cases").as_array().unwrap() {
        let text = row["dockerfile"].as_str().unwrap();
        let expected = &row["sourcesAndDest"];
        let InstructionKind::Copy(copy) = instruction(text).unwrap().kind else { panic!("{text}") };
        assert_eq!(copy.destination.value, expected["DestPath"].as_str().unwrap(), "{text}");
        let sources: Vec<_> = copy.sources.into_iter().map(|source| source.value).collect();
        assert_eq!(sources, strings(&expected["SourcePaths"]), "{text}");
        let contents = expected["SourceContents"].as_array().into_iter().flatten();
        let contents: Vec<_> = contents.cloned().collect();
        let found: Vec<_> = copy
            .heredocs
            .iter()
            .map(|heredoc| {
                serde_json::json!({
                    "Data": heredoc.content(),
                    "Expand": heredoc.expand,
                    "Path": heredoc.name,
                })
            })
            .collect();
        assert_eq!(found, contents, "{text}");
    }
    for row in table(&path, "TestRunHeredoc", "cases").as_array().unwrap() {
        let text = row["dockerfile"].as_str().unwrap();
        let InstructionKind::Run(run) = instruction(text).unwrap().kind else { panic!("{text}") };
        let (shell, command) = match run.command {
            CommandLine::Exec { argv, .. } => (false, argv),
            CommandLine::Shell { text, .. } => (true, vec![text]),
        };
        assert_eq!(shell, row["shell"], "{text}");
        assert_eq!(command, strings(&row["command"]), "{text}");
        let files = row["files"].as_array().into_iter().flatten();
        let files: Vec<_> = files
            .map(|file| (file["Name"].clone(), file["Data"].clone(), file["Chomp"] == true))
            .collect();
        let found: Vec<_> = run
            .heredocs
            .into_iter()
            .map(|heredoc| {
                (Value::from(heredoc.name), Value::from(heredoc.body.value), heredoc.chomp)
            })
            .collect();
        assert_eq!(found, files, "{text}");
    }
}

#[test]
fn buildkit_instruction_errors() {
    let Some(corpus) = shared("corpora/buildkit/tables") else { return };
    let path = corpus.join("instructions-parse.tables.jsonl");
    let message = |text: &str| instruction(text).unwrap_err()[0].message.clone();
    for name in strings(&table(&path, "TestCommandsExactlyOneArgument", "commands")) {
        assert_eq!(message(&name), format!("{name} requires exactly one argument"));
    }
    for name in strings(&table(&path, "TestCommandsAtLeastOneArgument", "commands")) {
        assert_eq!(message(&name), format!("{name} requires at least one argument"));
    }
    for name in strings(&table(&path, "TestCommandsNoDestinationArgument", "commands")) {
        let expected = format!(
            "{name} requires at least two arguments, but only one was provided. Destination \
             could not be determined"
        );
        assert_eq!(message(&format!("{name} arg1")), expected);
    }
    for name in strings(&table(&path, "TestCommandsBlankNames", "commands")) {
        assert_eq!(message(&format!("{name} =value")), format!("{name} names can not be blank"));
    }
    for row in table(&path, "TestErrorCases", "cases").as_array().unwrap() {
        let text = row["dockerfile"].as_str().unwrap();
        let expected = row["expectedError"].as_str().unwrap();
        assert!(message(text).contains(expected), "{text}: {}", message(text));
    }
}

struct Map(BTreeMap<String, String>);

impl Environment for Map {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

#[test]
fn buildkit_expansion() {
    let Some(corpus) = shared("corpora/buildkit/shell") else { return };
    let pairs = [("PWD", "/home"), ("SHELL", "bash"), ("KOREAN", "한국어"), ("NULL", "")];
    let environment = Map(pairs.map(|(name, value)| (name.into(), value.into())).into());
    let mut rows = 0;
    for line in read(corpus.join("envVarTest")).lines() {
        let line = match line.split_once('#') {
            Some(("", _)) => continue,
            _ => line.trim(),
        };
        let mut parts = line.splitn(3, '|').map(str::trim);
        let (Some(platform), Some(source), Some(expected)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        if platform == "W" {
            continue;
        }
        rows += 1;
        let result = expand::expand_word(source, '\\', &environment);
        match expected {
            "error" => assert!(result.is_err(), "{source}: {result:?}"),
            _ => assert_eq!(
                result.map(|expanded| expanded.text).as_deref(),
                Ok(expected),
                "{source}"
            ),
        }
    }
    assert!(rows > 200, "{rows}");
}

#[test]
fn buildkit_words_after_expansion() {
    let Some(corpus) = shared("corpora/buildkit/shell") else { return };
    let mut environment = Map(BTreeMap::new());
    for line in read(corpus.join("wordsTest")).lines() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        if let Some((name, value)) = line.strip_prefix("ENV ").and_then(|pair| pair.split_once('='))
        {
            environment.0.insert(name.trim_start().to_owned(), value.to_owned());
            continue;
        }
        let (input, expected) = line.split_once('|').unwrap();
        let (input, expected) = (input.trim(), expected.trim_start());
        let result = expand::expand_words(input, '\\', &environment);
        match expected {
            "error" => assert!(result.is_err(), "{input}"),
            _ => {
                let expected: Vec<_> = expected.split(',').map(str::trim_start).collect();
                let trimmed: Vec<_> = result.unwrap().0;
                let trimmed: Vec<_> = trimmed.iter().map(|word| word.trim_start()).collect();
                assert_eq!(trimmed, expected, "{input}");
            }
        }
    }
}

#[test]
fn buildkit_expansion_with_modifiers() {
    let Some(corpus) = shared("corpora/buildkit/tables") else { return };
    let path = corpus.join("shell-lex.tables.jsonl");
    for row in table(&path, "TestProcessWithMatches", "tc").as_array().unwrap() {
        let input = row["input"].as_str().unwrap();
        let pairs = row["envs"].as_object().unwrap().iter();
        let pairs = pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        let result = expand::expand_word(input, '\\', &Map(pairs.collect()));
        if row["expectedErr"] == true {
            assert!(result.is_err(), "{input}: {result:?}");
            continue;
        }
        let expanded = result.unwrap_or_else(|error| panic!("{input}: {error:?}"));
        assert_eq!(expanded.text, row["expected"].as_str().unwrap(), "{input}");
        let unset: Vec<_> = row["unmatched"].as_object().into_iter().flatten().collect();
        let unset: Vec<_> = unset.into_iter().map(|(name, _)| name.clone()).collect();
        let mut found = expanded.unset;
        found.sort();
        assert_eq!(found, unset, "{input}");
    }
}

/// Asks both ways, which must agree.
fn excluded(patterns: &Patterns, path: &str) -> bool {
    let alone = patterns.matches(path);
    let trimmed = path.trim_matches('/');
    let mut above = MatchedAbove::default();
    let mut walked = None;
    for end in trimmed.match_indices('/').map(|(at, _)| at).chain([trimmed.len()]) {
        let (verdict, matched) = patterns.matches_below(&trimmed[..end], &above);
        (walked, above) = (Some(verdict), matched);
    }
    assert_eq!(walked, Some(alone), "{path}");
    alone.excluded
}

#[test]
fn moby_patterns() {
    let Some(corpus) = shared("corpora/patternmatcher") else { return };
    let path = corpus.join("patternmatcher.tables.jsonl");
    for row in table(&path, "TestMatches", "tests").as_array().unwrap() {
        let (pattern, text) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
        let patterns = Patterns::from_list(&[pattern]).unwrap();
        assert_eq!(excluded(&patterns, text), row[2], "{pattern} {text}");
    }
    for row in table(&path, "TestMatches", "multiPatternTests").as_array().unwrap() {
        let patterns = Patterns::from_list(&strings(&row[0])).unwrap();
        assert_eq!(excluded(&patterns, row[1].as_str().unwrap()), row[2], "{row}");
    }
    for row in table(&path, "", "matchTests").as_array().unwrap() {
        let (pattern, name) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
        let fails = !row[3].is_null();
        let ignored = Patterns::from_list(&[pattern]);
        assert_eq!(ignored.is_err(), fails, "{pattern}");
        if fails {
            assert!(glob_match(pattern, name).is_err(), "{pattern} {name}");
            continue;
        }
        assert_eq!(excluded(&ignored.unwrap(), name), row[2], "{pattern} {name}");
        // `a*` leaves `ab/c` out because it matches `ab`; as a name it does not match.
        let expected = row[2] == true && !(pattern == "a*" && name == "ab/c");
        assert_eq!(glob_match(pattern, name), Ok(expected), "{pattern} {name}");
    }
}

#[test]
fn moby_ignore_file() {
    let Some(corpus) = shared("corpora/patternmatcher") else { return };
    let expected =
        strings(&table(&corpus.join("ignorefile.tables.jsonl"), "TestReadAll", "expected"));
    // The input of the test, which the table does not hold.
    let text = "test1\n/test2\n/a/file/here\n\nlastfile\n# this is a comment\n! /inverted/abs/path\n!\n! \n";
    let (patterns, problems) = Patterns::parse(text);
    assert_eq!(problems.len(), expected.iter().filter(|rule| *rule == "!").count());
    let rules: Vec<_> = (0..5).map(|index| patterns.rule(index).unwrap().text).collect();
    assert_eq!(rules, expected[..5]);
}

#[test]
fn asottile_dockerfile() {
    let Some(corpus) = shared("corpora/asottile-dockerfile") else { return };
    let events = read(corpus.join("parse.events.jsonl"));
    let tables = corpus.join("parse.tables.jsonl");
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let (func, text) = (&event["func"], event["events"][0]["value"].as_str().unwrap());
        if func == "TestParseReaderParseError" {
            assert!(dump(text).is_err());
            continue;
        }
        let rows = table(&tables, func.as_str().unwrap(), "expected");
        let prefixed = if text.starts_with("FROM") { 0 } else { 1 };
        let whole = if prefixed == 1 { format!("FROM scratch\n{text}") } else { text.to_owned() };
        let (file, problems) = parse(&whole);
        assert!(errors(&problems).is_empty(), "{}", render(&whole, &problems));
        let index = LineIndex::new(&whole);
        let stage = &file.stages[0];
        let mut found = vec![("FROM".to_owned(), stage.span)];
        found.extend(stage.instructions.iter().map(|each| (each.keyword.value.clone(), each.span)));
        let found: Vec<_> = found
            .into_iter()
            .skip(prefixed)
            .map(|(keyword, span)| {
                let lines = (index.line(span.start), index.line(span.end - 1));
                (keyword, lines.0 - prefixed, lines.1 - prefixed)
            })
            .collect();
        let line_of = |row: &Value, name: &str| row[name].as_u64().unwrap() as usize;
        let expected: Vec<_> = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                let keyword = row["Cmd"].as_str().unwrap().to_owned();
                (keyword, line_of(row, "StartLine"), line_of(row, "EndLine"))
            })
            .collect();
        assert_eq!(found, expected, "{func}");
    }
}

fn count(file: &Dockerfile) -> usize {
    let inner: usize = file.stages.iter().map(|stage| stage.instructions.len()).sum();
    file.stages.len() + file.global_args.len() + inner
}

#[test]
fn official_images() {
    let Some(corpus) = shared("corpora/official") else { return };
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
    let mut queue = vec![corpus];
    let mut seen = 0;
    while let Some(folder) = queue.pop() {
        queue.extend(folders(&folder));
        let path = folder.join("Dockerfile");
        if !path.is_file() {
            continue;
        }
        seen += 1;
        let text = read(&path);
        let (file, problems) = parse(&text);
        assert!(problems.is_empty(), "{}: {}", path.display(), render(&text, &problems));
        let is_instruction = |line: &&str| keywords.iter().any(|keyword| line.starts_with(keyword));
        assert_eq!(count(&file), text.lines().filter(is_instruction).count(), "{}", path.display());
        let (again, problems) = parse(&file.to_string());
        assert!(errors(&problems).is_empty());
        assert_eq!(without_spans(&again), without_spans(&file), "{}", path.display());
    }
    assert!(seen > 50, "{seen}");
}

/// The texts of Dockerfiles in a test's events: files of the context and assigned strings.
fn dockerfiles(value: &Value, found: &mut Vec<String>) {
    let is_source = |text: &str| text.contains("FROM ") || text.contains("from ");
    match value {
        Value::Array(items) => items.iter().for_each(|item| dockerfiles(item, found)),
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
            fields.values().for_each(|field| dockerfiles(field, found));
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
fn buildkit_integration_dockerfiles() {
    let Some(corpus) = shared("corpora/buildkit/tables") else { return };
    let mut seen = 0;
    for line in read(corpus.join("integration.events.jsonl")).lines() {
        let test: Value = serde_json::from_str(line).unwrap();
        let mut texts = Vec::new();
        dockerfiles(&test["events"], &mut texts);
        for text in texts {
            seen += 1;
            let (file, problems) = parse(&text);
            let allowed = REFUSED.iter().find(|(func, _)| test["func"] == *func);
            match (errors(&problems).first(), allowed) {
                (None, _) => {
                    let (again, _) = parse(&file.to_string());
                    assert_eq!(without_spans(&again), without_spans(&file), "{text}");
                }
                (Some(first), Some((_, words))) => {
                    assert!(first.message.contains(words), "{}", first.message);
                }
                (Some(_), None) => panic!("{}: {}", test["func"], render(&text, &problems)),
            }
        }
    }
    assert!(seen > 300, "{seen}");
}
