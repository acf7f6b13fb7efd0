//! Commands that look at steps of past builds, and enter them.

use rustix::process::{Pid, Signal, kill_process};

use crate::containers;
use crate::program::{Outcome, Program};

/// A store with the image `box`, and a build that failed.
fn program() -> Option<Program> {
    let program = containers::program()?;
    program.file(
        "Dockerfile",
        "FROM box AS work\nENV COLOUR=red\nRUN echo one > /one; echo said; sleep .2; echo twice >&2\n\
         WORKDIR /work\nRUN echo half > made; echo no; exit 3\n",
    );
    let failed = program.run("build --progress=plain .");
    assert_eq!(failed.code, 1, "{failed:#?}");
    assert!(failed.stderr.ends_with("hint: enter it with: rbuild shell @failed\n"), "{failed:#?}");
    Some(program)
}

#[test]
fn a_failed_step_is_entered_and_looked_at() {
    let Some(program) = program() else { return };
    let line = ["exec", "@failed", "--", "sh", "-c", "echo $COLOUR; cat made; exit 5"];
    let entered = program.run_words(&line);
    assert_eq!((entered.code, entered.stdout.as_str()), (5, "red\nhalf\n"), "{entered:#?}");
    // What is written to a shell that has no terminal is a script.
    let shell = program.run_stdin("shell", "pwd; cat /one; exit 6\n");
    assert_eq!((shell.code, shell.stdout.as_str()), (6, "/work\none\n"), "{shell:#?}");
    let words =
        ["shell", "-e", "COLOUR=blue", "work:2", "--", "sh", "-c", "echo $COLOUR; cat /one"];
    assert_eq!(program.run_words(&words).good().stdout, "blue\none\n");
    program.run("exec @failed nope").refused(127, "nope");
    program.run("exec -d @failed sh").refused(125, "neither with --detach nor with --privileged");
    program.run("shell nope:1").refused(125, "no such step: nope:1: \"nope\" is no stage");
    program.run("exec nope sh").refused(125, "no such container: nope");
    let json = program.run("build --progress=rawjson .");
    assert!(json.stderr.contains(r#""enter":"rbuild shell @failed""#), "{json:#?}");
    // Where nothing was kept there is nothing to enter.
    program.file("Dockerfile", "FROM box\nCOPY nope /\n");
    assert!(!program.run("build .").stderr.contains("rbuild shell"));
}

#[test]
fn builds_are_listed_and_their_logs_shown() {
    let Some(program) = program() else { return };
    assert_eq!(program.run("logs work:2").good().stdout, "said\ntwice\n");
    assert_eq!(program.run("logs @failed").good().stdout, "no\n");
    program.run("logs -n 1 @failed").refused(1, "shown whole");
    let table = program.run("builds").good().stdout;
    assert!(table.starts_with("BUILD      WHEN"), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    let states = program.run("builds --format {{.Status}}").good().stdout;
    assert_eq!(states, "failed\nbuilt\n");
    let ids = program.run("builds -q").good().stdout;
    let id = ids.lines().next().unwrap();
    let steps = program.run(&format!("builds {id}")).good().stdout;
    assert!(steps.lines().last().unwrap().contains("failed   [work 4/4] RUN"), "{steps}");
    let number = steps.lines().last().unwrap().split_whitespace().next().unwrap();
    assert_eq!(program.run(&format!("logs {number}")).good().stdout, "no\n");
    assert_eq!(program.run(&format!("logs {id}:work:2")).good().stdout, "said\ntwice\n");
    program.run("builds 0000zz").refused(1, "`rbuild builds` lists them");
    program.run("exec /nope true").refused(125, "no such container");
    // A container is meant before a step, also by the beginning of its id.
    let id = loop {
        let id = program.run("create box echo inside").good().stdout.trim().to_owned();
        if id.starts_with(number) {
            break id;
        }
        program.run(&format!("rm {id}")).good();
    };
    program.run(&format!("start -a /{id}")).good();
    assert_eq!(program.run(&format!("logs {number}")).good().stdout, "inside\n");
    assert_eq!(program.run(&format!("logs @{number}")).good().stdout, "no\n");
}

#[test]
fn steps_are_compared() {
    let Some(program) = program() else { return };
    let compared = |line: &str| {
        let found = program.run(line);
        assert_eq!(found.code, 1, "{found:#?}");
        found.stdout
    };
    let names = "{{.Name}}";
    // A process needs the other three.
    let made = "/dev\n/one\n/proc\n/sys\n";
    assert_eq!(compared(&format!("diff @work:2 --format {names}")), made);
    let text = compared("diff @failed");
    assert!(text.contains("+ /work/made: regular file, 5B"), "{text}");
    assert_eq!(compared(&format!("diff box @work:2 --format {names}")), made);
    assert_eq!(program.run("diff -q @failed @failed").code, 0);
    program.run("diff @nope:1 box").refused(2, "no such step");
}

#[test]
fn files_are_copied_out_of_steps() {
    let Some(program) = program() else { return };
    let content = |name: &str| fs_err::read_to_string(program.context().join(name)).unwrap();
    program.run("cp @failed:/work/made half").good();
    program.run("cp @work:2:/one .").good();
    assert_eq!((content("half"), content("one")), ("half\n".to_owned(), "one\n".to_owned()));
    program.run("cp @failed:/work tree").good();
    assert_eq!(content("tree/made"), "half\n");
    let steps = program.run("builds -q").good().stdout.lines().next().unwrap().to_owned();
    let numbers = program.run(&format!("builds -q {steps}")).good().stdout;
    let last = numbers.lines().last().unwrap();
    program.run(&format!("cp {last}:/work/made by-number")).good();
    assert_eq!(content("by-number"), "half\n");
    program.run("cp @failed:/nope .").refused(1, "@failed:/nope is not there");
    program.run("cp Dockerfile @failed:/").refused(1, "cannot be changed: `rbuild shell");
}

#[test]
fn nothing_is_left_of_a_shell_that_is_killed() {
    let Some(program) = program() else { return };
    let marker = format!("{}.25", 200_000 + std::process::id());
    let mut child = program.start(&format!("exec @failed sleep {marker}"), &[]);
    let sleeping = || {
        let processes = fs_err::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|process| fs_err::read_to_string(process.path().join("cmdline")).ok())
            .any(|line| line.starts_with("sleep") && line.contains(&marker))
    };
    while !sleeping() {
        assert!(child.try_wait().unwrap().is_none(), "{:#?}", Outcome::of(child));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    while sleeping() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    program.run("builds").good();
    let left = fs_err::read_dir(program.store().join("tmp")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}
