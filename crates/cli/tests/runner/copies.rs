//! `cp` between containers and the host.

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
