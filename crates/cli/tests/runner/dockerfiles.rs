//! Mistakes in Dockerfiles are shown where they are.

use crate::program::{Program, can_build};

#[test]
fn errors_name_the_line() {
    let program = Program::new();
    let dockerfile = "# comment\nFROM scratch\nRUNN x\n";
    let outcome = program.run_stdin("-", dockerfile);
    outcome.refused(1, "--> Dockerfile:3\n");
    assert!(outcome.stderr.contains("error[unknown-instruction]"), "{outcome:#?}");
    assert!(outcome.stderr.contains("3 | RUNN x"), "{outcome:#?}");
    assert!(!outcome.stderr.contains('\x1b'), "colours without a terminal: {outcome:#?}");
}

#[test]
fn the_first_place_that_is_shown_is_the_error() {
    let program = Program::new();
    program.file("Dockerfile", "FROM scratch\nENV a b\nENV c='d\n");
    let outcome = program.run(".");
    outcome.refused(1, "--> Dockerfile:3\n");
    let short = "warning[LegacyKeyValueFormat]: \"ENV key=value\" should be used instead of legacy \
                 \"ENV key value\" format (line 2)\nerror";
    assert!(outcome.stderr.contains(short), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("Dockerfile:2"), "{}", outcome.stderr);
}

#[test]
fn of_very_many_errors_the_first_are_shown() {
    let dockerfile = format!("FROM scratch\n{}", "RUNN x\n".repeat(20_000));
    let outcome = Program::new().run_stdin("-", &dockerfile);
    outcome.refused(1, "hint: 19900 more errors and warnings are not shown");
    assert_eq!(outcome.stderr.matches("error[").count(), 100);
}

#[test]
fn an_unknown_target_lists_the_stages() {
    let program = Program::new();
    program.file("Dockerfile", "FROM scratch AS one\nCOPY a /a\nFROM one AS two\n");
    program.run("--target three .").refused(1, "one");
}

#[test]
fn a_missing_dockerfile_is_named() {
    let program = Program::new();
    program.run(".").refused(1, "Dockerfile");
    program.run("-f other .").refused(1, "other");
}

#[test]
fn a_file_that_is_not_in_the_context_is_named_with_its_line() {
    if !can_build() {
        return;
    }
    let program = Program::new();
    program.file("Dockerfile", "FROM scratch\nCOPY nope /nope\n");
    let outcome = program.run(".");
    outcome.refused(1, "--> Dockerfile:2\n");
    assert!(outcome.stderr.contains("nope"), "{outcome:#?}");
}

#[test]
fn the_graph_can_be_printed() {
    let program = Program::new();
    program.file("Dockerfile", "FROM scratch\nCOPY a /a\n");
    let outcome = program.run("--call=dot .").good();
    assert!(outcome.stdout.starts_with("digraph"), "{outcome:#?}");
    assert!(outcome.stdout.contains("COPY a /a"), "{outcome:#?}");
}
