//! Processes that join a container.

use std::os::unix::fs::PermissionsExt as _;

use rbuild::{
    Attach, BuildError, CancelToken, Container, ContainerOptions, Exec, ExecOptions, ExecStreams,
    Exit, Process, SandboxError, Status, Stream, Tmpfs,
};

use crate::container_lasting::{FOR_EVER, make, place, processes, scripted, started, until};
use crate::support::shell;
use crate::tests;

tests![
    it_shares_all_namespaces_with_the_first_process,
    it_shares_the_files,
    options_stand_over_the_containers,
    codes_of_programs_come_through,
    it_may_what_the_first_process_may,
    nothing_of_the_host_is_open,
    input_is_passed_on_and_output_told_apart,
    a_terminal_is_one_of_the_container,
    only_a_container_that_runs_can_be_joined,
    it_ends_with_the_container,
    it_ends_with_its_handle,
    it_lives_on_in_the_background,
    nobody_waits_for_what_it_leaves_behind,
];

fn options(script: &str) -> ExecOptions {
    ExecOptions { argv: ["sh", "-c", script].map(str::to_owned).into(), ..ExecOptions::default() }
}

const PIPES: ExecStreams = ExecStreams::Pipes { input: false };

/// Waits: how it ended, and all that it wrote.
fn finished(exec: Exec) -> (Exit, String) {
    let mut text = String::new();
    let mut output = |_: Stream, bytes: &[u8]| text.push_str(&String::from_utf8_lossy(bytes));
    let exit = exec.wait(&CancelToken::default(), &mut output).unwrap();
    (exit, text)
}

fn run(container: &Container, options: &ExecOptions) -> (i32, String) {
    let (exit, text) = finished(container.exec(options, PIPES).unwrap());
    (exit.code(), text)
}

/// What a script writes that goes well.
fn sh(container: &Container, script: &str) -> String {
    let (code, text) = run(container, &options(script));
    assert_eq!(code, 0, "{script}: {text}");
    text
}

fn it_shares_all_namespaces_with_the_first_process() {
    let (place, engine) = place();
    let container = started(&engine, scripted(FOR_EVER));
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time"] {
        let script = format!("readlink /proc/self/ns/{kind}; readlink /proc/1/ns/{kind}");
        let links = sh(&container, &script);
        let links: Vec<_> = links.lines().collect();
        assert!(links.len() == 2 && links[0] == links[1], "{links:?}");
    }
    assert_eq!(sh(&container, "hostname"), format!("{}\n", &container.id()[..12]));
    assert!(sh(&container, "cat /proc/1/cmdline").contains("while"));
    assert_eq!(sh(&container, "cat /proc/self/cgroup"), sh(&container, "cat /proc/1/cgroup"));
    container.delete().unwrap();
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn it_shares_the_files() {
    let (_place, engine) = place();
    let script = format!(
        "echo mine > /tmp/a; until test -e /tmp/b; do sleep 0.01; done; cat /tmp/b > /tmp/c; {FOR_EVER}"
    );
    let process = Process { tmpfs: vec![Tmpfs::new("/tmp")], ..shell(&script) };
    let container = started(&engine, ContainerOptions { process, ..ContainerOptions::new("app") });
    until("the file", || run(&container, &options("cat /tmp/a")).1 == "mine\n");
    sh(&container, "echo theirs > /tmp/new; mv /tmp/new /tmp/b");
    until("the copy", || run(&container, &options("cat /tmp/c")).1 == "theirs\n");
    container.delete().unwrap();
}

fn options_stand_over_the_containers() {
    let (_place, engine) = place();
    let process = Process {
        env: vec!["A=container".to_owned(), "B=container".to_owned()],
        cwd: Some("/made".to_owned()),
        user: Some("7:8".to_owned()),
        ..shell(FOR_EVER)
    };
    let container = started(&engine, ContainerOptions { process, ..ContainerOptions::new("app") });
    let show = "echo $A $B $C; pwd; id -u; id -g; echo $HOME $TERM; umask";
    assert_eq!(sh(&container, show), "container container\n/made\n7\n8\n/\n0022\n");
    sh(&container, "test $PPID = 0");
    let own = ExecOptions {
        env: vec!["B=own".to_owned(), "C=own".to_owned()],
        cwd: Some("/bin".to_owned()),
        user: Some("0".to_owned()),
        ..options(show)
    };
    assert_eq!(run(&container, &own).1, "container own own\n/bin\n0\n0\n/\n0022\n");
    container.delete().unwrap();
}

fn codes_of_programs_come_through() {
    let (_place, engine) = place();
    let container = started(&engine, scripted(FOR_EVER));
    for code in [0, 1, 42, 255] {
        assert_eq!(run(&container, &options(&format!("exit {code}"))).0, code);
    }
    let killed = container.exec(&options("kill -9 $$"), PIPES).unwrap();
    assert_eq!(finished(killed).0, Exit::Signal(9));
    let refused = |options: ExecOptions| match container.exec(&options, PIPES) {
        Err(BuildError::Sandbox(SandboxError::Start(failure))) => failure,
        other => panic!("{other:?}"),
    };
    let program = |name: &str| ExecOptions { argv: vec![name.to_owned()], ..options("") };
    assert_eq!(refused(program("/none")).code, 127);
    assert_eq!(refused(program("none")).code, 127);
    assert_eq!(refused(program("/tmp")).code, 126);
    let cwd = Some("/none".to_owned());
    let failure = refused(ExecOptions { cwd, ..options("true") });
    assert!(failure.code == 125 && failure.action.contains("/none"), "{failure:?}");
    let user = Some("nobody-here".to_owned());
    assert!(refused(ExecOptions { user, ..options("true") }).action.contains("nobody-here"));
    container.delete().unwrap();
}

fn it_may_what_the_first_process_may() {
    let (_place, engine) = place();
    let container = started(&engine, scripted(FOR_EVER));
    let rights =
        |process: &str| format!("grep -E '^(Cap|Seccomp|NoNewPrivs|Groups|Uid)' {process}");
    let own = sh(&container, &rights("/proc/self/status"));
    assert_eq!(own, sh(&container, &rights("/proc/1/status")));
    assert!(own.contains("Seccomp:\t2"), "{own}");
    let bounding = "grep ^CapBnd /proc/self/status";
    let all = run(&container, &ExecOptions { privileged: true, ..options(bounding) }).1;
    assert_ne!(all, sh(&container, bounding));
    let host = fs_err::read_to_string("/proc/self/status").unwrap();
    assert!(host.contains(&all) && all.starts_with("CapBnd"), "{all}");
    container.delete().unwrap();
}

fn nothing_of_the_host_is_open() {
    let (place, engine) = place();
    let container = started(&engine, scripted(FOR_EVER));
    // The fourth is the directory that is read.
    assert_eq!(sh(&container, "ls /proc/self/fd"), "0\n1\n2\n3\n");
    // An input that is empty is the container's own device.
    let same = "stat -L -c %d:%i /proc/self/fd/0 /dev/null";
    let same = sh(&container, same);
    let same: Vec<_> = same.lines().collect();
    assert!(same.len() == 2 && same[0] == same[1], "{same:?}");
    let before = fs_err::metadata("/dev/null").unwrap().permissions().mode();
    sh(&container, "chmod 600 /dev/stdin");
    assert_eq!(fs_err::metadata("/dev/null").unwrap().permissions().mode(), before);
    // A directory of the host that its programs inherit is no way out: the helper closes it.
    let outside = fs_err::File::open(place.path()).unwrap().into_file();
    rustix::io::fcntl_setfd(&outside, rustix::io::FdFlags::empty()).unwrap();
    for number in 3..40 {
        let cwd = Some(format!("/proc/self/fd/{number}"));
        match container.exec(&ExecOptions { cwd, ..options("stat -c %d:%i . /") }, PIPES) {
            // Its own root, which the sandbox holds for a moment.
            Ok(exec) => {
                let (_, text) = finished(exec);
                let places: Vec<_> = text.lines().collect();
                assert!(places.len() == 2 && places[0] == places[1], "{text}");
            }
            Err(error) => assert!(!error.to_string().contains("outside"), "{number}: {error}"),
        }
    }
    drop(outside);
    container.delete().unwrap();
}

fn input_is_passed_on_and_output_told_apart() {
    let (_place, engine) = place();
    let container = started(&engine, scripted(FOR_EVER));
    assert_eq!(sh(&container, "cat"), "");
    let streams = ExecStreams::Pipes { input: true };
    let mut exec = container.exec(&options("cat; echo err >&2"), streams).unwrap();
    let mut input = exec.input().unwrap();
    let bytes = vec![b'x'; 300_000];
    let writer = std::thread::spawn(move || {
        input.write(&bytes).unwrap();
        input.close().unwrap();
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut output = |stream: Stream, bytes: &[u8]| match stream {
        Stream::Stdout => out.extend_from_slice(bytes),
        Stream::Stderr => err.extend_from_slice(bytes),
    };
    assert_eq!(exec.wait(&CancelToken::default(), &mut output).unwrap(), Exit::Code(0));
    writer.join().unwrap();
    assert_eq!((out.len(), err.as_slice()), (300_000, b"err\n".as_slice()));
    container.delete().unwrap();
}

fn a_terminal_is_one_of_the_container() {
    let (_place, engine) = place();
    let container = started(&engine, scripted(FOR_EVER));
    let script = "read a; tty; stty size; echo $TERM $a; cat; exit 4";
    let user = Some("7".to_owned());
    let options = ExecOptions { user, ..options(script) };
    let mut exec = container.exec(&options, ExecStreams::Terminal).unwrap();
    let line = exec.line().unwrap();
    line.resize(30, 100);
    let mut input = exec.input().unwrap();
    input.write(b"typed\n").unwrap();
    input.close().unwrap();
    let (exit, text) = finished(exec);
    assert_eq!(text, "typed\r\n/dev/pts/0\r\n30 100\r\nxterm typed\r\n");
    assert_eq!(exit, Exit::Code(4));
    container.delete().unwrap();
}

fn only_a_container_that_runs_can_be_joined() {
    let (_place, engine) = place();
    let name = Some("it".to_owned());
    let mut container = make(&engine, ContainerOptions { name, ..scripted("exit 0") });
    let refused = |container: &Container| {
        let error = container.exec(&options("true"), PIPES).unwrap_err();
        assert!(matches!(error, BuildError::Conflict { .. }), "{error:?}");
        assert_eq!(error.to_string(), "container it is not running");
        assert!(container.exec_in_background(&options("true")).is_err());
    };
    refused(&container);
    container.start(Attach::No).unwrap();
    container.wait(&CancelToken::default(), &mut |_, _| {}).unwrap();
    refused(&container);
    // What a dead supervisor wrote down is not believed, though a process has the number.
    let state = container.directory().join("state.json");
    let own = std::process::id();
    fs_err::write(state, format!(r#"{{"status":"running","pid":{own},"restarts":0}}"#)).unwrap();
    refused(&container);
    // Nor is what somebody wrote down who is no supervisor.
    let lock = fs_err::File::open(container.directory().join("lock")).unwrap();
    lock.file().lock().unwrap();
    assert_eq!(container.state().unwrap().status, Status::Running);
    refused(&container);
    drop(lock);
    container.delete().unwrap();
}

/// A number of seconds that no other process sleeps.
fn marker(number: u32) -> String {
    format!("{}.{number}", 500_000 + std::process::id())
}

fn it_ends_with_the_container() {
    let (place, engine) = place();
    let container = started(&engine, scripted(FOR_EVER));
    let marker = marker(11);
    let exec = container.exec(&options(&format!("exec sleep {marker}")), PIPES).unwrap();
    // It has no name for a moment while it is executed.
    until("the program", || !processes(&marker).is_empty());
    container.delete().unwrap();
    assert_eq!(finished(exec).0, Exit::Signal(9));
    until("the end", || processes(&marker).is_empty());
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn it_ends_with_its_handle() {
    let (_place, engine) = place();
    let container = started(&engine, scripted(FOR_EVER));
    let marker = marker(12);
    let sleeping = options(&format!("exec sleep {marker}"));
    drop(container.exec(&sleeping, PIPES).unwrap());
    assert_eq!(processes(&marker), Vec::<i32>::new());
    // A signal reaches it, and not the container.
    let exec = container.exec(&sleeping, PIPES).unwrap();
    exec.line().unwrap().send(15);
    assert_eq!(finished(exec).0, Exit::Signal(15));
    let exec = container.exec(&sleeping, PIPES).unwrap();
    let cancel = CancelToken::default();
    cancel.cancel();
    let error = exec.wait(&cancel, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, BuildError::Sandbox(SandboxError::Cancelled(_))), "{error:?}");
    assert_eq!(container.state().unwrap().status, Status::Running);
    container.delete().unwrap();
}

fn it_lives_on_in_the_background() {
    let (place, engine) = place();
    let container = started(&engine, scripted(FOR_EVER));
    let marker = marker(13);
    let script = format!("echo seen > /tmp/f; exec sleep {marker}");
    container.exec_in_background(&options(&script)).unwrap();
    let id = container.id().to_owned();
    drop((container, engine));
    let container = place.engine().container(&id).unwrap();
    until("the file", || run(&container, &options("cat /tmp/f")).1 == "seen\n");
    until("the sleep", || !processes(&marker).is_empty());
    let missing = ExecOptions { argv: vec!["/none".to_owned()], ..options("") };
    let error = container.exec_in_background(&missing).unwrap_err();
    assert!(error.to_string().contains("/none"), "{error}");
    container.delete().unwrap();
    until("the end", || processes(&marker).is_empty());
}

fn nobody_waits_for_what_it_leaves_behind() {
    let (_place, engine) = place();
    let container = started(&engine, scripted(FOR_EVER));
    let script = "echo out; while :; do echo again; done &";
    for streams in [PIPES, ExecStreams::Terminal] {
        let (exit, text) = finished(container.exec(&options(script), streams).unwrap());
        assert!(exit == Exit::Code(0) && text.starts_with("out"), "{exit:?}");
    }
    container.delete().unwrap();
}
