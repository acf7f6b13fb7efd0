//! Instructions and what is wrong with them: BuildKit's `instructions` package.

use rbuild_parser::ast::{CommandLine, InstructionKind};
use rbuild_parser::parse;
use rbuild_testkit::corpora::{Table, events, same};
use serde_json::json;

use crate::{instruction, message, refused, text};

const TABLES: &str = "buildkit/tables/instructions-parse.tables.jsonl";

/// Each name of a table in an instruction that is an error, with its words.
fn all_refused(func: &str, arguments: &str, words: &str) {
    let Some(table) = Table::open(TABLES, func, "commands") else { return };
    table.check(|name| {
        let name = name.as_str().unwrap();
        same(&message(&format!("{name}{arguments}"))?, &words.replace("NAME", name))
    });
}

#[test]
fn numbers_of_arguments() {
    all_refused("TestCommandsExactlyOneArgument", "", "NAME requires exactly one argument");
    all_refused("TestCommandsAtLeastOneArgument", "", "NAME requires at least one argument");
    all_refused(
        "TestCommandsNoDestinationArgument",
        " arg1",
        "NAME requires at least two arguments, but only one was provided. Destination could not \
         be determined",
    );
    all_refused("TestCommandsBlankNames", " =value", "NAME names can not be blank");
}

#[test]
fn errors() {
    let Some(table) = Table::open(TABLES, "TestErrorCases", "cases") else { return };
    table.check(|row| refused(text(row, "dockerfile"), text(row, "expectedError")));
}

#[test]
fn every_instruction_takes_or_refuses_any_words() {
    let Some(table) = Table::open(TABLES, "TestNilLinter", "range") else { return };
    let names = [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    table.check(|row| {
        for name in names {
            let text = format!("{name}{}", text(row, "y"));
            let (file, problems) = parse(&text);
            let is_empty = file.stages.is_empty() && file.global_args.is_empty();
            if is_empty && problems.is_empty() {
                return Err(format!("{text} is nothing"));
            }
        }
        Ok(())
    });
}

#[test]
fn names_of_stages() {
    let Some(table) = Table::open(TABLES, "BenchmarkParseBuildStageName", "stageNames") else {
        return;
    };
    table.check(|row| {
        let name = row.as_str().unwrap();
        let (file, _) = parse(&format!("FROM scratch AS {name}"));
        let found = file.stages[0].name.as_ref().map(|name| name.value.clone());
        same(&found, &Some(name.to_lowercase()))
    });
}

#[test]
fn commands_of_health_checks() {
    let Some(table) = Table::open(TABLES, "TestHealthCheckCmd", "expected") else { return };
    let text = format!("HEALTHCHECK CMD {}", table.rows()[1].as_str().unwrap());
    let InstructionKind::Healthcheck(check) = instruction(&text).unwrap().kind else {
        panic!("{text}")
    };
    let mut found = match check.command {
        Some(CommandLine::Shell { text, .. }) => vec![json!("CMD-SHELL"), json!(text)].into_iter(),
        other => panic!("{other:?}"),
    };
    table.check(|row| same(&found.next().as_ref(), &Some(row)));
}

#[test]
fn flags_of_run() {
    let file = "buildkit/tables/instructions-parse.events.jsonl";
    let Some(events) = events(file, "TestRunCmdFlagsUsed") else { return };
    let InstructionKind::Run(run) = instruction(text(&events[0], "value")).unwrap().kind else {
        panic!("is no RUN")
    };
    Table::of("buildkit: TestRunCmdFlagsUsed", vec![events[3]["a"].clone()])
        .check(|row| same(&(row == &json!(["mount"]), run.mounts.len()), &(true, 1)));
}
