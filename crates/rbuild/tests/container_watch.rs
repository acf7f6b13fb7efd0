//! Containers that are watched and held still: processes, use, pause, events.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild::events::Event;
use rbuild::{
    Attach, BuildError, CancelToken, CommitRequest, Container, ContainerOptions, Engine,
    ExecOptions, ExecStreams, Exit, ImageWords, Stop,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::container_lasting::{FOR_EVER, place, scripted, started, supervisor, until};
use crate::tests;

tests![
    its_processes_are_those_of_its_namespace,
    what_it_uses_is_counted,
    a_paused_container_stands_still_and_goes_on,
    a_container_is_paused_while_it_starts_processes,
    a_paused_container_is_stopped_and_killed,
    a_commit_pauses_and_goes_on,
    no_group_is_left_by_a_killed_supervisor,
    what_happens_is_written_down,
    events_come_as_they_happen,
];

fn ended(container: &mut Container) -> Exit {
    container.wait(&CancelToken::default(), &mut |_, _| {}).unwrap()
}

/// Groups of ours in the unified hierarchy.
fn groups() -> Vec<PathBuf> {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    let unified = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
    let parent = Path::new(unified.split(' ').nth(4).unwrap()).join("rbuild");
    let entries = fs_err::read_dir(parent).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// The group of a process that is held, by the unified hierarchy.
fn group_of(pid: u32) -> String {
    let text = fs_err::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

fn its_processes_are_those_of_its_namespace() {
    let (_place, engine) = place();
    let container = started(&engine, scripted("sleep 77 & sleep 78 & wait"));
    let joined = ExecOptions {
        argv: vec!["sleep".into(), "79".into()],
        user: Some("7".into()),
        ..ExecOptions::default()
    };
    container.exec_in_background(&joined).unwrap();
    until("its processes", || container.processes().unwrap().len() == 4);
    let all = container.processes().unwrap();
    assert_eq!(all[0].stat.pid, container.state().unwrap().pid.unwrap());
    let mut commands: Vec<_> = all[1..].iter().map(|it| it.command.join(" ")).collect();
    commands.sort();
    assert_eq!(commands, ["sleep 77", "sleep 78", "sleep 79"]);
    let joined = all.iter().find(|it| it.command[1..] == ["79".to_owned()]).unwrap();
    assert_eq!((joined.user, all[0].user), (7, 0));
    container.stop(Some(Stop { signal: 9, patience: None })).unwrap();
    assert!(matches!(container.processes(), Err(BuildError::Conflict { .. })));
    assert!(matches!(container.usage(), Err(BuildError::Conflict { .. })));
    container.delete().unwrap();
}

fn what_it_uses_is_counted() {
    let (_place, engine) = place();
    let script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; while :; do :; done";
    let container = started(&engine, scripted(script));
    let first = container.usage().unwrap();
    assert!(first.memory > 0 && first.memory_limit > first.memory, "{first:?}");
    assert_eq!((first.received, first.sent), (0, 0));
    until("some time on a processor", || {
        container.usage().unwrap().cpu > first.cpu + Duration::from_millis(50)
    });
    assert!(container.usage().unwrap().processes >= 1);
    container.delete().unwrap();
}

/// How often it has counted.
fn count(container: &Container) -> usize {
    let mut count = 0;
    let mut each = |_| {
        count += 1;
        Ok(())
    };
    rbuild::logs::read(container.directory(), rbuild::logs::ReadOptions::default(), &mut each)
        .unwrap();
    count
}

const COUNTING: &str = "while :; do echo x; sleep 0.01; done";

fn a_paused_container_stands_still_and_goes_on() {
    let (place, engine) = place();
    let container = started(&engine, scripted(COUNTING));
    let pid = container.state().unwrap().pid.unwrap();
    let origin = group_of(pid);
    for _ in 0..3 {
        until("a line", || count(&container) > 2);
        container.pause().unwrap();
        assert!(container.state().unwrap().paused);
        // What it wrote before is on its way through the supervisor.
        std::thread::sleep(Duration::from_millis(100));
        let then = count(&container);
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(count(&container), then);
        assert!(group_of(pid).contains("/rbuild/"), "{}", group_of(pid));
        let refused = container.pause().unwrap_err();
        assert!(refused.to_string().contains("paused already"), "{refused}");
        let joined = ExecOptions { argv: vec!["true".into()], ..ExecOptions::default() };
        let refused = container.exec(&joined, ExecStreams::Pipes { input: false }).unwrap_err();
        assert!(refused.to_string().contains("is paused"), "{refused}");
        assert!(!container.processes().unwrap().is_empty());
        container.unpause().unwrap();
        assert!(!container.state().unwrap().paused);
        assert_eq!(group_of(pid), origin);
        until("another line", || count(&container) > then + 2);
    }
    assert!(container.unpause().unwrap_err().to_string().contains("not paused"));
    container.stop(Some(Stop { signal: 9, patience: None })).unwrap();
    assert!(matches!(container.pause(), Err(BuildError::Conflict { .. })));
    container.delete().unwrap();
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn a_container_is_paused_while_it_starts_processes() {
    let (_place, engine) = place();
    let script = "f() { while :; do sleep 0.001 & sleep 0.002; done; }; f & f & f & f";
    let container = started(&engine, scripted(script));
    for _ in 0..5 {
        container.pause().unwrap();
        let numbers = |container: &Container| -> Vec<u32> {
            container.processes().unwrap().iter().map(|it| it.stat.pid).collect()
        };
        let before = numbers(&container);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(numbers(&container), before);
        container.unpause().unwrap();
    }
    container.delete().unwrap();
}

fn a_paused_container_is_stopped_and_killed() {
    let (_place, engine) = place();
    let script = format!("trap 'exit 9' TERM; echo up; {FOR_EVER}");
    let mut container = started(&engine, scripted(&script));
    let pause = |container: &Container| {
        until("the trap", || count(container) > 0);
        container.pause().unwrap();
        group_of(container.state().unwrap().pid.unwrap())
    };
    let group = pause(&container);
    container.stop(None).unwrap();
    assert_eq!(ended(&mut container), Exit::Code(9));
    assert!(!container.state().unwrap().paused);
    container.start(Attach::No).unwrap();
    container.pause().unwrap();
    container.signal(9).unwrap();
    assert_eq!(ended(&mut container).code(), 137);
    container.start(Attach::No).unwrap();
    container.pause().unwrap();
    container.remove(true).unwrap();
    let name = Path::new(&group).file_name().unwrap().to_owned();
    assert!(groups().iter().all(|left| left.file_name() != Some(&name)), "{:?}", groups());
}

fn a_commit_pauses_and_goes_on() {
    let (_place, engine) = place();
    let container = started(&engine, scripted(COUNTING));
    let request = CommitRequest { words: ImageWords::default(), pause: true };
    engine.commit(container.id(), &request, &CancelToken::default()).unwrap();
    assert!(!container.state().unwrap().paused);
    let then = count(&container);
    until("another line", || count(&container) > then);
    // One that was paused stays so.
    container.pause().unwrap();
    engine.commit(container.id(), &request, &CancelToken::default()).unwrap();
    assert!(container.state().unwrap().paused);
    container.delete().unwrap();
}

fn no_group_is_left_by_a_killed_supervisor() {
    let (place, engine) = place();
    let begun = engine.events().unwrap().0.len();
    let mut options = ContainerOptions { name: Some("held".to_owned()), ..scripted(FOR_EVER) };
    options.labels.insert("a".to_owned(), "b".to_owned());
    let container = started(&engine, options);
    let pid = container.state().unwrap().pid.unwrap();
    let supervisor = supervisor(&container);
    container.pause().unwrap();
    let group = group_of(pid);
    let name = Path::new(&group).file_name().unwrap().to_owned();
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    until("its end", || !Path::new(&format!("/proc/{pid}")).exists());
    let state = container.state().unwrap();
    assert!(!state.paused && state.pid.is_none(), "{state:?}");
    let there = || groups().iter().any(|left| left.file_name() == Some(&name));
    // Any engine of the machine removes it.
    until("the sweep", || {
        drop(place.engine());
        !there()
    });
    container.delete().unwrap();
    // Whoever removes it tells of the end that nobody saw.
    let events = engine.events().unwrap().0.split_off(begun);
    let expected = [
        "container create held",
        "container start held",
        "container pause held",
        "container die held 137",
        "container destroy held",
    ];
    assert_eq!(happened(&events), expected);
    assert!(events.iter().all(|event| event.actor.attributes["a"] == "b"), "{events:?}");
}

/// What happened, without ids.
fn happened(events: &[Event]) -> Vec<String> {
    let words = |event: &Event| {
        let said = |name: &str| event.actor.attributes.get(name).cloned().unwrap_or_default();
        let more = match event.action.as_str() {
            "die" | "exec_die" => said("exitCode"),
            "kill" => said("signal"),
            "rename" => said("oldName"),
            _ => String::new(),
        };
        format!("{} {} {} {more}", event.kind, event.action, said("name")).trim().to_owned()
    };
    events.iter().map(words).collect()
}

fn what_happens_is_written_down() {
    let (_place, engine) = place();
    let begun = engine.events().unwrap().0.len();
    let volume = rbuild::Volume {
        source: rbuild::VolumeSource::Named("data".to_owned()),
        target: "/data".to_owned(),
        read_only: false,
    };
    let mut options = ContainerOptions { name: Some("web".to_owned()), ..scripted(FOR_EVER) };
    options.process.volumes.push(volume);
    options.labels.insert("a".to_owned(), "b".to_owned());
    let mut container = started(&engine, options);
    let joined = ExecOptions { argv: vec!["false".into()], ..ExecOptions::default() };
    let exec = container.exec(&joined, ExecStreams::Pipes { input: false }).unwrap();
    exec.wait(&CancelToken::default(), &mut |_, _| {}).unwrap();
    container.pause().unwrap();
    container.unpause().unwrap();
    engine.rename_container("web", "site").unwrap();
    container.stop(Some(Stop { signal: 9, patience: None })).unwrap();
    ended(&mut container);
    container.delete().unwrap();
    engine.remove_volume("data").unwrap();
    engine.tag_image("app", "other:1").unwrap();
    engine.remove_image("other:1", false).unwrap();
    let (all, _) = engine.events().unwrap();
    let expected = [
        "volume create",
        "container create web",
        "container start web",
        "container exec_create: false web",
        "container exec_start: false web",
        "container exec_die web 1",
        "container pause web",
        "container unpause web",
        "container rename site web",
        "container kill site 9",
        "container die site 137",
        "container stop site",
        "container destroy site",
        "volume destroy",
        "image tag other:1",
        "image untag other:1",
    ];
    assert_eq!(happened(&all[begun..]), expected);
    assert!(all.windows(2).all(|pair| pair[0].time <= pair[1].time), "{all:?}");
    let start = all.iter().find(|event| event.action == "start").unwrap();
    assert_eq!(
        (start.actor.attributes["image"].as_str(), start.actor.attributes["a"].as_str()),
        ("app", "b")
    );
}

fn events_come_as_they_happen() {
    let (place, engine) = place();
    let (_, mut follow) = engine.events().unwrap();
    let options =
        ContainerOptions { name: Some("gone".to_owned()), auto_remove: true, ..scripted("exit 3") };
    started(&engine, options);
    let mut seen = Vec::new();
    until("the end", || {
        seen.extend(follow.more().unwrap());
        seen.iter().any(|event| event.action == "destroy")
    });
    let expected = [
        "container create gone",
        "container start gone",
        "container die gone 3",
        "container destroy gone",
    ];
    assert_eq!(happened(&seen), expected);
    // An engine that only looks writes nothing.
    let before = engine.events().unwrap().0.len();
    let looking = Engine::read_only(place.options()).unwrap();
    assert_eq!(looking.events().unwrap().0.len(), before);
}
