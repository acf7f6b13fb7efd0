//! What containers may use: memory, processors, processes, and memory that is mounted.

use std::path::PathBuf;

use rbuild::{
    Attach, CancelToken, Container, ContainerOptions, ContainerUpdate, Ctx, Engine, ExecOptions,
    Exit, Process, Resources, Restart, Silent, Status, Tmpfs,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::container_lasting::{
    FOR_EVER, make, place, processes, scripted, started, supervisor, until,
};
use crate::support::{Place, finish, shell};
use crate::tests;

tests![
    used_up_memory_is_told,
    limits_are_those_of_the_group,
    a_program_that_joins_is_limited_too,
    nothing_limited_needs_no_group,
    no_group_outlives_its_container,
    a_group_that_a_killed_helper_left_is_swept_by_the_next,
    limits_that_make_no_sense_are_refused,
    limits_are_changed_while_it_runs,
    limits_and_policy_are_changed_for_the_next_start,
    limits_of_each_process_are_set,
    shared_memory_has_its_size,
    memory_is_mounted_as_it_was_asked_for,
];

/// Whether this machine can limit memory and processes.
fn can_limit() -> bool {
    let controllers = fs_err::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    let old = ["memory", "pids", "cpu"].map(|name| PathBuf::from("/sys/fs/cgroup").join(name));
    let able = old.iter().all(|path| path.is_dir())
        || controllers.is_ok_and(|text| text.contains("memory") && text.contains("pids"));
    if !able {
        eprintln!("skipped: there are no controllers of memory and processes");
    }
    able
}

fn limited(script: &str, resources: Resources) -> ContainerOptions {
    let process = Process { resources, ..shell(script) };
    ContainerOptions { process, ..ContainerOptions::new("app") }
}

/// The groups of a process, as the host sees them.
fn groups_of(pid: u32) -> String {
    fs_err::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
}

/// What the group of a process says in one of these files, of the old kind or of the new.
fn setting(pid: u32, files: [(&str, &str); 2]) -> String {
    for line in groups_of(pid).lines() {
        let (controllers, group) = line.split_once(':').unwrap().1.split_once(':').unwrap();
        for (controller, file) in files {
            if controllers.split(',').any(|it| it == controller) {
                let top = PathBuf::from("/sys/fs/cgroup").join(controllers);
                let path = top.join(group.trim_start_matches('/')).join(file);
                if let Ok(text) = fs_err::read_to_string(path) {
                    return text.trim().to_owned();
                }
            }
        }
    }
    panic!("{files:?}: {}", groups_of(pid))
}

/// Directories of groups below `parent`, in all hierarchies.
fn groups_below(parent: &str) -> Vec<PathBuf> {
    let tops = fs_err::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let tops = tops.chain([PathBuf::from("/sys/fs/cgroup")]);
    let parents = tops.map(|top| top.join(parent)).filter(|group| group.is_dir());
    let inside = parents.flat_map(|parent| fs_err::read_dir(parent).into_iter().flatten());
    inside.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn pid(container: &Container) -> u32 {
    container.state().unwrap().pid.unwrap()
}

fn used_up_memory_is_told() {
    if !can_limit() {
        return;
    }
    let (place, engine) = place();
    let resources = Resources { memory: Some(16 << 20), ..Resources::default() };
    let greedy = "x=x; while :; do x=$x$x$x$x; done";
    let mut container = make(&engine, limited(greedy, resources.clone()));
    let (exit, _) = finish(&mut container).unwrap();
    assert_eq!((exit, exit.code()), (Exit::OutOfMemory(137), 137));
    assert_eq!(container.state().unwrap().ended.unwrap().exit, exit);
    // Another start is another group, with a count of its own.
    container.start(Attach::No).unwrap();
    container.wait(&CancelToken::default(), &mut |_, _| {}).unwrap();
    container.delete().unwrap();
    let mut container = make(&engine, limited("exit 137", resources));
    assert_eq!(finish(&mut container).unwrap().0, Exit::Code(137));
    container.delete().unwrap();
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn limits_are_those_of_the_group() {
    if !can_limit() {
        return;
    }
    let (_place, engine) = place();
    let resources = Resources {
        memory: Some(64 << 20),
        nano_cpus: Some(500_000_000),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0".to_owned()),
        pids: Some(20),
        ..Resources::default()
    };
    let container = started(&engine, limited(FOR_EVER, resources));
    let of = |files| setting(pid(&container), files);
    assert_eq!(of([("memory", "memory.limit_in_bytes"), ("", "memory.max")]), "67108864");
    assert_eq!(of([("pids", "pids.max"), ("", "pids.max")]), "20");
    let quota = of([("cpu", "cpu.cfs_quota_us"), ("", "cpu.max")]);
    assert!(["50000", "50000 100000"].contains(&quota.as_str()), "{quota}");
    // Where the kernel counts swap, there may be as much as memory.
    let line = groups_of(pid(&container));
    if line.contains("memory")
        && PathBuf::from("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
    {
        let both = of([("memory", "memory.memsw.limit_in_bytes"), ("", "memory.swap.max")]);
        assert_eq!(both, "134217728");
    }
    let status = fs_err::read_to_string(format!("/proc/{}/status", pid(&container))).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    container.delete().unwrap();
}

fn a_program_that_joins_is_limited_too() {
    if !can_limit() {
        return;
    }
    let (_place, engine) = place();
    let marker = format!("{}.25", 400_000 + std::process::id());
    let resources = Resources { pids: Some(6), memory: Some(64 << 20), ..Resources::default() };
    let process = Process {
        resources,
        oom_score_adj: Some(77),
        ulimits: vec!["nofile=55:66".parse().unwrap()],
        ..shell("sleep 1000")
    };
    let options = ContainerOptions { process, ..ContainerOptions::new("app") };
    let container = started(&engine, options);
    let argv = ["sleep", &marker].map(str::to_owned).into();
    container.exec_in_background(&ExecOptions { argv, ..ExecOptions::default() }).unwrap();
    // It has no name for a moment while it is executed.
    until("the program", || processes(&marker).len() == 1);
    let joined = processes(&marker)[0];
    let joined = joined.cast_unsigned();
    assert_eq!(groups_of(joined), groups_of(pid(&container)));
    for process in [joined, pid(&container)] {
        let read = |file: &str| fs_err::read_to_string(format!("/proc/{process}/{file}")).unwrap();
        assert_eq!(read("oom_score_adj"), "77\n");
        assert!(read("limits").lines().any(|line| {
            line.split_whitespace().take(5).eq(["Max", "open", "files", "55", "66"])
        }));
    }
    container.delete().unwrap();
    assert!(processes(&marker).is_empty());
}

/// Groups cost more than all the rest of a start.
fn nothing_limited_needs_no_group() {
    let (_place, engine) = place();
    let container = started(&engine, scripted(FOR_EVER));
    assert_eq!(groups_of(pid(&container)), groups_of(std::process::id()));
    container.delete().unwrap();
}

fn no_group_outlives_its_container() {
    if !can_limit() {
        return;
    }
    let (_place, engine) = place();
    let parent = "rbuild-container-test";
    let resources = Resources {
        memory: Some(64 << 20),
        pids: Some(9),
        cgroup_parent: Some(parent.to_owned()),
        ..Resources::default()
    };
    let restart = Restart::OnFailure { limit: Some(3) };
    let options = ContainerOptions { restart, ..limited("sleep 0.01; exit 1", resources.clone()) };
    let mut container = started(&engine, options);
    container.wait(&CancelToken::default(), &mut |_, _| {}).unwrap();
    assert_eq!(container.state().unwrap().restarts, 3);
    assert_eq!(groups_below(parent), Vec::<PathBuf>::new());
    container.delete().unwrap();
    let container = started(&engine, limited(FOR_EVER, resources));
    assert!(!groups_below(parent).is_empty());
    kill_process(Pid::from_raw(supervisor(&container)).unwrap(), Signal::KILL).unwrap();
    until("the end of the group", || groups_below(parent).is_empty());
    container.delete().unwrap();
}

fn a_group_that_a_killed_helper_left_is_swept_by_the_next() {
    if !can_limit() {
        return;
    }
    let (_place, engine) = place();
    let parent = "rbuild-helper-test";
    let resources =
        Resources { pids: Some(9), cgroup_parent: Some(parent.to_owned()), ..Resources::default() };
    let mut container = started(&engine, limited(FOR_EVER, resources));
    let status = fs_err::read_to_string(format!("/proc/{}/status", pid(&container))).unwrap();
    let helper = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    let helper = Pid::from_raw(helper.parse().unwrap()).unwrap();
    kill_process(helper, Signal::KILL).unwrap();
    until("the end", || container.state().unwrap().status == Status::Exited);
    let left = groups_below(parent);
    assert!(!left.is_empty());
    // As one that manages groups itself leaves them.
    left.iter().for_each(|group| fs_err::create_dir(group.join("inner")).unwrap());
    container.start(Attach::No).unwrap();
    assert!(left.iter().all(|group| !group.exists()), "{left:?}");
    container.delete().unwrap();
    assert_eq!(groups_below(parent), Vec::<PathBuf>::new());
}

fn refused(engine: &Engine, process: Process) -> String {
    let options = ContainerOptions { process, ..ContainerOptions::new("app") };
    let never = CancelToken::default();
    engine.create_container(options, Ctx::new(&Silent, &never)).unwrap_err().to_string()
}

fn limits_that_make_no_sense_are_refused() {
    let (_place, engine) = place();
    let resources = Resources { memory: Some(1), ..Resources::default() };
    let told = refused(&engine, Process { resources, ..shell("true") });
    assert!(told.contains("too small"), "{told}");
    let told = refused(&engine, Process { oom_score_adj: Some(1001), ..shell("true") });
    assert!(told.contains("-1000 to 1000"), "{told}");
    assert!(engine.containers().unwrap().is_empty());
}

fn limits_are_changed_while_it_runs() {
    if !can_limit() {
        return;
    }
    let (_place, engine) = place();
    let first = Resources { memory: Some(64 << 20), pids: Some(20), ..Resources::default() };
    let restart = Restart::OnFailure { limit: Some(9) };
    let script = "trap 'exit 3' USR1; while :; do sleep 0.05; done";
    let options = ContainerOptions { restart, ..limited(script, first) };
    let mut container = started(&engine, options);
    let memory = [("memory", "memory.limit_in_bytes"), ("", "memory.max")];
    let pids = [("pids", "pids.max"), ("", "pids.max")];
    let to = |resources| ContainerUpdate { resources, restart: None };
    // Up, with what is allowed besides, and down.
    for size in [256 << 20, 32 << 20] {
        let resources = Resources { memory: Some(size), ..Resources::default() };
        container.update(&to(resources)).unwrap();
        assert_eq!(setting(pid(&container), memory), size.to_string());
        assert_eq!(setting(pid(&container), pids), "20");
    }
    let resources = Resources { nano_cpus: Some(500_000_000), ..Resources::default() };
    let old = PathBuf::from("/sys/fs/cgroup/memory").is_dir();
    if old {
        let error = container.update(&to(resources)).unwrap_err().to_string();
        assert!(error.contains("cpu") && error.contains("without such a limit"), "{error}");
        assert_eq!(
            engine.container(container.id()).unwrap().record().spec.resources.nano_cpus,
            None
        );
    }
    let error = container.update(&to(Resources { memory: Some(1), ..Resources::default() }));
    assert!(error.unwrap_err().to_string().contains("too small"));
    // The one that its policy starts has the new ones too.
    let before = pid(&container);
    container.signal(10).unwrap();
    until("another start", || container.state().unwrap().pid.is_some_and(|pid| pid != before));
    assert_eq!(setting(pid(&container), memory), (32 << 20).to_string());
    container
        .update(&ContainerUpdate { restart: Some(Restart::No), ..ContainerUpdate::default() })
        .unwrap();
    until("the trap", || container.signal(10).is_err() || container.state().unwrap().pid.is_none());
    until("the end", || container.state().unwrap().status == Status::Exited);
    container.delete().unwrap();
}

fn limits_and_policy_are_changed_for_the_next_start() {
    if !can_limit() {
        return;
    }
    let (_place, engine) = place();
    let mut container = make(&engine, scripted(FOR_EVER));
    let resources = Resources { pids: Some(11), ..Resources::default() };
    let restart = Some(Restart::Always);
    container.update(&ContainerUpdate { resources, restart }).unwrap();
    let mut again = engine.container(container.id()).unwrap();
    assert_eq!(again.record().restart, Restart::Always);
    again.start(Attach::No).unwrap();
    assert_eq!(setting(pid(&again), [("pids", "pids.max"), ("", "pids.max")]), "11");
    again.delete().unwrap();
    let passing = ContainerOptions { auto_remove: true, ..scripted("true") };
    let mut container = make(&engine, passing);
    let change = ContainerUpdate { restart, ..ContainerUpdate::default() };
    let error = container.update(&change).unwrap_err().to_string();
    assert!(error.contains("removed when it ends"), "{error}");
    container.delete().unwrap();
}

/// What a script writes in a container of `app`.
fn shown(place: &Place, engine: &Engine, process: Process) -> String {
    let (code, text) = place.run(engine, "app", process);
    assert_eq!(code, 0, "{text}");
    text
}

fn limits_of_each_process_are_set() {
    let (place, engine) = place();
    let ulimits = ["nofile=77:88", "core=0", "fsize=-1"].map(|text| text.parse().unwrap()).into();
    let script = "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -f";
    let text = shown(&place, &engine, Process { ulimits, ..shell(script) });
    assert_eq!(text, "77\n88\n0\nunlimited\n");
}

fn shared_memory_has_its_size() {
    let (place, engine) = place();
    let script = "grep ' /dev/shm ' /proc/mounts";
    let sized = Process { shm_size: Some(3 << 20), ..shell(script) };
    let text = shown(&place, &engine, sized);
    assert!(text.contains("size=3072k"), "{text}");
    let text = shown(&place, &engine, shell(script));
    assert!(text.contains("size=65536k"), "{text}");
}

fn memory_is_mounted_as_it_was_asked_for() {
    let (place, engine) = place();
    let given = Tmpfs {
        size: Some(1 << 20),
        files: Some(50),
        mode: 0o750,
        owner: (7, 8),
        no_exec: false,
        no_suid: false,
        ..Tmpfs::new("/given")
    };
    let fixed = Tmpfs { read_only: true, ..Tmpfs::new("/fixed") };
    let script = "stat -c '%a %u %g' /given /usual; grep -E ' /(given|usual|fixed) ' /proc/mounts; \
                  cp /bin/busybox /usual/x; /usual/x true || echo not there; \
                  touch /fixed/x || echo fixed; head -c 2000000 /dev/zero > /given/x || echo full; \
                  touch /new || echo root";
    let process = Process {
        tmpfs: vec![given, Tmpfs::new("/usual"), fixed],
        read_only: true,
        ..shell(&format!("({script}) 2> /dev/null"))
    };
    let text = shown(&place, &engine, process);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["750 7 8", "1777 0 0"], "{text}");
    let options = |target: &str| {
        let line = lines.iter().find(|line| line.contains(&format!(" {target} "))).unwrap();
        line.split(' ').nth(3).unwrap().to_owned()
    };
    let has = |target: &str, option: &str| options(target).split(',').any(|it| it == option);
    for option in ["rw", "nodev", "size=1024k", "nr_inodes=50", "mode=750", "uid=7", "gid=8"] {
        assert!(has("/given", option), "{option}: {text}");
    }
    assert!(!has("/given", "noexec") && !has("/given", "nosuid"), "{text}");
    assert!(has("/usual", "noexec") && has("/usual", "nosuid") && has("/usual", "nodev"), "{text}");
    assert!(has("/fixed", "ro"), "{text}");
    assert_eq!(lines[5..], ["not there", "fixed", "full", "root"], "{text}");
}
