//! What containers may do, who they are, and how signals reach them.

use rbuild::{
    Container, ContainerNetwork, ContainerOptions, DeviceRequest, Engine, EngineOptions,
    ExecOptions, ExecStreams, Exit, Privileges, Process, SharedNamespaces, Status, Stop,
    SystemCalls,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::container_lasting::{FOR_EVER, make, place, processes, scripted, started, until};
use crate::support::{Place, build, shell};
use crate::tests;

tests![
    capabilities_are_added_and_dropped,
    a_privileged_container_has_the_host,
    no_new_privileges_are_given,
    another_profile_decides_which_calls_are_made,
    a_profile_without_what_starting_takes_is_kept,
    a_profile_that_cannot_be_kept_is_refused,
    devices_of_the_host_are_given,
    described_devices_are_given,
    what_shows_the_host_may_be_left_open,
    user_and_group_add_are_resolved_inside,
    an_init_reaps_and_passes_signals_on,
    an_init_leaves_the_terminal_to_the_program,
    an_init_stays_out_of_reach,
    process_one_gets_signals_as_in_docker,
    real_time_signals_arrive,
    settings_of_the_kernel_are_the_containers_own,
    names_of_host_and_domain_are_given,
    namespaces_of_the_host_may_be_shared,
];

fn allowed(script: &str, privileges: Privileges) -> Process {
    Process { privileges, ..shell(script) }
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn shown(place: &Place, engine: &Engine, process: Process) -> String {
    let (code, text) = place.run(engine, "app", process);
    assert_eq!(code, 0, "{text}");
    text
}

fn running(engine: &Engine, process: Process) -> Container {
    started(engine, ContainerOptions { process, ..ContainerOptions::new("app") })
}

/// What a script writes that is run in a container.
fn sh(container: &Container, script: &str) -> String {
    let argv = list(&["sh", "-c", script]);
    let options = ExecOptions { argv, ..ExecOptions::default() };
    let exec = container.exec(&options, ExecStreams::Pipes { input: false }).unwrap();
    let mut text = String::new();
    let mut output = |_, bytes: &[u8]| text.push_str(&String::from_utf8_lossy(bytes));
    let exit = exec.wait(&Default::default(), &mut output).unwrap();
    assert_eq!(exit, Exit::Code(0), "{script}: {text}");
    text
}

fn log(container: &Container) -> String {
    let mut text = String::new();
    let mut each = |entry: rbuild::logs::Entry| {
        text.push_str(&entry.text);
        Ok(())
    };
    rbuild::logs::read(container.directory(), Default::default(), &mut each).unwrap();
    text
}

fn capabilities_are_added_and_dropped() {
    let (place, engine) = place();
    let bounding = "grep ^CapBnd /proc/self/status";
    let of = |add: &[&str], drop: &[&str]| {
        let (cap_add, cap_drop) = (list(add), list(drop));
        let privileges = Privileges { cap_add, cap_drop, ..Privileges::default() };
        shown(&place, &engine, allowed(bounding, privileges))
    };
    assert_eq!(of(&[], &["ALL"]), "CapBnd:\t0000000000000000\n");
    assert_eq!(of(&["sys_time", "CAP_CHOWN"], &["all"]), "CapBnd:\t0000000002000001\n");
    assert_eq!(of(&[], &["CHOWN"]), "CapBnd:\t00000000a80425fa\n");
    let cap_add = list(&["SYS_ADMIN"]);
    let privileges = Privileges { cap_add, ..Privileges::default() };
    // The filter of system calls follows.
    let mount = "mkdir /m; mount -t tmpfs none /m && grep -c ' /m tmpfs ' /proc/mounts";
    assert_eq!(shown(&place, &engine, allowed(mount, privileges.clone())), "1\n");
    let container = running(&engine, allowed(FOR_EVER, privileges));
    assert_eq!(sh(&container, bounding), "CapBnd:\t00000000a82425fb\n");
    container.delete().unwrap();
    let cap_add = list(&["NOPE"]);
    let process = allowed("true", Privileges { cap_add, ..Privileges::default() });
    let error = engine.create("test", "app", process).unwrap_err().to_string();
    assert!(error.contains("unknown capability \"NOPE\""), "{error}");
}

fn a_privileged_container_has_the_host() {
    let (place, engine) = place();
    let privileges = Privileges { privileged: true, ..Privileges::default() };
    let script = "grep -c 'Seccomp:.0' /proc/self/status; grep -c ' /sys sysfs rw' /proc/mounts; \
                  mkdir /m && mount -t tmpfs none /m && mknod /zero c 1 5 && \
                  head -c 1 /zero | wc -c; cd /dev; \
                  find . -type b -o -type c | grep -vE '^./(pts|console)' | sort";
    let text = shown(&place, &engine, allowed(script, privileges));
    let mut lines = text.lines();
    assert!(lines.by_ref().take(3).eq(["1", "1", "1"]), "{text}");
    let inside: Vec<&str> = lines.collect();
    for device in fs_err::read_dir("/dev").unwrap().flatten() {
        use std::os::unix::fs::FileTypeExt as _;
        let (kind, name) = (device.file_type().unwrap(), device.file_name());
        let name = name.to_str().unwrap();
        if (kind.is_block_device() || kind.is_char_device()) && !["console", "ptmx"].contains(&name)
        {
            assert!(inside.contains(&format!("./{name}").as_str()), "{name}: {text}");
        }
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn no_new_privileges_are_given() {
    let (_place, engine) = place();
    let privileges = Privileges { no_new_privileges: true, ..Privileges::default() };
    let container = running(&engine, allowed(FOR_EVER, privileges));
    let script = "grep -h NoNewPrivs /proc/1/status /proc/self/status";
    assert_eq!(sh(&container, script), "NoNewPrivs:\t1\nNoNewPrivs:\t1\n");
    container.delete().unwrap();
}

fn profile(text: &str) -> Privileges {
    let system_calls = SystemCalls::Profile { name: "given".to_owned(), text: text.to_owned() };
    Privileges { system_calls, ..Privileges::default() }
}

fn another_profile_decides_which_calls_are_made() {
    let (_place, engine) = place();
    // 13 is EACCES. The lowest permission bit of what others may do decides.
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"names": ["chmod"], "action": "SCMP_ACT_ERRNO",
         "args": [{"index": 1, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#;
    let container = running(&engine, allowed(FOR_EVER, profile(text)));
    let script = "mkdir /x 2>&1 || true; touch /f; chmod 0701 /f 2>&1 || true; chmod 0760 /f; \
                  stat -c %a /f; grep -h ^Seccomp: /proc/1/status /proc/self/status";
    let text = sh(&container, script);
    assert!(text.starts_with("mkdir: can't create directory '/x': Permission denied\n"), "{text}");
    assert!(text.contains("chmod: /f: Operation not permitted\n760\n"), "{text}");
    assert!(text.ends_with("Seccomp:\t2\nSeccomp:\t2\n"), "{text}");
    container.delete().unwrap();
    let privileges = Privileges { system_calls: SystemCalls::All, ..Privileges::default() };
    let container = running(&engine, allowed(FOR_EVER, privileges));
    assert_eq!(sh(&container, "grep ^Seccomp: /proc/1/status"), "Seccomp:\t0\n");
    container.delete().unwrap();
}

/// What comes before the program makes calls that the program is refused.
fn a_profile_without_what_starting_takes_is_kept() {
    let (_place, engine) = place();
    let ever = r#""close_range", "prlimit64", "setrlimit", "umask", "clone3", "pidfd_open",
                  "pidfd_send_signal", "setpgid""#;
    let ids = r#", "setuid", "setresuid", "setgroups", "capset", "prctl""#;
    for (init, no_new_privileges) in [(false, false), (false, true), (true, false), (true, true)] {
        let more = if no_new_privileges { ids } else { "" };
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{{"names": [{ever}{more}], "action": "SCMP_ACT_ERRNO"}}]}}"#
        );
        let privileges = Privileges { no_new_privileges, ..profile(&text) };
        let script = format!("trap 'exit 9' TERM; echo up; {FOR_EVER}");
        let mut process = allowed(&script, privileges);
        process.init = init;
        let container = running(&engine, process);
        until("the trap", || log(&container) == "up\n");
        assert_eq!(sh(&container, "grep -h ^Seccomp: /proc/1/status"), "Seccomp:\t2\n");
        container.stop(None).unwrap();
        assert_eq!(container.state().unwrap().ended.unwrap().exit, Exit::Code(9), "{init}");
        container.delete().unwrap();
    }
}

fn a_profile_that_cannot_be_kept_is_refused() {
    let (_place, engine) = place();
    for (text, told) in
        [("{}", "defaultAction"), (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY")]
    {
        let error = engine.create("test", "app", allowed("true", profile(text))).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("seccomp profile given: ") && error.contains(told), "{error}");
    }
    assert!(engine.containers().unwrap().is_empty());
}

fn device(host: &str, target: &str) -> Privileges {
    let device = DeviceRequest::Path { host: host.into(), target: target.to_owned() };
    Privileges { devices: vec![device], ..Privileges::default() }
}

fn devices_of_the_host_are_given() {
    let (place, engine) = place();
    let script = "stat -c '%F %t:%T' /dev/deep/mine; head -c 3 /dev/deep/mine | wc -c";
    let text = shown(&place, &engine, allowed(script, device("/dev/zero", "/dev/deep/mine")));
    assert_eq!(text, "character special file 1:5\n3\n");
    // One with another place, where the image has none.
    let text = shown(
        &place,
        &engine,
        allowed("head -c 3 /opt/zero | wc -c", device("/dev/zero", "/opt/zero")),
    );
    assert_eq!(text, "3\n");
    for host in ["/dev/none", "/etc"] {
        let mut container =
            engine.create("test", "app", allowed("true", device(host, "/dev/x"))).unwrap();
        let error = container.start(rbuild::Attach::No).unwrap_err().to_string();
        assert!(error.contains(host), "{error}");
        container.delete().unwrap();
    }
}

fn described_devices_are_given() {
    let place = Place::new();
    let directory = place.path().join("cdi");
    let (host_file, text) = (
        place.write("shown/file", "of the host"),
        r#"{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [{"name": "all",
            "containerEdits": {"env": ["GPUS=all"],
                "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/zero"}],
                "mounts": [{"hostPath": "SHOWN", "containerPath": "/usr/gpu", "options": ["ro"]}],
                "additionalGids": [44]}}]}"#,
    );
    let shown_directory = host_file.parent().unwrap().display().to_string();
    fs_err::create_dir(&directory).unwrap();
    fs_err::write(directory.join("gpu.json"), text.replace("SHOWN", &shown_directory)).unwrap();
    let options = EngineOptions { cdi_directories: vec![directory], ..place.options() };
    let engine = Engine::with_options(options).unwrap();
    build(&engine, &place.request("FROM base\n").tag("app"));
    let described = |name: &str| {
        let devices = vec![DeviceRequest::Described(name.to_owned())];
        Privileges { devices, ..Privileges::default() }
    };
    let script = "echo $GPUS; head -c 3 /dev/gpu0 | wc -c; cat /usr/gpu/file; id -G; \
                  touch /usr/gpu/x 2> /dev/null || echo fixed";
    let text = shown(&place, &engine, allowed(script, described("nvidia.com/gpu=all")));
    assert_eq!(text, "all\n3\nof the host0 44\nfixed\n");
    let process = allowed("true", described("nvidia.com/gpu=7"));
    let mut container = engine.create("test", "app", process).unwrap();
    let error = container.start(rbuild::Attach::No).unwrap_err().to_string();
    assert!(error.contains("there is no device nvidia.com/gpu=7"), "{error}");
    assert!(error.contains("nvidia-ctk cdi generate"), "{error}");
    container.delete().unwrap();
}

fn what_shows_the_host_may_be_left_open() {
    let (place, engine) = place();
    let script = "grep -c ' /proc/' /proc/mounts || true";
    let privileges = Privileges { unmasked: true, ..Privileges::default() };
    assert_eq!(shown(&place, &engine, allowed(script, privileges)), "0\n");
    assert_ne!(shown(&place, &engine, shell(script)), "0\n");
}

/// As Docker: the image's own files say who is meant.
fn user_and_group_add_are_resolved_inside() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\n\
                RUN mkdir -p /etc && echo 'app:x:1234:56::/home/app:/bin/sh' > /etc/passwd && \
                    printf 'app:x:56:\\nmore:x:77:app\\nvideo:x:44:\\n' > /etc/group\n";
    build(&engine, &place.request(text).tag("app"));
    let of = |user: &str, groups: &[&str]| {
        let privileges = Privileges { groups: list(groups), ..Privileges::default() };
        let process = allowed("echo $(id -u) $(id -g) $(id -G) $HOME", privileges);
        shown(&place, &engine, Process { user: Some(user.to_owned()), ..process })
    };
    assert_eq!(of("app", &[]), "1234 56 56 77 /home/app\n");
    assert_eq!(of("app", &["video", "99", "more"]), "1234 56 56 44 77 99 /home/app\n");
    assert_eq!(of("app:video", &[]), "1234 44 44 /home/app\n");
    assert_eq!(of("1234", &["44"]), "1234 56 56 44 77 /home/app\n");
    assert_eq!(of("7:8", &["video"]), "7 8 8 44 /\n");
    assert_eq!(of("7", &[]), "7 0 0 /\n");
    let refused = |process: Process| {
        let mut container = engine.create("test", "app", process).unwrap();
        let error = container.start(rbuild::Attach::No).unwrap_err().to_string();
        container.delete().unwrap();
        error
    };
    let told = refused(Process { user: Some("who".to_owned()), ..shell("true") });
    assert!(
        told.contains("unable to find user `who`: no matching entries in passwd file"),
        "{told}"
    );
    let groups = list(&["none"]);
    let told = refused(allowed("true", Privileges { groups, ..Privileges::default() }));
    assert!(told.contains("unable to find group `none`"), "{told}");
    // Whoever joins has the same groups.
    let groups = list(&["video"]);
    let container =
        running(&engine, allowed(FOR_EVER, Privileges { groups, ..Privileges::default() }));
    assert_eq!(sh(&container, "id -G"), "0 44\n");
    container.delete().unwrap();
}

/// How many processes have ended and were not waited for.
const ZOMBIES: &str = "cat /proc/[0-9]*/stat 2> /dev/null | grep -c ') Z ' || true";

fn an_init_reaps_and_passes_signals_on() {
    let (_place, engine) = place();
    // Each leaves a process behind that has lost its parent.
    let orphans = "for i in 1 2 3; do (sleep 0.07 & exit 0); done";
    let script =
        format!("{orphans}; trap 'exit 7' TERM; trap 'echo usr' USR1; echo $$; {FOR_EVER}");
    let with = |init| running(&engine, Process { init, ..shell(&script) });
    let container = with(true);
    until("the traps", || log(&container).ends_with("2\n"));
    until("the end of the orphans", || {
        sh(&container, "ps | grep -c ' [s]leep 0.07' || true") == "0\n"
    });
    assert_eq!(sh(&container, ZOMBIES), "0\n");
    container.signal(10).unwrap();
    until("the signal", || log(&container).contains("usr"));
    container.stop(None).unwrap();
    assert_eq!(container.state().unwrap().ended.unwrap().exit, Exit::Code(7));
    container.delete().unwrap();
    // A program that is killed has the shell's code.
    let mut container = running(&engine, Process { init: true, ..shell("sleep 1000") });
    container.signal(15).unwrap();
    let exit = container.wait(&Default::default(), &mut |_, _| {}).unwrap();
    assert_eq!(exit, Exit::Code(143));
    container.delete().unwrap();
    // Nobody waits where a program is process 1 that does not.
    let lazy = "(sleep 0.01 & exit 0); exec sleep 1000";
    let container = running(&engine, shell(lazy));
    until("a zombie", || sh(&container, ZOMBIES) == "1\n");
    container.delete().unwrap();
    // What cannot be executed is told as ever.
    let argv = list(&["/none"]);
    let process = Process { argv, init: true, ..Process::default() };
    let mut container = make(&engine, ContainerOptions { process, ..ContainerOptions::new("app") });
    let error = container.start(rbuild::Attach::No).unwrap_err().to_string();
    assert!(error.contains("/none"), "{error}");
    assert_eq!(container.state().unwrap().ended.unwrap().exit, Exit::Code(127));
    container.delete().unwrap();
}

/// What is typed as Ctrl-C reaches the program once, and not by way of the init too.
fn an_init_leaves_the_terminal_to_the_program() {
    let (_place, engine) = place();
    let script = "trap 'echo int' INT; echo up; read -r word; echo $word; sleep 0.3; exit 6";
    let process = Process { init: true, terminal: true, open_stdin: true, ..shell(script) };
    let mut container = make(&engine, ContainerOptions { process, ..ContainerOptions::new("app") });
    container.start(rbuild::Attach::Yes).unwrap();
    let mut input = container.input().unwrap();
    until("the prompt", || log(&container).contains("up"));
    input.write(b"typed\n").unwrap();
    until("the word", || log(&container).matches("typed").count() == 2);
    input.write(&[3]).unwrap();
    let exit = container.wait(&Default::default(), &mut |_, _| {}).unwrap();
    assert_eq!(exit, Exit::Code(6));
    assert_eq!(log(&container).matches("int").count(), 1, "{}", log(&container));
    container.delete().unwrap();
}

/// It is a program of the host.
fn an_init_stays_out_of_reach() {
    let (_place, engine) = place();
    let marker = format!("{}.125", 500_000 + std::process::id());
    let script = format!("sleep {marker}; exit 1");
    let container = running(&engine, Process { init: true, ..shell(&script) });
    until("the program", || !processes(&marker).is_empty());
    let script = "for file in exe fd/0 fd/3 root mem; do \
                  (: < /proc/1/$file) 2> /dev/null && echo $file; done; echo done";
    assert_eq!(sh(&container, script), "done\n");
    let pid = container.state().unwrap().pid.unwrap();
    assert_eq!(fs_err::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), 0);
    // It dies with its helper, and the program with it.
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let helper = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    kill_process(Pid::from_raw(helper.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    until("the end", || container.state().unwrap().status == Status::Exited);
    until("the end of the program", || processes(&marker).is_empty());
    container.delete().unwrap();
}

/// Process 1 gets what it handles, and nothing else but what cannot be caught.
fn process_one_gets_signals_as_in_docker() {
    let (_place, engine) = place();
    let mut container =
        started(&engine, scripted(&format!("trap 'exit 5' USR1; echo up; {FOR_EVER}")));
    until("the trap", || log(&container) == "up\n");
    container.signal(15).unwrap();
    container.signal(10).unwrap();
    let exit = container.wait(&Default::default(), &mut |_, _| {}).unwrap();
    assert_eq!(exit, Exit::Code(5));
    container.delete().unwrap();
}

fn real_time_signals_arrive() {
    let (place, engine) = place();
    // As images with systemd have it.
    build(&engine, &place.request("FROM base\nSTOPSIGNAL SIGRTMIN+3\n").tag("stops"));
    let script = format!("trap 'echo rt' 40; trap 'exit 5' 37; echo up; {FOR_EVER}");
    for (init, image, stop_signal) in
        [(false, "app", Some("SIGRTMIN+3")), (true, "app", Some("37")), (true, "stops", None)]
    {
        let process = Process { init, ..shell(&script) };
        let stop_signal = stop_signal.map(str::to_owned);
        let options = ContainerOptions { process, stop_signal, ..ContainerOptions::new(image) };
        let container = started(&engine, options);
        until("the traps", || log(&container) == "up\n");
        container.signal(40).unwrap();
        until("the signal", || log(&container) == "up\nrt\n");
        container.signal(0).unwrap_err();
        container.signal(65).unwrap_err();
        let patient = Stop { patience: None, ..container.record().stop };
        container.stop(Some(patient)).unwrap();
        assert_eq!(container.state().unwrap().ended.unwrap().exit, Exit::Code(5));
        container.delete().unwrap();
    }
}

fn settings_of_the_kernel_are_the_containers_own() {
    let (place, engine) = place();
    let host = fs_err::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let sysctls = [("net.core.somaxconn", "77"), ("kernel.shmmax", "65536")];
    let sysctls = sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let network = ContainerNetwork::None;
    let script = "cd /proc/sys; cat net/core/somaxconn kernel/shmmax; \
                  cat net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range; \
                  echo 1 > net/core/somaxconn || echo fixed";
    let process = Process { sysctls, network, ..shell(&format!("({script}) 2> /dev/null")) };
    // Anybody may listen on any port, as in Docker.
    let text = shown(&place, &engine, process);
    assert_eq!(text, "77\n65536\n0\n0\t2147483647\nfixed\n");
    assert_eq!(fs_err::read_to_string("/proc/sys/net/core/somaxconn").unwrap(), host);
    for (name, network) in
        [("net.core.somaxconn", ContainerNetwork::Host), ("kernel.panic", ContainerNetwork::None)]
    {
        let sysctls = [(name.to_owned(), "1".to_owned())].into();
        let process = Process { sysctls, network, ..shell("true") };
        let error = engine.create("test", "app", process).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

fn names_of_host_and_domain_are_given() {
    let (place, engine) = place();
    let process = Process {
        hostname: Some("web".to_owned()),
        domainname: "example.org".to_owned(),
        ..shell("cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname; grep web /etc/hosts")
    };
    let text = shown(&place, &engine, process);
    assert_eq!(text, "web\nexample.org\n127.0.1.1\tweb.example.org web\n");
}

fn namespaces_of_the_host_may_be_shared() {
    let (place, engine) = place();
    let ours = |kind: &str| fs_err::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    let script = "readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts; hostname; \
                  stat -c %d /dev/shm";
    let shared = SharedNamespaces { ipc: true, uts: true };
    let text = shown(&place, &engine, Process { shared, ..shell(script) });
    let host = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let memory = rustix::fs::stat("/dev/shm").unwrap().st_dev;
    let expected =
        format!("{}\n{}\n{host}\n{memory}\n", ours("ipc").display(), ours("uts").display());
    assert_eq!(text, expected);
    let text = shown(&place, &engine, shell(script));
    assert!(expected.lines().zip(text.lines()).all(|(host, own)| host != own), "{text}");
    let named = Process { hostname: Some("web".to_owned()), shared, ..shell("true") };
    let error = engine.create("test", "app", named).unwrap_err().to_string();
    assert!(error.contains("none of its own"), "{error}");
}
