//! Files of containers: `cp`, `diff`, `commit`, `export` and `import`.

use crate::containers::program;

#[test]
fn files_go_both_ways_and_tars_through_pipes() {
    let Some(program) = program() else { return };
    let line = |line: &str| program.run(line).good().stdout;
    line("create --name web box true");
    program.file("in", "text");
    line("cp in web:/bin/in");
    line("cp -q web:/bin/in out");
    assert_eq!(fs_err::read_to_string(program.context().join("out")).unwrap(), "text");
    let tar = line("container cp web:bin/in -");
    assert!(tar.starts_with("in\0"), "{tar:?}");
    line("create --name other box cat /bin/in");
    let put = program.run_stdin("cp - other:/bin", &tar);
    assert_eq!(put.good().stderr, "");
    assert_eq!(line("start -a other"), "text");
    program.run("cp web:/bin/none x").refused(1, "web:/bin/none is not there");
    program.run("cp web:/bin other:/bin").refused(1, "a path of the host");
    program.run("cp in out").refused(1, "a path of the host");
    program.run("cp - -").refused(1, "CONTAINER:PATH -");
    program.run("cp none:/x y").refused(1, "no such container: none");
}

#[test]
fn changes_are_listed_and_become_images() {
    let Some(program) = program() else { return };
    let line = |line: &str| program.run(line).good().stdout;
    line("run --name web box touch /bin/new");
    assert_eq!(line("diff web"), "C /bin\nA /bin/new\n");
    assert_eq!(line("diff --format {{.Type}} web"), "C\nA\n");
    program.run("diff -q web").refused(2, "--quiet");
    program.run("diff none").refused(2, "no such container: none");
    let words =
        ["commit", "-m", "by hand", "-a", "me", "-c", "CMD [\"echo\", \"hi\"]", "web", "made"];
    let id = program.run_words(&words).good().stdout;
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(line("run --rm made"), "hi\n");
    let words = ["inspect", "--format", "{{.Author}} {{.Comment}} {{.Id}}", "made"];
    assert_eq!(program.run_words(&words).good().stdout, format!("me by hand {id}"));
    program.run("commit -c FROM web").refused(1, "--change");
    line("export -o root.tar web");
    assert!(line("import root.tar imported:1").starts_with("sha256:"));
    assert_eq!(line("run --rm imported:1 echo it runs"), "it runs\n");
    program.run("import https://x.invalid/x.tar").refused(1, "a URL is not supported yet");
}
