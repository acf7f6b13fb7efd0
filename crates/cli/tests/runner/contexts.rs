//! Build contexts: what comes on standard input, named ones, and `rbuild context`.

use serde_json::Value;

use crate::program::{Program, can_build};

fn with_context() -> Program {
    let program = Program::new();
    let dockerfile = "FROM nothing.invalid/x\nCOPY . /c\nCOPY b.txtt /\nRUN --mount=target=/m x\n";
    program.file("Dockerfile", dockerfile);
    program.file("big.txt", &"x".repeat(3000));
    program.file("b.txt", "b");
    program.file("a.o", "12345");
    program.file(".dockerignore", "*.o\nDockerfile\n.dockerignore\nnot-there\n");
    program
}

#[test]
fn a_context_is_shown_the_biggest_first() {
    let outcome = with_context().run("context").good();
    let expected = "\
[2/4] COPY . /c  (Dockerfile:2)
       3kB  /big.txt
        1B  /b.txt
  2 files, 3kB

[3/4] COPY b.txtt /  (Dockerfile:3)
  fails: failed to calculate checksum of ref context: \"/b.txtt\": not found (did you mean \"/b.txt\"?)

[4/4] RUN --mount=target=/m x  (Dockerfile:4)
       3kB  /big.txt
        1B  /b.txt
  2 files, 3kB

";
    assert!(outcome.stdout.starts_with(expected), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("left out by the ignore file: 3 files"), "{outcome:#?}");
    let note = "this rule changes nothing: .dockerignore line 4: not-there";
    assert!(outcome.stderr.contains(note), "{outcome:#?}");
}

#[test]
fn what_is_ignored_is_shown_with_its_rule() {
    let outcome = with_context().run("context --ignored .").good();
    assert!(outcome.stdout.contains("a.o  .dockerignore line 1: *.o\n"), "{outcome:#?}");
    assert_eq!(outcome.stdout.lines().count(), 3, "{outcome:#?}");
}

#[test]
fn a_context_is_a_document() {
    let program = with_context();
    program.file("extra.txt", "x");
    let text = "FROM scratch\nCOPY --from=extra extra.txt /\n";
    program.file("other", text);
    let line = "context --format json --build-context extra=. -f other .";
    let document: Value = serde_json::from_str(&program.run(line).good().stdout).unwrap();
    let instruction = &document["instructions"][0];
    assert_eq!(instruction["context"], "extra");
    assert_eq!(instruction["line"], 2);
    assert_eq!(instruction["selected"][0]["path"], "/extra.txt");
    assert_eq!(document["ignore_file"]["unused_rules"][0]["rule"], "not-there");
    program.run("context --format table .").refused(1, "--format table is not supported yet");
    program.run("context nowhere").refused(1, "nowhere");
}

#[test]
fn the_context_needs_no_store() {
    let program = with_context();
    program.run("--root /proc/no/store context").good();
}

#[test]
fn what_standard_input_cannot_be_is_named() {
    let program = Program::new();
    program.file("Dockerfile", "FROM scratch\n");
    let hint = "--file has no place";
    program.run_stdin("-f Dockerfile -", "FROM scratch\n").refused(1, hint);
    program.run("http://127.0.0.1:1/x.git").refused(1, "cannot load the build context http://127");
    program.run("http://127.0.0.1:1/x.git?x=y").refused(1, "unexpected query");
    program.run("context github.com/o/r").refused(1, "only a directory can be looked at");
    program.run("--build-context x .").refused(1, "expected NAME=VALUE");
    program.run("--build-context x=nowhere .").refused(1, "the build context x does not exist");
    program.run_stdin("--ignorefile x -", "FROM scratch\n").refused(1, "--ignorefile");
    program.run_stdin("--context-mode git -", "FROM scratch\n").refused(1, "--context-mode");
    program.run("--context-mode svn .").refused(1, "--context-mode");
}

#[test]
fn a_dockerfile_on_standard_input_has_no_context_or_the_named_one() {
    if !can_build() {
        return;
    }
    let program = Program::new();
    program.file("a.txt", "hello");
    let copy = "FROM scratch\nCOPY a.txt /\n";
    program.run_stdin("-o type=local,dest=out -f - .", copy).good();
    assert_eq!(fs_err::read_to_string(program.context().join("out/a.txt")).unwrap(), "hello");
    program.run_stdin("-q -", "FROM scratch\nCOPY <<a /b\nc\na\n").good();
    program.run_stdin("-q -", copy).refused(1, "a.txt");
}

#[test]
fn a_tar_on_standard_input_is_a_context() {
    if !can_build() {
        return;
    }
    let program = Program::new();
    program.file("Dockerfile", "FROM scratch\nCOPY a.txt /\n");
    program.file("a.txt", "hello");
    program.run("-o type=tar,dest=made.tar .").good();
    // What was made is a tar; with a Dockerfile of its own it is a context.
    let warned = "FROM scratch\nCOPY $NOT_SET a.txt /\n";
    program.file("Dockerfile", warned);
    program.file("inner", "FROM scratch\nCOPY Dockerfile a.txt /\n");
    program.run("-f inner -o type=tar,dest=context.tar .").good();
    let tar = fs_err::read(program.context().join("context.tar")).unwrap();
    let outcome = program.run_stdin("-o type=local,dest=out -", &String::from_utf8(tar).unwrap());
    let stderr = outcome.good().stderr;
    assert!(stderr.contains("2 | COPY $NOT_SET a.txt /"), "{stderr}");
    assert_eq!(fs_err::read_to_string(program.context().join("out/a.txt")).unwrap(), "hello");
}
