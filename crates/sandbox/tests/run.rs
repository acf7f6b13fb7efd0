//! Runs real processes in a real sandbox: needs root and Debian's busybox-static.
//!
//! The harness is our own `main`, because the test program is also the sandbox helper.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test program with its own main")]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use rbuild_sandbox::linux::capabilities::CapabilitySet;
use rbuild_sandbox::{
    DeviceNode, Exit, InjectedFile, Join, Launch, Mount, MountSource, Network, NodeKind, Resources,
    Rlimit, SandboxError, SharedNamespaces, Spec, Stdio,
};
use rbuild_snapshot::Active;
use rbuild_types::{CancelToken, Stream};

fn main() {
    rbuild_sandbox::sandbox_main();
    let arguments = Arguments::from_args();
    let able = rustix::process::geteuid().is_root() && Path::new("/bin/busybox").exists();
    if !able {
        eprintln!("skipped: sandbox tests need root and /bin/busybox (Debian's busybox-static)");
    }
    let tests: [(&str, Test); 23] = [
        ("output_and_exit_code_come_back", output_and_exit_code_come_back),
        (
            "programs_that_cannot_start_have_dockers_codes",
            programs_that_cannot_start_have_dockers_codes,
        ),
        ("capabilities_and_seccomp_are_dockers", capabilities_and_seccomp_are_dockers),
        ("the_host_is_out_of_sight", the_host_is_out_of_sight),
        ("devices_and_mounts_are_there", devices_and_mounts_are_there),
        ("injected_files_are_in_no_layer", injected_files_are_in_no_layer),
        ("users_come_from_the_image", users_come_from_the_image),
        ("no_network_still_has_loopback", no_network_still_has_loopback),
        ("a_linked_proc_is_refused", a_linked_proc_is_refused),
        (
            "cancelling_ends_a_process_that_ignores_sigterm",
            cancelling_ends_a_process_that_ignores_sigterm,
        ),
        ("background_children_die_with_the_step", background_children_die_with_the_step),
        ("much_output_arrives_whole", much_output_arrives_whole),
        ("a_terminal_is_a_terminal", a_terminal_is_a_terminal),
        ("a_part_of_a_mount_is_all_that_shows", a_part_of_a_mount_is_all_that_shows),
        ("a_link_in_a_mount_is_not_followed", a_link_in_a_mount_is_not_followed),
        ("devices_that_were_asked_for_are_given", devices_that_were_asked_for_are_given),
        ("limits_of_a_process_are_set", limits_of_a_process_are_set),
        ("nothing_keeps_a_privileged_process_in", nothing_keeps_a_privileged_process_in),
        ("memory_that_is_used_up_is_named", memory_that_is_used_up_is_named),
        ("groups_go_with_their_process", groups_go_with_their_process),
        ("who_leaves_a_group_takes_it_from_nobody", who_leaves_a_group_takes_it_from_nobody),
        ("who_joins_a_process_is_in_its_groups", who_joins_a_process_is_in_its_groups),
        ("a_thousand_starts_from_a_threaded_host", a_thousand_starts_from_a_threaded_host),
    ];
    let trials = tests
        .into_iter()
        .map(|(name, test)| Trial::test(name, test).with_ignored_flag(!able))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

type Test = fn() -> Result<(), Failed>;

/// A busybox root filesystem in a temporary directory.
struct Base {
    directory: tempfile::TempDir,
    layer: PathBuf,
}

impl Base {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layer = directory.path().join("base");
        for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
            fs_err::create_dir_all(layer.join(name)).unwrap();
        }
        fs_err::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for applet in
            ["sh", "cat", "ls", "id", "sleep", "echo", "grep", "true", "tty", "seq", "pwd"]
        {
            fs_err::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        fs_err::write(
            layer.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
        )
        .unwrap();
        fs_err::write(layer.join("etc/group"), "root:x:0:\nwheel:x:10:root,app\napp:x:1000:\n")
            .unwrap();
        fs_err::write(layer.join("etc/hosts"), "").unwrap();
        Self { directory, layer }
    }

    fn active(&self, name: &str) -> Active {
        Active::new(&self.directory.path().join(name), vec![self.layer.clone()]).unwrap()
    }
}

fn spec(argv: &[&str]) -> Spec {
    Spec {
        argv: argv.iter().map(ToString::to_string).collect(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".to_owned(),
        user: String::new(),
        hostname: "box".to_owned(),
        network: Network::Host,
        terminal: false,
        capabilities: CapabilitySet::docker_default(),
        seccomp: true,
        filter: None,
        no_new_privileges: false,
        groups: Vec::new(),
        devices: Vec::new(),
        mounts: Vec::new(),
        files: Vec::new(),
        read_only: false,
        privileged: false,
        unmasked: false,
        init: false,
        shared: SharedNamespaces::default(),
        domainname: String::new(),
        sysctls: Default::default(),
        shm_size: None,
        rlimits: Vec::new(),
        oom_score_adj: None,
        resources: Resources::default(),
    }
}

fn launch(spec: Spec, root: OwnedFd, stdio: Stdio) -> Launch {
    let helper = Launch::this_program();
    Launch { helper, spec, root, mounts: Vec::new(), stdio, network: None }
}

/// Runs to the end: the result and what was written to either output.
fn run(base: &Base, spec: Spec) -> (Result<Exit, SandboxError>, String) {
    let active = base.active("step");
    let root = active.mount().unwrap();
    let mut written = Vec::new();
    let running = launch(spec, root, Stdio::Capture { stdin: None }).start().unwrap();
    let exit =
        running.wait(&CancelToken::default(), &mut |_, bytes| written.extend_from_slice(bytes));
    active.finish().unwrap();
    (exit, String::from_utf8_lossy(&written).into_owned())
}

fn shell(base: &Base, script: &str) -> String {
    let (exit, written) = run(base, spec(&["sh", "-c", script]));
    assert_eq!(exit.unwrap(), Exit::Code(0), "{script}: {written}");
    written
}

fn output_and_exit_code_come_back() -> Result<(), Failed> {
    let base = Base::new();
    let active = base.active("step");
    let spec = spec(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    let running =
        launch(spec, active.mount().unwrap(), Stdio::Capture { stdin: None }).start().unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = running.wait(&CancelToken::default(), &mut |stream, bytes| match stream {
        Stream::Stdout => out.extend_from_slice(bytes),
        Stream::Stderr => err.extend_from_slice(bytes),
    });
    assert_eq!(exit.unwrap(), Exit::Code(7));
    assert_eq!((out.as_slice(), err.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    active.finish().unwrap();
    Ok(())
}

fn programs_that_cannot_start_have_dockers_codes() -> Result<(), Failed> {
    let base = Base::new();
    let code = |argv: &[&str]| match run(&base, spec(argv)).0 {
        Err(SandboxError::Start(failure)) => failure.code,
        other => panic!("{argv:?}: {other:?}"),
    };
    assert_eq!(code(&["nothing-like-this"]), 127);
    assert_eq!(code(&["/bin/nothing-like-this"]), 127);
    assert_eq!(code(&["/etc/passwd"]), 126);
    assert_eq!(code(&["/etc"]), 126);
    let unknown_user = Spec { user: "nobody-here".to_owned(), ..spec(&["true"]) };
    let error = run(&base, unknown_user).0.unwrap_err().to_string();
    assert!(error.contains("nobody-here"), "{error}");
    Ok(())
}

fn capabilities_and_seccomp_are_dockers() -> Result<(), Failed> {
    let base = Base::new();
    let status = shell(&base, "cat /proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for name in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(name), "00000000a80425fb", "{name}");
    }
    assert_eq!(
        (field("CapInh").as_str(), field("CapAmb").as_str()),
        ("0000000000000000", "0000000000000000")
    );
    assert_eq!((field("Seccomp").as_str(), field("NoNewPrivs").as_str()), ("2", "0"));
    Ok(())
}

fn the_host_is_out_of_sight() -> Result<(), Failed> {
    let base = Base::new();
    let store = base.directory.path().to_str().unwrap().to_owned();
    let mounts = shell(&base, "cat /proc/mounts; ls /proc | grep -c '^[0-9]'; ls -l /proc/self/fd");
    assert!(!mounts.contains("/mnt") && !mounts.contains("ext4"), "{mounts}");
    assert!(!fs_err::read_to_string("/proc/1/mountinfo").unwrap().contains(&store));
    let numbers: Vec<_> = mounts.lines().filter(|line| line.contains("->")).collect();
    assert!(numbers.len() <= 4, "leaked descriptors: {numbers:?}");
    let (_, written) = run(
        &base,
        spec(&["sh", "-c", "cat /proc/kcore; echo x > /proc/sys/kernel/hostname; echo > /sys/x"]),
    );
    assert!(written.contains("Read-only file system"), "{written}");
    Ok(())
}

fn devices_and_mounts_are_there() -> Result<(), Failed> {
    let base = Base::new();
    let script = "echo lost > /dev/null; ls -l /dev; test -c /dev/ptmx -a -d /dev/shm; cat /proc/sys/kernel/hostname; pwd";
    let written = shell(&base, script);
    assert!(written.ends_with("box\n/\n"), "{written}");
    let in_directory = Spec { cwd: "/made/here".to_owned(), ..spec(&["pwd"]) };
    assert_eq!(run(&base, in_directory).1, "/made/here\n");
    Ok(())
}

fn injected_files_are_in_no_layer() -> Result<(), Failed> {
    let base = Base::new();
    let file = |path: &str, content: &str| InjectedFile::new(path, content, 0o755);
    let files = vec![
        file("/etc/hosts", "127.0.0.1 localhost\n"),
        file("/dev/pipes/EOF", "#!/bin/sh\necho from the script\n"),
        file("/nowhere/file", "x"),
    ];
    let spec = Spec { files, ..spec(&["sh", "-c", "cat /etc/hosts; /dev/pipes/EOF; ls -A /dev"]) };
    let (exit, written) = run(&base, spec);
    assert_eq!(exit.unwrap(), Exit::Code(0), "{written}");
    assert!(written.starts_with("127.0.0.1 localhost\nfrom the script\n"), "{written}");
    assert!(!written.contains("rbuild"), "{written}");
    let upper = base.directory.path().join("step/fs");
    let left: Vec<_> = fs_err::read_dir(upper).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

fn users_come_from_the_image() -> Result<(), Failed> {
    let base = Base::new();
    let id = |user: &str| {
        let spec = Spec {
            user: user.to_owned(),
            ..spec(&["sh", "-c", "id; echo $HOME; echo x > /dev/stdout"])
        };
        run(&base, spec).1
    };
    assert_eq!(id("app"), "uid=1000(app) gid=1000(app) groups=10(wheel),1000(app)\n/home/app\nx\n");
    assert_eq!(id("4242"), "uid=4242 gid=0(root) groups=0(root)\n/\nx\n");
    assert!(
        id("").starts_with("uid=0(root) gid=0(root) groups=0(root),10(wheel)\n/root\n"),
        "{}",
        id("")
    );
    Ok(())
}

fn no_network_still_has_loopback() -> Result<(), Failed> {
    let base = Base::new();
    let alone = Spec {
        network: Network::None,
        ..spec(&["sh", "-c", "cat /proc/net/dev; cat /sys/class/net/lo/operstate"])
    };
    let written = run(&base, alone).1;
    assert_eq!(written.lines().filter(|line| line.contains(':')).count(), 1, "{written}");
    Ok(())
}

fn a_linked_proc_is_refused() -> Result<(), Failed> {
    let base = Base::new();
    fs_err::remove_dir(base.layer.join("proc")).unwrap();
    fs_err::os::unix::fs::symlink("/tmp", base.layer.join("proc")).unwrap();
    let error = run(&base, spec(&["true"])).0.unwrap_err().to_string();
    assert!(error.contains("/proc") && error.contains("symbolic link"), "{error}");
    Ok(())
}

fn cancelling_ends_a_process_that_ignores_sigterm() -> Result<(), Failed> {
    let base = Base::new();
    let active = base.active("step");
    let stubborn = spec(&["sh", "-c", "trap '' TERM INT; sleep 77 & sleep 77; sleep 77"]);
    let running =
        launch(stubborn, active.mount().unwrap(), Stdio::Capture { stdin: None }).start().unwrap();
    let cancel = CancelToken::default();
    let canceller = cancel.clone();
    let start = Instant::now();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        canceller.cancel();
    });
    let error = running.wait(&cancel, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, SandboxError::Cancelled(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    Ok(())
}

fn background_children_die_with_the_step() -> Result<(), Failed> {
    let base = Base::new();
    let start = Instant::now();
    // The child keeps the output open; the step ends all the same.
    shell(&base, "sleep 60 & echo started");
    assert!(start.elapsed() < Duration::from_secs(10));
    Ok(())
}

fn much_output_arrives_whole() -> Result<(), Failed> {
    let base = Base::new();
    let written = shell(&base, "seq 1 200000");
    assert!(written.ends_with("199999\n200000\n") && written.lines().count() == 200_000);
    Ok(())
}

fn a_terminal_is_a_terminal() -> Result<(), Failed> {
    let base = Base::new();
    let active = base.active("step");
    let spec =
        Spec { terminal: true, ..spec(&["sh", "-c", "tty; read line; echo got $line; exit 3"]) };
    let mut running = launch(spec, active.mount().unwrap(), Stdio::Terminal).start().unwrap();
    let master = running.terminal().unwrap();
    rustix::io::write(&master, b"hello\n").unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    // Reading a master whose slave is gone fails with EIO: the end.
    while let Ok(count @ 1..) = rustix::io::read(&master, &mut buffer) {
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let exit = running.wait(&CancelToken::default(), &mut |_, _| {}).unwrap();
    assert_eq!(exit, Exit::Code(3));
    assert!(seen.contains("/dev/pts/0") && seen.contains("got hello"), "{seen}");
    Ok(())
}

/// A mount of `directory` and a spec that shows `paths` of it.
fn with_parts(directory: &Path, paths: &[(&str, &str)], script: &str) -> (Spec, Vec<OwnedFd>) {
    let mut spec = spec(&["sh", "-c", script]);
    let mut mounts = Vec::new();
    for (path, target) in paths {
        let source = MountSource::Detached { number: mounts.len(), path: (*path).to_owned() };
        mounts.push(rbuild_snapshot::bind(directory).unwrap());
        spec.mounts.push(Mount {
            target: (*target).to_owned(),
            source,
            read_only: false,
            no_suid: false,
            no_exec: false,
        });
    }
    (spec, mounts)
}

fn run_with(base: &Base, spec: Spec, mounts: Vec<OwnedFd>) -> (Result<Exit, SandboxError>, String) {
    let active = base.active("step");
    let launch =
        Launch { mounts, ..launch(spec, active.mount().unwrap(), Stdio::Capture { stdin: None }) };
    let mut written = Vec::new();
    let keep = &mut |_: Stream, bytes: &[u8]| written.extend_from_slice(bytes);
    let exit = launch.start().unwrap().wait(&CancelToken::default(), keep);
    active.finish().unwrap();
    (exit, String::from_utf8_lossy(&written).into_owned())
}

/// Taken out in the child, after the whole was attached there: works before Linux 6.15 too.
fn a_part_of_a_mount_is_all_that_shows() -> Result<(), Failed> {
    let base = Base::new();
    for name in ["part", "file", "dev"] {
        fs_err::create_dir(base.layer.join(name)).or_else(|error| match name {
            "dev" => Ok(()),
            _ => Err(error),
        })?;
    }
    fs_err::remove_dir(base.layer.join("file"))?;
    fs_err::write(base.layer.join("file"), "")?;
    let shown = tempfile::tempdir()?;
    fs_err::create_dir_all(shown.path().join("a/b"))?;
    fs_err::write(shown.path().join("a/b/inside"), "inside\n")?;
    fs_err::write(shown.path().join("a/outside"), "outside\n")?;
    let parts = [("/a/b", "/part"), ("/a/outside", "/file"), ("/", "/tmp"), ("/a", "/dev/part")];
    let script = "cat /part/inside /file; ls /part/.. | grep -c outside; ls /tmp /dev/part; \
                  echo written > /part/new; ls -A /dev; cat /proc/mounts";
    let (spec, mounts) = with_parts(shown.path(), &parts, script);
    let (exit, written) = run_with(&base, spec, mounts);
    assert_eq!(exit.unwrap(), Exit::Code(0), "{written}");
    assert!(
        written.starts_with("inside\noutside\n0\n/dev/part:\nb\noutside\n\n/tmp:\na\n"),
        "{written}"
    );
    assert!(!written.contains("rbuild"), "{written}");
    let places = written.lines().filter(|line| line.contains(" /part ")).count();
    assert_eq!(places, 1, "{written}");
    assert_eq!(fs_err::read_to_string(shown.path().join("a/b/new"))?, "written\n");
    let host = fs_err::read_to_string("/proc/1/mountinfo")?;
    assert!(!host.contains(shown.path().to_str().unwrap()));
    Ok(())
}

/// It may have been put there after the engine looked.
fn a_link_in_a_mount_is_not_followed() -> Result<(), Failed> {
    let base = Base::new();
    let shown = tempfile::tempdir()?;
    fs_err::os::unix::fs::symlink("/etc", shown.path().join("link"))?;
    for path in ["/link", "/link/passwd", "/none"] {
        let (spec, mounts) = with_parts(shown.path(), &[(path, "/tmp")], "true");
        let error = run_with(&base, spec, mounts).0.unwrap_err().to_string();
        assert!(error.starts_with("cannot mount /tmp: "), "{path}: {error}");
    }
    Ok(())
}

fn devices_that_were_asked_for_are_given() -> Result<(), Failed> {
    let base = Base::new();
    fs_err::create_dir(base.layer.join("opt"))?;
    fs_err::write(base.layer.join("opt/device"), "")?;
    let node = |path: &str, kind, minor, mode, owner: Option<u32>| DeviceNode {
        path: path.to_owned(),
        kind,
        major: 1,
        minor,
        mode,
        uid: owner,
        gid: owner,
    };
    let shown = tempfile::tempdir()?;
    fs_err::copy("/bin/busybox", shown.path().join("program"))?;
    let script = "stat -c '%n %F %a %u:%g %t:%T' /dev/second /dev/deep/zero /dev/pipe /opt/device \
                  /dev/null; echo x > /dev/second; head -c 2 /dev/deep/zero | wc -c; id -G; \
                  /tmp/program true || echo not executed; ls -A /dev";
    let (mut spec, mounts) = with_parts(shown.path(), &[("/", "/tmp")], script);
    spec.mounts[0].no_exec = true;
    spec.user = "7:8".to_owned();
    spec.groups = vec!["77".to_owned()];
    spec.devices = vec![
        node("/dev/second", NodeKind::Character, 3, 0o660, None),
        node("/dev/deep/zero", NodeKind::Character, 5, 0o604, Some(9)),
        node("/dev/pipe", NodeKind::Fifo, 0, 0o600, Some(0)),
        node("/opt/device", NodeKind::Block, 7, 0o400, None),
        // In the place of the usual one.
        node("/dev/null", NodeKind::Character, 5, 0o6644, Some(0)),
    ];
    let (exit, written) = run_with(&base, spec, mounts);
    assert_eq!(exit.unwrap(), Exit::Code(0), "{written}");
    let expected = "/dev/second character special file 660 7:8 1:3\n\
        /dev/deep/zero character special file 604 9:9 1:5\n\
        /dev/pipe fifo 600 0:0 0:0\n\
        /opt/device block special file 400 7:8 1:7\n\
        /dev/null character special file 644 0:0 1:5\n2\n8 77\n";
    assert!(written.starts_with(expected), "{written}");
    assert!(written.contains("not executed") && !written.contains("rbuild"), "{written}");
    Ok(())
}

fn limits_of_a_process_are_set() -> Result<(), Failed> {
    let base = Base::new();
    let limit = |name: &str, soft, hard| Rlimit { name: name.to_owned(), soft, hard };
    let limited = Spec {
        rlimits: vec![limit("nofile", Some(77), Some(88)), limit("core", Some(0), None)],
        shm_size: Some(1 << 20),
        ..spec(&["sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -Hc; grep /dev/shm /proc/mounts"])
    };
    let (exit, written) = run(&base, limited);
    assert_eq!(exit.unwrap(), Exit::Code(0), "{written}");
    assert!(written.starts_with("77\n88\nunlimited\n"), "{written}");
    assert!(written.contains("size=1024k"), "{written}");
    let unknown = Spec { rlimits: vec![limit("x", None, None)], ..spec(&["true"]) };
    assert!(run(&base, unknown).0.unwrap_err().to_string().contains("set ulimit x"));
    Ok(())
}

fn nothing_keeps_a_privileged_process_in() -> Result<(), Failed> {
    let base = Base::new();
    let script = "grep -E '^(CapEff|CapBnd|Seccomp):' /proc/self/status; grep ' /sys ' /proc/mounts; \
                  test -c /dev/fuse && test -b /dev/loop0 && test -c /dev/net/tun && \
                  /bin/busybox mknod /zero c 1 5 && /bin/busybox head -c 3 /zero | /bin/busybox wc -c; \
                  /bin/busybox mount -t tmpfs none /tmp && echo mounted; \
                  grep -c ' /proc/' /proc/mounts";
    let privileged = Spec {
        privileged: true,
        seccomp: false,
        capabilities: CapabilitySet::all(),
        ..spec(&["sh", "-c", script])
    };
    let (_, written) = run(&base, privileged);
    // Nobody gives what he does not have.
    let own = fs_err::read_to_string("/proc/self/status")?;
    let own = own.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    let all = CapabilitySet::from_bits(u64::from_str_radix(own, 16)?) & CapabilitySet::all();
    let all = format!("{:016x}", all.bits());
    assert_eq!(written.matches(&all).count(), 2, "{written}");
    assert!(written.contains("Seccomp:\t0") && written.contains("sysfs rw,"), "{written}");
    assert!(written.ends_with("3\nmounted\n0\n"), "{written}");
    // And an ordinary one can do none of it.
    let (_, written) = run(&base, spec(&["sh", "-c", script]));
    assert!(written.contains("sysfs ro,") && !written.contains("mounted\n"), "{written}");
    Ok(())
}

/// Directories below a group in any hierarchy.
fn groups(parent: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let hierarchies = fs_err::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let tops = hierarchies.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
    for parent in tops.map(|top| top.join(parent)).filter(|parent| parent.exists()) {
        let entries = fs_err::read_dir(&parent).unwrap().flatten().map(|entry| entry.path());
        found.extend(entries.filter(|path| path.is_dir()));
        found.push(parent);
    }
    found
}

fn limited(parent: &str, script: &str) -> Spec {
    let resources = Resources {
        memory: Some(16 << 20),
        cpu_shares: Some(512),
        cgroup_parent: Some(format!("/{parent}")),
        ..Resources::default()
    };
    Spec { resources, ..spec(&["sh", "-c", script]) }
}

/// Whether this machine can limit memory; says so if not.
fn can_limit() -> bool {
    let able = Path::new("/sys/fs/cgroup/memory").exists()
        || fs_err::read_to_string("/sys/fs/cgroup/cgroup.controllers")
            .is_ok_and(|text| text.contains("memory"));
    if !able {
        eprintln!("skipped: there is no memory controller");
    }
    able
}

fn memory_that_is_used_up_is_named() -> Result<(), Failed> {
    if !can_limit() {
        return Ok(());
    }
    const MEMORY: &str = "rbuild-test-memory";
    let base = Base::new();
    // The shell's own exit code says nothing of the reason.
    let hungry = "x=x; while :; do x=$x$x$x$x; done; exit 3";
    let (exit, written) = run(&base, limited(MEMORY, hungry));
    assert_eq!(exit.unwrap(), Exit::OutOfMemory(137), "{written}");
    let (exit, written) =
        run(&base, limited(MEMORY, &format!("sh -c '{hungry}'; echo $?; exit 3")));
    assert_eq!(
        (exit.unwrap(), written.contains("137\n")),
        (Exit::OutOfMemory(3), true),
        "{written}"
    );
    // What somebody else died of is no shortage of memory.
    // What is killed otherwise is no shortage of memory.
    let (exit, written) = run(&base, limited(MEMORY, "sh -c 'kill -9 $$'; exit 5"));
    assert_eq!(exit.unwrap(), Exit::Code(5), "{written}");
    let (exit, written) = run(&base, limited(MEMORY, "cat /proc/self/cgroup; exit 4"));
    assert_eq!(exit.unwrap(), Exit::Code(4));
    assert!(!written.contains("rbuild"), "{written}");
    assert_eq!(groups(MEMORY), Vec::<PathBuf>::new());
    Ok(())
}

fn groups_go_with_their_process() -> Result<(), Failed> {
    if !can_limit() {
        return Ok(());
    }
    const KILLED: &str = "rbuild-test-killed";
    let base = Base::new();
    let active = base.active("step");
    let sleeping = launch(
        limited(KILLED, "echo up; sleep 77"),
        active.mount()?,
        Stdio::Capture { stdin: None },
    );
    let running = sleeping.start()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let entered = || {
        let ours = groups(KILLED).into_iter().map(|group| group.join("cgroup.procs"));
        ours.flat_map(fs_err::read_to_string).any(|text| !text.is_empty())
    };
    while !entered() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(entered());
    let text = |file: &str| {
        let found = groups(KILLED).into_iter().map(|group| group.join(file));
        found.flat_map(fs_err::read_to_string).map(|text| text.trim().to_owned()).next()
    };
    let memory = text("memory.limit_in_bytes").or_else(|| text("memory.max"));
    assert_eq!(memory.as_deref(), Some("16777216"));
    let shares = text("cpu.shares").or_else(|| text("cpu.weight"));
    assert!(["512", "20"].contains(&shares.as_deref().unwrap()), "{shares:?}");
    // As when the engine is killed: its end of the line closes.
    drop(running);
    assert_eq!(groups(KILLED), Vec::<PathBuf>::new());
    active.finish()?;
    Ok(())
}

/// The last to leave removes the parents, just when another may be about to make its group there.
fn who_leaves_a_group_takes_it_from_nobody() -> Result<(), Failed> {
    if !can_limit() {
        return Ok(());
    }
    const SHARED: &str = "rbuild-test-shared";
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let base = Base::new();
                for _ in 0..60 {
                    let mut spec = limited(&format!("{SHARED}/inner"), "true");
                    spec.resources.cpuset_cpus = Some("0".to_owned());
                    assert_eq!(run(&base, spec).0.unwrap(), Exit::Code(0));
                }
            });
        }
    });
    assert_eq!(groups(SHARED), Vec::<PathBuf>::new());
    Ok(())
}

fn a_thousand_starts_from_a_threaded_host() -> Result<(), Failed> {
    let base = Base::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let starts = if std::env::var_os("RBUILD_LONG_TESTS").is_some() { 1000 } else { 100 };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::black_box(std::env::var_os("PATH").map(|path| path.len()));
                    std::thread::sleep(Duration::from_micros(50));
                }
            });
        }
        let start = Instant::now();
        for _ in 0..starts {
            assert_eq!(run(&base, spec(&["true"])).0.unwrap(), Exit::Code(0));
        }
        eprintln!("{starts} starts, {:?} each", start.elapsed() / starts);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    Ok(())
}

fn who_joins_a_process_is_in_its_groups() -> Result<(), Failed> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    let base = Base::new();
    let active = base.active("step");
    let limited = Spec {
        resources: Resources { memory: Some(64 << 20), ..Resources::default() },
        ..spec(&["sleep", "100"])
    };
    let mut first =
        launch(limited, active.mount().unwrap(), Stdio::Capture { stdin: None }).start().unwrap();
    let number = first.executed().unwrap();
    let process = pidfd_open(Pid::from_raw(number.cast_signed()).unwrap(), PidfdFlags::empty());
    let mut joined = Join {
        helper: Launch::this_program(),
        spec: spec(&["sleep", "100"]),
        process: process.unwrap(),
        stdio: Stdio::Capture { stdin: None },
    }
    .start()
    .unwrap();
    let groups = |number| fs_err::read_to_string(format!("/proc/{number}/cgroup")).unwrap();
    let second = joined.executed().unwrap();
    assert_eq!(groups(second), groups(number));
    assert_ne!(groups(number), groups(std::process::id()));
    // The group goes although it had another process.
    drop(first);
    let exit = joined.wait(&CancelToken::default(), &mut |_, _| {}).unwrap();
    assert_eq!(exit, Exit::Signal(9));
    active.finish().unwrap();
    Ok(())
}
