//! Containers that outlive who started them.

use std::path::Path;
use std::time::{Duration, Instant};

use rbuild::logs::{LogOptions, ReadOptions};
use rbuild::{
    Attach, BuildError, CancelToken, Container, ContainerOptions, Ctx, Engine, Exit, Process,
    Restart, Silent, Status, Stop, Volume, VolumeSource, logs,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Place, build, shell};
use crate::tests;

tests![
    a_container_outlives_its_handle_and_is_found_again,
    it_is_started_again_with_what_it_wrote,
    what_cannot_be_executed_is_told_at_the_start,
    a_container_is_stopped_by_its_signal_or_by_force,
    one_that_fails_is_started_again_so_often,
    a_stop_ends_the_restarts,
    a_killed_supervisor_takes_its_container_along,
    names_are_unique_and_can_be_changed,
    one_that_runs_is_removed_by_force_only,
    one_that_is_to_go_goes_when_it_ends,
    what_it_wrote_is_kept,
    several_attach_and_type,
    a_volume_in_use_is_held,
    a_container_keeps_its_image,
];

/// A store with the image `app`.
pub fn place() -> (Place, Engine) {
    let place = Place::new();
    let engine = place.engine();
    build(&engine, &place.request("FROM base\nRUN mkdir /tmp\n").tag("app"));
    (place, engine)
}

pub fn make(engine: &Engine, options: ContainerOptions) -> Container {
    let never = CancelToken::default();
    engine.create_container(options, Ctx::new(&Silent, &never)).unwrap()
}

/// A container that runs a script.
pub fn scripted(script: &str) -> ContainerOptions {
    ContainerOptions { process: shell(script), ..ContainerOptions::new("app") }
}

/// Made and started.
pub fn started(engine: &Engine, options: ContainerOptions) -> Container {
    let mut container = make(engine, options);
    container.start(Attach::No).unwrap();
    container
}

fn ended(container: &mut Container) -> Exit {
    container.wait(&CancelToken::default(), &mut |_, _| {}).unwrap()
}

/// Waits for what has to come.
pub fn until(what: &str, mut come: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !come() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn log(container: &Container) -> String {
    let mut text = String::new();
    let mut each = |entry: logs::Entry| {
        text.push_str(&entry.text);
        Ok(())
    };
    logs::read(container.directory(), ReadOptions::default(), &mut each).unwrap();
    text
}

pub const FOR_EVER: &str = "while :; do sleep 0.05; done";

fn a_container_outlives_its_handle_and_is_found_again() {
    let (place, engine) = place();
    let name = Some("keeper".to_owned());
    let container = started(&engine, ContainerOptions { name, ..scripted(FOR_EVER) });
    let id = container.id().to_owned();
    drop((container, engine));
    let engine = place.engine();
    let (record, state) = engine.containers().unwrap().remove(0);
    assert_eq!(
        (record.id.as_str(), record.name.as_str(), state.status),
        (&*id, "keeper", Status::Running)
    );
    for found in [&id, &id[..6], "keeper", "/keeper"] {
        assert_eq!(engine.container(found).unwrap().id(), id, "{found}");
    }
    for none in ["", "keep", "zz"] {
        let error = engine.container(none).unwrap_err();
        assert!(matches!(error, BuildError::NoSuchContainer { .. }), "{error}");
    }
    engine.container("keeper").unwrap().delete().unwrap();
    assert!(engine.containers().unwrap().is_empty());
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn it_is_started_again_with_what_it_wrote() {
    let (_place, engine) = place();
    let mut container = started(&engine, scripted("echo x >> /tmp/f; exit $(cat /tmp/f | wc -l)"));
    for code in 1..4 {
        if code > 1 {
            container.start(Attach::No).unwrap();
        }
        assert_eq!(ended(&mut container), Exit::Code(code));
        let state = container.state().unwrap();
        assert_eq!((state.status, state.pid, state.restarts), (Status::Exited, None, 0));
        assert_eq!(state.ended.unwrap().exit, Exit::Code(code));
        assert!(state.started.unwrap() <= state.ended.unwrap().at);
    }
    container.delete().unwrap();
}

fn what_cannot_be_executed_is_told_at_the_start() {
    let (_place, engine) = place();
    let process = Process { argv: vec!["/none".to_owned()], ..Process::default() };
    let mut container = make(&engine, ContainerOptions { process, ..ContainerOptions::new("app") });
    let error = container.start(Attach::No).unwrap_err();
    assert!(error.to_string().contains("/none"), "{error}");
    let state = container.state().unwrap();
    assert_eq!((state.status, state.ended.unwrap().exit), (Status::Created, Exit::Code(127)));
    assert!(state.error.unwrap().contains("/none"));
    container.delete().unwrap();
    // One that nobody wants to keep is not kept.
    let process = Process { argv: vec!["/none".to_owned()], ..Process::default() };
    let options = ContainerOptions { process, auto_remove: true, ..ContainerOptions::new("app") };
    make(&engine, options).start(Attach::No).unwrap_err();
    assert!(engine.containers().unwrap().is_empty());
}

fn a_container_is_stopped_by_its_signal_or_by_force() {
    let (_place, engine) = place();
    let trap = format!("trap 'exit 5' USR1; echo up; {FOR_EVER}");
    let stop_signal = Some("SIGUSR1".to_owned());
    let options = ContainerOptions { stop_signal, ..scripted(&trap) };
    let mut container = started(&engine, options);
    until("the trap", || log(&container) == "up\n");
    container.stop(None).unwrap();
    assert_eq!(ended(&mut container), Exit::Code(5));
    // It does not listen to TERM.
    container.start(Attach::No).unwrap();
    let stop = Stop { signal: 15, patience: Some(Duration::from_millis(100)) };
    container.stop(Some(stop)).unwrap();
    assert_eq!(ended(&mut container), Exit::Signal(9));
    // To stop what has ended is no error.
    container.stop(None).unwrap();
    assert!(matches!(container.signal(15), Err(BuildError::Conflict { .. })));
    container.delete().unwrap();
}

fn one_that_fails_is_started_again_so_often() {
    let (_place, engine) = place();
    let restart = Restart::OnFailure { limit: Some(2) };
    let mut container =
        started(&engine, ContainerOptions { restart, ..scripted("echo again; exit 3") });
    assert_eq!(ended(&mut container), Exit::Code(3));
    assert_eq!(container.state().unwrap().restarts, 2);
    assert_eq!(log(&container), "again\n".repeat(3));
    container.delete().unwrap();
    // It did not fail.
    let mut container = started(&engine, ContainerOptions { restart, ..scripted("exit 0") });
    assert_eq!(ended(&mut container), Exit::Code(0));
    assert_eq!(container.state().unwrap().restarts, 0);
    container.delete().unwrap();
}

fn a_stop_ends_the_restarts() {
    let (_place, engine) = place();
    let restart = Restart::Always;
    let mut container = started(&engine, ContainerOptions { restart, ..scripted("exit 0") });
    // One that is just being started is killed instead.
    until("the third end", || {
        let state = container.state().unwrap();
        state.restarts >= 2 && state.status == Status::Restarting
    });
    container.stop(None).unwrap();
    assert_eq!(container.state().unwrap().status, Status::Exited);
    // One that was just being started is killed.
    assert!(matches!(ended(&mut container), Exit::Code(0) | Exit::Signal(9)));
    container.delete().unwrap();
}

/// The numbers of the processes whose name, or command, has `text` in it.
pub fn processes(text: &str) -> Vec<i32> {
    let entries = fs_err::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has = |number: &i32| {
        let line = fs_err::read_to_string(format!("/proc/{number}/cmdline")).unwrap_or_default();
        line.contains(text)
    };
    numbers.filter(has).collect()
}

/// The supervisor of a container, which holds its lock.
pub fn supervisor(container: &Container) -> i32 {
    let lock = container.directory().join("lock");
    let holds = |number: &i32| {
        let fds = fs_err::read_dir(format!("/proc/{number}/fd"));
        let mut fds = fds.into_iter().flatten().flatten();
        fds.any(|fd| fs_err::read_link(fd.path()).is_ok_and(|path| path == lock))
    };
    let found: Vec<i32> = processes("rbuild-supervisor").into_iter().filter(holds).collect();
    let [one] = found.as_slice() else { panic!("{found:?}") };
    *one
}

fn a_killed_supervisor_takes_its_container_along() {
    let (place, engine) = place();
    let marker = format!("{}.75", 300_000 + std::process::id());
    let mut container = started(&engine, scripted(&format!("sleep {marker}")));
    assert!(!processes(&marker).is_empty());
    kill_process(Pid::from_raw(supervisor(&container)).unwrap(), Signal::KILL).unwrap();
    until("the end", || processes(&marker).is_empty());
    until("the truth", || container.state().unwrap().status == Status::Exited);
    let state = container.state().unwrap();
    assert_eq!((state.pid, state.ended.unwrap().exit), (None, Exit::Code(137)));
    assert!(state.error.unwrap().contains("killed"));
    assert_eq!(ended(&mut container), Exit::Code(137));
    assert_eq!(place.leftovers(), Vec::<String>::new());
    // Nothing is in the way of the next start.
    container.start(Attach::No).unwrap();
    assert_eq!(container.state().unwrap().status, Status::Running);
    container.delete().unwrap();
}

fn names_are_unique_and_can_be_changed() {
    let (_place, engine) = place();
    let named = |name: &str| ContainerOptions { name: Some(name.to_owned()), ..scripted("true") };
    let one = make(&engine, named("one"));
    let never = CancelToken::default();
    let create = |name| engine.create_container(named(name), Ctx::new(&Silent, &never));
    let error = create("one").unwrap_err();
    assert!(matches!(error, BuildError::Conflict { .. }), "{error}");
    assert!(error.to_string().contains(&one.id()[..12]), "{error}");
    for bad in ["", "a", "-x", "a b", "ä", "a/b"] {
        assert!(matches!(create(bad), Err(BuildError::Request { .. })), "{bad}");
    }
    let two = make(&engine, named("two"));
    assert!(matches!(engine.rename_container("two", "one"), Err(BuildError::Conflict { .. })));
    engine.rename_container("one", "three").unwrap();
    assert_eq!(engine.container("three").unwrap().id(), one.id());
    engine.rename_container("two", "one").unwrap();
    assert_eq!(engine.container("one").unwrap().id(), two.id());
    // Who has none gets one.
    let other = make(&engine, scripted("true"));
    assert!(other.name().contains('_'), "{}", other.name());
    for container in [one, two, other] {
        container.delete().unwrap();
    }
}

fn one_that_runs_is_removed_by_force_only() {
    let (_place, engine) = place();
    let mut container = started(&engine, scripted(FOR_EVER));
    let error = container.start(Attach::No).unwrap_err();
    assert!(error.to_string().contains("running already"), "{error}");
    let error = container.remove(false).unwrap_err();
    assert!(error.to_string().contains("rm -f"), "{error}");
    assert_eq!(container.state().unwrap().status, Status::Running);
    container.remove(true).unwrap();
    assert!(!container.directory().exists());
    let error = container.start(Attach::No).unwrap_err();
    assert!(matches!(error, BuildError::Conflict { .. }), "{error}");
}

fn one_that_is_to_go_goes_when_it_ends() {
    let (place, engine) = place();
    let options = ContainerOptions { auto_remove: true, ..scripted("exit 4") };
    // Until it is started it waits, also for others.
    let mut container = make(&engine, options);
    drop(place.engine());
    assert!(container.directory().exists());
    container.start(Attach::Yes).unwrap();
    assert_eq!(ended(&mut container), Exit::Code(4));
    assert!(!container.directory().exists());
    // Where its supervisor could not do it, the next one does.
    let options = ContainerOptions { auto_remove: true, ..scripted(FOR_EVER) };
    let container = started(&engine, options);
    kill_process(Pid::from_raw(supervisor(&container)).unwrap(), Signal::KILL).unwrap();
    until("the end", || container.state().unwrap().status == Status::Exited);
    drop(place.engine());
    assert!(!container.directory().exists());
}

fn what_it_wrote_is_kept() {
    let (_place, engine) = place();
    let log_options = LogOptions { max_size: Some(2000), max_files: 2, keep: true };
    let script = "for i in $(seq 100); do echo $i; done; printf end >&2";
    let mut container = started(&engine, ContainerOptions { log: log_options, ..scripted(script) });
    ended(&mut container);
    let text = log(&container);
    assert!(text.ends_with("99\n100\nend") && !text.starts_with("1\n"), "{text}");
    assert!(container.directory().join("log.1").exists());
    assert!(!container.directory().join("log.2").exists());
    container.delete().unwrap();
    let log_options = LogOptions { keep: false, ..LogOptions::default() };
    let mut container = started(&engine, ContainerOptions { log: log_options, ..scripted(script) });
    ended(&mut container);
    assert_eq!(log(&container), "");
    container.delete().unwrap();
}

/// What the container writes, until `done`.
fn read_until(container: &mut Container, done: &str) -> String {
    let (mut text, cancel) = (String::new(), CancelToken::default());
    let outcome = container.wait(&cancel, &mut |_, bytes| {
        text.push_str(&String::from_utf8_lossy(bytes));
    });
    assert!(outcome.is_ok() && text.contains(done), "{outcome:?}: {text}");
    text
}

fn several_attach_and_type() {
    let (_place, engine) = place();
    for terminal in [false, true] {
        let script = "read a; echo got $a; read b; echo got $b; exit 3";
        let process = Process { open_stdin: true, terminal, ..shell(script) };
        let options = ContainerOptions { process, ..ContainerOptions::new("app") };
        let mut one = make(&engine, options);
        one.start(Attach::Yes).unwrap();
        let mut two = engine.container(one.id()).unwrap();
        two.attach().unwrap();
        one.line().unwrap().resize(30, 100);
        one.input().unwrap().write(b"first\n").unwrap();
        two.input().unwrap().write(b"second\n").unwrap();
        let reader = std::thread::spawn(move || read_until(&mut two, "got second"));
        let text = read_until(&mut one, "got second");
        assert!(text.contains("got first"), "{text}");
        assert!(reader.join().unwrap().contains("got second"));
        one.delete().unwrap();
    }
}

fn a_volume_in_use_is_held() {
    let (place, engine) = place();
    let volume = Volume {
        source: VolumeSource::Cache { id: "c".to_owned(), hold: rbuild::Hold::Shared },
        target: "/c".to_owned(),
        read_only: false,
    };
    let process = Process { volumes: vec![volume], ..shell(&format!("echo x > /c/f; {FOR_EVER}")) };
    let options = ContainerOptions { process, ..ContainerOptions::new("app") };
    let container = started(&engine, options);
    let volumes = place.store().join("volumes");
    let written = |volumes: &Path| {
        let mut entries = fs_err::read_dir(volumes).unwrap().flatten();
        entries.any(|entry| entry.path().join("f").exists())
    };
    until("the file", || written(&volumes));
    let all = rbuild::PruneOptions { all: true, ..rbuild::PruneOptions::default() };
    engine.prune(&all, &Silent, &CancelToken::default()).unwrap();
    assert!(written(&volumes), "it was pruned");
    container.delete().unwrap();
    engine.prune(&all, &Silent, &CancelToken::default()).unwrap();
    assert!(!written(&volumes), "it was not pruned");
}

fn a_container_keeps_its_image() {
    let (_place, engine) = place();
    let mut container = make(&engine, scripted("test -d /tmp"));
    engine.remove_image("app", true).unwrap();
    let all = rbuild::PruneOptions { all: true, ..rbuild::PruneOptions::default() };
    engine.prune(&all, &Silent, &CancelToken::default()).unwrap();
    container.start(Attach::No).unwrap();
    assert_eq!(ended(&mut container), Exit::Code(0));
    container.delete().unwrap();
}
