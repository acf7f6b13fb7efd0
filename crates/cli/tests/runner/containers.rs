//! Steps and containers that really run, on a base of one static busybox.

use std::io::{BufRead as _, BufReader};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Outcome, Program, can_build};

/// Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

/// A store with the image `box`; `None`, and a word, where that cannot be had.
pub fn program() -> Option<Program> {
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

/// The script of a container that runs until it is stopped.
const SERVE: &str = "trap 'echo bye; exit 9' TERM\necho up\nwhile :; do sleep 0.05; done\n";

#[test]
fn a_container_lives_on_in_the_background() {
    let Some(program) = program() else { return };
    program.file("serve.sh", SERVE);
    let mount = format!("{}:/mnt", program.context().display());
    let id = program.run(&format!("run -d --name web -l a=b -v {mount} box sh /mnt/serve.sh"));
    let id = id.good().stdout.trim_end().to_owned();
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let line = |line: &str| program.run(line).good().stdout;
    assert_eq!(line("ps -q --no-trunc"), format!("{id}\n"));
    let row = "{{.Names}} {{.Image}} {{.State}} {{.Labels}}";
    let listed = program.run_words(&["ps", "--format", row]).good().stdout;
    assert_eq!(listed, "web box running a=b\n");
    while line("logs web").is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    program.run("rm web").refused(1, "rm -f");
    program.run("run --name web box echo").refused(125, &id[..12]);
    assert_eq!(line("rename web other"), "");
    assert_eq!(line("stop other"), "other\n");
    assert_eq!(line("logs other"), "up\nbye\n");
    assert_eq!(line("logs -n 1 other"), "bye\n");
    assert_eq!(line("logs -f --until 1h other"), "");
    assert_eq!(line("ps -q"), "");
    assert_eq!(line("ps -q --filter exited=9"), format!("{}\n", &id[..12]));
    assert_eq!(line("wait other"), "9\n");
    let format = "{{.State.Status}} {{.State.ExitCode}} {{.Name}}";
    let shown = program.run_words(&["inspect", "-f", format, &id[..5]]).good().stdout;
    assert_eq!(shown, "exited 9 /other\n");
    assert_eq!(line("start other"), "other\n");
    assert_eq!(line("kill -s KILL other"), "other\n");
    assert_eq!(line("wait other"), "137\n");
    assert_eq!(line("container prune -f"), format!("{id}\n"));
    assert_eq!(line("ps -aq"), "");
    program.run("stop other").refused(1, "no such container: other");
    program.run("rm -f other").good();
    let gone = program.run("inspect other");
    assert!(gone.code == 1 && gone.stderr.contains("no such object: other"), "{gone:?}");
}

#[test]
fn programs_join_a_running_container() {
    let Some(program) = program() else { return };
    program.file("serve.sh", SERVE);
    program.file("show.sh", "echo $A $B $C $PWD\nexit 7\n");
    let mount = format!("{}:/mnt", program.context().display());
    let serve = format!("run -d --name web -e B=run -v {mount} box sh /mnt/serve.sh");
    program.run(&serve).good();
    assert_eq!(program.run("exec web echo hello").good().stdout, "hello\n");
    program.file("env", "# comment\nC=file\n");
    let shown = program.run("container exec -e A --env-file env -w /bin web sh /mnt/show.sh");
    assert_eq!((shown.code, shown.stdout.as_str()), (7, "image run file /bin\n"));
    assert_eq!(program.run_stdin("exec -i web cat", "typed").good().stdout, "typed");
    assert_eq!(program.run_stdin("exec web cat", "typed").good().stdout, "");
    program.run("exec web /nope").refused(127, "/nope");
    program.run("exec web /bin").refused(126, "/bin");
    program.run("exec none echo").refused(125, "no such container: none");
    program.run("exec -w bin web echo").refused(125, "not an absolute path");
    program.run("exec -it web sh").refused(125, "needs a terminal");
    program.run("exec -di web sh").refused(125, "--interactive");
    program.run("exec --detach-keys x web sh").refused(125, "not supported yet");
    let seen = program.run("exec -t web echo seen").good();
    assert_eq!(seen.stdout, "seen\r\n");
    assert_eq!(program.run("exec -d web touch /made").good().stdout, "");
    while program.run("exec web cat /made").code != 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // Signals are passed on.
    let mut child = program.start("exec web sh /mnt/serve.sh", &[]);
    let (mut stdout, mut up) = (BufReader::new(child.stdout.take().unwrap()), String::new());
    stdout.read_line(&mut up).unwrap();
    send(&child, Signal::TERM);
    assert_eq!(Outcome::of(child).code, 9);
    program.run("stop web").good();
    program.run("exec web echo").refused(125, "container web is not running");
}

#[test]
fn what_is_made_is_started_later() {
    let Some(program) = program() else { return };
    let id = program.run("create --name later -i box cat").good().stdout;
    assert_eq!(program.run("ps -aq --no-trunc").good().stdout, id);
    let ended = program.run_stdin("start -ai later", "typed").good();
    assert_eq!(ended.stdout, "typed");
    assert_eq!(program.run("logs later").good().stdout, "typed");
    program.run("rm -v later").good();
    // Nobody reads: it ends.
    program.file("talk.sh", "while :; do echo talk; done\n");
    let talk = format!("run --rm -v {}:/mnt box sh /mnt/talk.sh", program.context().display());
    let mut child = program.start(&talk, &[]);
    drop(child.stdout.take());
    assert_eq!(Outcome::of(child).code, 141);
    program.run("run -d box /nope").refused(127, "/nope");
    assert_eq!(program.run("ps -a --format {{.Status}}").good().stdout, "Created\n");
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

#[test]
fn health_shows_in_lists_and_documents() {
    let Some(program) = program() else { return };
    let up = "run -d --name app --health-interval=20ms --health-start-period=1m";
    program
        .run_words(
            &[up.split(' ').collect(), vec!["--health-cmd", "exit 0", "box", "sleep", "60"]]
                .concat(),
        )
        .good();
    let shown = "{{.State.Health.Status}} {{.Config.Healthcheck.Interval}} \
                 {{.Config.Healthcheck.Test}}";
    let mut health = String::new();
    for _ in 0..1000 {
        health = program.run_words(&["inspect", "--format", shown, "app"]).good().stdout;
        if health.starts_with("healthy") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(health, "healthy 20000000 [CMD-SHELL exit 0]\n");
    let listed = program.run_words(&["ps", "--format", "{{.Status}}"]).good().stdout;
    assert!(listed.ends_with(" (healthy)\n"), "{listed}");
    assert_eq!(program.run("ps -q --filter health=unhealthy").good().stdout, "");
    assert_ne!(program.run("ps -q --filter health=healthy").good().stdout, "");
    program.run("ps --filter health=fine").refused(1, "there is no such health");
    program.run("rm -f app").good();
}

#[test]
fn without_root_it_is_said_what_is_missing() {
    let Some(program) = program() else { return };
    let run = |line: &str| program.run_as_nobody(line);
    run("run --network host box true").refused(125, "mounting needs root");
    let lowest = fs_err::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let port = match lowest.trim().parse::<u32>().unwrap() > 80 {
        true => "publish at a higher port",
        false => "need root",
    };
    run("run --network bridge -p 80:80 box true").refused(125, port);
    run("run --network bridge box true").refused(125, "need root");
    assert_eq!(run("ps -q").good().stdout, "");
    assert_eq!(run("ps -a -q").good().stdout.lines().count(), 3);
}
