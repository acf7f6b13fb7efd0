//! Steps and containers that really run, on a base of one static busybox.

use std::io::{BufRead as _, BufReader};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Outcome, Program, can_build};

/// Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

/// A store with the image `box`; `None`, and a word, where that cannot be had.
fn program() -> Option<Program> {
    if !can_build() {
        return None;
    }
    if fs_err::metadata(BUSYBOX).is_err() {
        eprintln!("skipped: needs a static busybox at {BUSYBOX}");
        return None;
    }
    let program = Program::new();
    let bin = program.context().join("bin");
    fs_err::create_dir(&bin).unwrap();
    fs_err::copy(BUSYBOX, bin.join("busybox")).unwrap();
    for applet in ["sh", "cat", "sleep", "echo", "touch"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    program.file("base", "FROM scratch\nCOPY bin /bin\nENV A=image\n");
    program.run("-t box -f base .").good();
    Some(program)
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn codes_of_processes_pass_through() {
    let Some(program) = program() else { return };
    program.file("code.sh", "exit 7\n");
    let mount = format!("{}:/mnt:ro", program.context().display());
    assert_eq!(program.run(&format!("run --rm -v {mount} box sh /mnt/code.sh")).code, 7);
    program.run("run box /nope").refused(127, "/nope");
    program.run("run --rm --entrypoint /bin box").refused(126, "/bin");
    assert_eq!(program.run("run box echo hello").good().stdout, "hello\n");
}

#[test]
fn input_and_variables_reach_the_process() {
    let Some(program) = program() else { return };
    assert_eq!(program.run_stdin("run -i box cat", "typed").good().stdout, "typed");
    assert_eq!(program.run_stdin("run box cat", "typed").good().stdout, "");
    program.file("env", "# comment\nB=file\nC\n");
    program.file("show.sh", "echo $A $B $C $PWD\n");
    let line = format!(
        "run -e A --env-file env -w /bin -v {}:/mnt box sh /mnt/show.sh",
        program.context().display()
    );
    let shown = program.run_with(&line, "", &[("A", "caller"), ("C", "c")]).good();
    assert_eq!(shown.stdout, "caller file c /bin\n");
    program.run("run --read-only box touch /x").refused(1, "Read-only");
    program.run("run -it box sh").refused(125, "needs a terminal");
}

#[test]
fn names_ids_and_switches() {
    let Some(program) = program() else { return };
    program.file("show.sh", "read h </etc/hostname; echo $h\n");
    let mount = format!("{}:/mnt", program.context().display());
    let line = format!("run --rm=true --tty=false -q -h there -v {mount} --cidfile cid box");
    assert_eq!(program.run(&format!("{line} sh /mnt/show.sh")).good().stdout, "there\n");
    let id = fs_err::read_to_string(program.context().join("cid")).unwrap();
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    program.run("run --cidfile cid box echo").refused(125, "the file is there already");
    program.run("run --read-only=false box touch /x").good();
    program.run("run -it=false -i=false box echo").good();
}

#[test]
fn cache_mounts_are_seen_copied_and_carried() {
    let Some(program) = program() else { return };
    program.file("cached", "FROM box\nRUN --mount=type=cache,target=/c echo built > /c/f\n");
    program.run("-f cached .").good();
    assert_eq!(program.run("cache ls -q").good().stdout, "/c\n");
    let table = program.run("cache ls").good().stdout;
    assert!(table.starts_with("ID   NAME") && table.contains("/c   cache-"), "{table}");
    assert_eq!(program.run("run -v cache:/c:/x:ro box cat /x/f").good().stdout, "built\n");
    let mount = "run --mount type=volume,source=cache:/c,target=/x,sharing=locked box";
    program.run(&format!("{mount} touch /x/container")).good();
    let local = program.context().join("out");
    program.run(&format!("cache cp /c:/f {}", local.display())).good();
    assert_eq!(fs_err::read_to_string(&local).unwrap(), "built\n");
    program.run("cache cp nope:/f out").refused(1, "no cache mount has the id \"nope\"");
    let tar = program.context().join("c.tar.zst");
    program.run(&format!("cache export /c -o {}", tar.display())).good();
    program.run(&format!("cache import other {}", tar.display())).good();
    assert_eq!(program.run("run -v cache:other:/x box cat /x/f").good().stdout, "built\n");
    let format = "cache inspect --format {{.ID}}/{{.Mode}}/{{.InUse}} other";
    assert_eq!(program.run(format).good().stdout, "other/0755/false\n");
    let listed = program.run("du --filter type=exec.cachemount --format {{.Description}}").good();
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    assert_eq!(program.run("cache rm other").good().stdout, "other\n");
    program.run("cache rm -f other").good();
    let pruned = program.run("prune -f --filter type=exec.cachemount").good().stdout;
    assert!(pruned.contains("cache mount /c"), "{pruned}");
    assert_eq!(program.run("cache ls -q").good().stdout, "");
}

#[test]
fn signals_are_passed_on() {
    let Some(program) = program() else { return };
    program.file("trap.sh", "trap 'exit 9' TERM\necho ready\nwhile :; do sleep 0.05; done\n");
    let line = format!("run -v {}:/mnt box sh /mnt/trap.sh", program.context().display());
    let mut child = program.start(&line, &[]);
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    send(&child, Signal::TERM);
    assert_eq!(Outcome::of(child).code, 9);
}

#[test]
fn a_failed_step_shows_its_output_and_its_line() {
    let Some(program) = program() else { return };
    program.file("Dockerfile", "FROM box\n\nRUN echo about to fail; \\\n    exit 3\n");
    let outcome = program.run(".");
    outcome.refused(1, " --> Dockerfile:3\n");
    let process = r#"process "/bin/sh -c echo about to fail;     exit 3" did not complete successfully: exit code: 3"#;
    assert!(outcome.stderr.contains(process), "{outcome:#?}");
    assert!(outcome.stderr.contains("about to fail\n------\nerror: process"), "{outcome:#?}");
}

#[test]
fn an_interrupted_build_cleans_up_and_says_so() {
    let Some(program) = program() else { return };
    program.file("Dockerfile", "FROM box\nRUN echo started; sleep 60\n");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut child = program.start("--progress=plain .", &[]);
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.ends_with(" started\n") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended before it started");
        }
        send(&child, signal);
        let said: Vec<String> = stderr.lines().map(Result::unwrap).collect();
        assert_eq!(Outcome::of(child).code, code);
        assert!(said.last().unwrap().starts_with("interrupted: "), "{said:?}");
    }
}
