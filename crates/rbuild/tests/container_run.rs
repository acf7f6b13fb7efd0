//! Containers: what their process sees, how it ends, what is left.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rbuild::{
    Attach, BuildError, CancelToken, ContainerNetwork, Engine, Exit, Process, SandboxError, Stream,
    Tmpfs, Volume, VolumeSource,
};

use crate::child;
use crate::support::{Place, build, finish, shell};
use crate::tests;

tests![
    exit_codes_come_through,
    death_by_signal_is_128_and_the_signal,
    output_and_error_are_told_apart,
    options_stand_over_the_image,
    the_host_name_is_the_containers_own,
    a_user_is_found_by_name,
    a_command_that_is_missing_is_127,
    a_command_that_cannot_run_is_126,
    an_image_without_command_says_so,
    the_process_is_the_first_of_its_own,
    input_is_empty_unless_given,
    input_is_handed_over,
    a_bound_directory_is_the_hosts,
    a_bound_directory_may_be_read_only,
    a_missing_host_directory_is_made,
    a_volume_starts_with_the_images_files_and_is_kept,
    a_volume_made_by_several_at_once_is_whole,
    anonymous_volumes_begin_with_the_image_and_go_with_the_container,
    a_killed_container_is_swept_by_the_next_engine,
    strange_volume_names_are_refused,
    a_tmpfs_is_empty_memory,
    a_read_only_container_writes_to_its_mounts_alone,
    without_network_there_is_loopback_alone,
    what_a_container_writes_is_its_own,
    two_at_once_do_not_meet,
    a_deleted_container_leaves_nothing,
    a_dropped_container_is_stopped,
    a_cancelled_wait_stops_it,
    signals_arrive,
    a_container_starts_once,
    an_image_in_use_can_be_removed,
];

/// A store with the image `app`.
fn place() -> (Place, Engine) {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\n\
                RUN mkdir -p /etc /data/sub && chmod 1777 /data && chown 3:4 /data && \
                    echo image > /data/file && ln -s file /data/link && \
                    echo 'app:x:1234:56::/home/app:/bin/sh' > /etc/passwd && \
                    echo 'more:x:77:app' > /etc/group && \
                    printf '#!/nowhere/sh\\n' > /bin/script && chmod 755 /bin/script && \
                    echo plain > /bin/plain\n\
                ENV FROM_IMAGE=1 BOTH=image\nWORKDIR /data/sub\n\
                CMD [\"echo\", \"the\", \"command\"]\n";
    build(&engine, &place.request(text).tag("app"));
    (place, engine)
}

fn argv(words: &[&str]) -> Process {
    Process { argv: words.iter().map(|&word| word.to_owned()).collect(), ..Process::default() }
}

fn exit_codes_come_through() {
    let (place, engine) = place();
    assert_eq!(place.run(&engine, "app", Process::default()), (0, "the command\n".to_owned()));
    for code in [0, 1, 42, 125, 126, 127, 128, 255] {
        assert_eq!(place.run(&engine, "app", shell(&format!("exit {code}"))).0, code);
    }
    // Through the words of an argument vector nothing is lost.
    let words = argv(&["printf", "%s|", "a b", "", "$HOME", "\"q\"", "ü\n"]);
    assert_eq!(place.run(&engine, "app", words).1, "a b||$HOME|\"q\"|ü\n|");
}

fn death_by_signal_is_128_and_the_signal() {
    let (place, engine) = place();
    // A process 1 that handles nothing is reached from outside by KILL alone.
    let script = "echo up; while :; do sleep 0.05; done";
    let mut container = engine.create("test", "app", shell(script)).unwrap();
    container.start(Attach::Yes).unwrap();
    let signaller = container.line().unwrap();
    let (mut count, mut output) = (0, Vec::new());
    let exit = container
        .wait(&CancelToken::default(), &mut |_, bytes| {
            output.extend_from_slice(bytes);
            for signal in [15, 11, 9] {
                signaller.send(signal);
                count += 1;
            }
        })
        .unwrap();
    assert_eq!((exit, count, output.as_slice()), (Exit::Signal(9), 3, b"up\n".as_slice()));
    assert_eq!(exit.code(), 137);
    container.delete().unwrap();
    // A child's death is told by its shell.
    for (signal, code) in [("TERM", 143), ("SEGV", 139), ("USR1", 138)] {
        let script = format!("sh -c 'kill -{signal} $$'; exit $?");
        assert_eq!(place.run(&engine, "app", shell(&script)).0, code);
    }
}

fn output_and_error_are_told_apart() {
    let (_place, engine) = place();
    let process = shell("echo out; echo err >&2; head -c 300000 /dev/zero | tr '\\0' x");
    let mut container = engine.create("test", "app", process).unwrap();
    container.start(Attach::Yes).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut sink = |stream: Stream, bytes: &[u8]| match stream {
        Stream::Stdout => out.extend_from_slice(bytes),
        Stream::Stderr => err.extend_from_slice(bytes),
    };
    let exit = container.wait(&CancelToken::default(), &mut sink).unwrap();
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(err, b"err\n");
    assert_eq!(out.len(), 300_004);
    assert!(out.starts_with(b"out\nxxx"));
}

fn options_stand_over_the_image() {
    let (place, engine) = place();
    let script = "echo $FROM_IMAGE $BOTH $OWN; pwd; id -u; id -g; echo $HOME $PATH";
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let plain = place.sh(&engine, "app", script);
    assert_eq!(plain, format!("1 image\n/data/sub\n0\n0\n/ {path}\n"));
    let process = Process {
        env: vec!["BOTH=own".to_owned(), "OWN=a b".to_owned()],
        cwd: Some("/made/here".to_owned()),
        user: Some("7:8".to_owned()),
        ..shell(script)
    };
    let (code, output) = place.run(&engine, "app", process);
    assert_eq!((code, output), (0, format!("1 own a b\n/made/here\n7\n8\n/ {path}\n")));
    // An entry point of one's own takes the image's command away.
    let entrypoint = Some(vec!["echo".to_owned(), "own".to_owned()]);
    let process = Process { entrypoint, ..argv(&["more"]) };
    assert_eq!(place.run(&engine, "app", process).1, "own more\n");
    let entrypoint = Some(vec!["echo".to_owned(), "own".to_owned()]);
    let process = Process { entrypoint, ..Process::default() };
    assert_eq!(place.run(&engine, "app", process).1, "own\n");
    // Nothing of the caller's environment is inside.
    assert!(!place.sh(&engine, "app", "env").contains("CARGO"));
}

fn the_host_name_is_the_containers_own() {
    let (place, engine) = place();
    let host = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let script = "hostname; cat /etc/hostname; echo $HOSTNAME; grep -c \"$(hostname)\" /etc/hosts";
    let mut container = engine.create("test", "app", shell(script)).unwrap();
    let short = container.id()[..12].to_owned();
    let (exit, output) = finish(&mut container).unwrap();
    assert_eq!((exit, output), (Exit::Code(0), format!("{short}\n{short}\n{short}\n1\n")));
    let process = Process { hostname: Some("some.name".to_owned()), ..shell(script) };
    let (code, output) = place.run(&engine, "app", process);
    assert_eq!((code, output.as_str()), (0, "some.name\nsome.name\nsome.name\n1\n"));
    // To rename itself is its own affair, if it may at all.
    place.run(&engine, "app", shell("hostname renamed"));
    assert_eq!(rustix::system::uname().nodename().to_str().unwrap(), host);
    assert_eq!(place.sh(&engine, "app", "cat /etc/resolv.conf"), "nameserver 192.0.2.1\n");
}

fn a_user_is_found_by_name() {
    let (place, engine) = place();
    let process = |user: &str| Process { user: Some(user.to_owned()), ..shell("id; echo $HOME") };
    let (code, output) = place.run(&engine, "app", process("app"));
    assert_eq!(code, 0);
    assert!(
        output.contains("uid=1234(app) gid=56 groups=") || output.contains("gid=56"),
        "{output}"
    );
    assert!(output.contains("77(more)"), "{output}");
    assert!(output.ends_with("/home/app\n"), "{output}");
    let (_, output) = place.run(&engine, "app", process("app:more"));
    assert!(output.contains("gid=77(more)"), "{output}");
    let mut container = engine.create("test", "app", process("nobody-knows")).unwrap();
    let error = finish(&mut container).unwrap_err();
    assert!(error.to_string().contains("nobody-knows"), "{error}");
    assert_eq!(start_code(&error), 125);
}

/// The code of a process that could not be started.
fn start_code(error: &BuildError) -> i32 {
    match error {
        BuildError::Sandbox(SandboxError::Start(failure)) => failure.code,
        other => panic!("{other:?}"),
    }
}

fn a_command_that_is_missing_is_127() {
    let (place, engine) = place();
    for name in ["no-such-program", "/no/such/program", "./relative", "script", "/bin/script"] {
        let mut container = engine.create("test", "app", argv(&[name])).unwrap();
        let error = finish(&mut container).unwrap_err();
        assert_eq!(start_code(&error), 127, "{error}");
        assert!(error.to_string().contains(name), "{error}");
        container.delete().unwrap();
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn a_command_that_cannot_run_is_126() {
    let (place, engine) = place();
    for name in ["/bin/plain", "plain", "/data", "/etc/passwd"] {
        let mut container = engine.create("test", "app", argv(&[name])).unwrap();
        let error = finish(&mut container).unwrap_err();
        assert_eq!(start_code(&error), 126, "{error}");
        assert!(error.to_string().contains(name), "{error}");
        container.delete().unwrap();
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn an_image_without_command_says_so() {
    let (place, engine) = place();
    build(&engine, &place.request("FROM base\n").tag("silent"));
    let error = engine.create("test", "silent", Process::default()).unwrap_err();
    assert!(error.to_string().contains("names no command"), "{error}");
    let error = engine
        .create_container(
            rbuild::ContainerOptions {
                pull: rbuild::Pull::Never,
                ..rbuild::ContainerOptions::new("no-such-image")
            },
            rbuild::Ctx::new(&rbuild::Silent, &CancelToken::default()),
        )
        .unwrap_err();
    assert!(error.to_string().contains("no-such-image"), "{error}");
    assert_eq!(containers(&place), Vec::<String>::new());
}

fn the_process_is_the_first_of_its_own() {
    let (place, engine) = place();
    assert_eq!(place.sh(&engine, "app", "echo $$"), "1\n");
    let processes = place.sh(&engine, "app", "ls /proc | grep -c '^[0-9]'");
    assert!(processes.trim().parse::<usize>().unwrap() <= 6, "{processes}");
    // No shell in between: one that starts a pipeline has its ends open for a moment.
    let argv = ["ls", "/proc/self/fd"].map(str::to_owned).into();
    let process = Process { argv, entrypoint: Some(Vec::new()), ..Process::default() };
    assert_eq!(place.run(&engine, "app", process), (0, "0\n1\n2\n3\n".to_owned()));
    // Whoever is left when it ends is ended too.
    let marker = format!("{}.25", 200_000 + std::process::id());
    let start = Instant::now();
    let (code, _) = place.run(&engine, "app", shell(&format!("sleep {marker} & exit 3")));
    assert_eq!(code, 3);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let left = fs_err::read_dir("/proc").unwrap().flatten();
    let left = left.filter_map(|it| fs_err::read_to_string(it.path().join("cmdline")).ok());
    assert_eq!(left.filter(|line| line.contains(&marker)).count(), 0);
}

fn input_is_empty_unless_given() {
    let (place, engine) = place();
    assert_eq!(place.sh(&engine, "app", "cat; echo end"), "end\n");
}

fn input_is_handed_over() {
    let (place, engine) = place();
    drop(engine);
    let script = "tr a-z A-Z; echo told >&2; exit 5";
    let mut child = child::run(&place.store(), "app", script)
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds.
    let line = "some words\n".repeat(20_000);
    let writer = std::thread::spawn(move || {
        std::io::Write::write_all(&mut stdin, line.as_bytes()).unwrap();
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(output.stdout == "SOME WORDS\n".repeat(20_000).as_bytes(), "{}", output.stdout.len());
    assert_eq!(output.stderr, b"told\n");
}

fn with_volume(script: &str, source: VolumeSource, target: &str, read_only: bool) -> Process {
    let volume = Volume { source, target: target.to_owned(), read_only };
    Process { volumes: vec![volume], ..shell(script) }
}

fn a_bound_directory_is_the_hosts() {
    let (place, engine) = place();
    let host = place.path().join("host");
    fs_err::create_dir(&host).unwrap();
    fs_err::write(host.join("file"), "host\n").unwrap();
    let script = "cat /in/file; echo inside > /in/new; mkdir /in/d; rm /in/file";
    let process = with_volume(script, VolumeSource::Path(host.clone()), "/in", false);
    assert_eq!(place.run(&engine, "app", process), (0, "host\n".to_owned()));
    assert_eq!(fs_err::read(host.join("new")).unwrap(), b"inside\n");
    assert!(host.join("d").is_dir() && !host.join("file").exists());
    // It lies over what the image has, and one file may be bound too.
    let process = with_volume("ls /data", VolumeSource::Path(host.clone()), "/data", false);
    assert_eq!(place.run(&engine, "app", process).1, "d\nnew\nsub\n");
    let one = VolumeSource::Path(host.join("new"));
    let script = "cat /etc/new/file && echo more >> /etc/new/file";
    let process = with_volume(script, one, "/etc/new/file", false);
    assert_eq!(place.run(&engine, "app", process), (0, "inside\n".to_owned()));
    assert_eq!(fs_err::read(host.join("new")).unwrap(), b"inside\nmore\n");
}

fn a_bound_directory_may_be_read_only() {
    let (place, engine) = place();
    let host = place.path().join("host");
    fs_err::create_dir(&host).unwrap();
    fs_err::write(host.join("file"), "host\n").unwrap();
    let attempts = ["echo x > /in/file", "touch /in/new", "rm /in/file", "mount -o remount,rw /in"];
    for attempt in attempts {
        let process = with_volume(attempt, VolumeSource::Path(host.clone()), "/in", true);
        let (code, output) = place.run(&engine, "app", process);
        assert_ne!(code, 0, "{attempt}: {output}");
    }
    let process = with_volume("cat /in/file", VolumeSource::Path(host.clone()), "/in", true);
    assert_eq!(place.run(&engine, "app", process), (0, "host\n".to_owned()));
    assert_eq!(fs_err::read_dir(&host).unwrap().count(), 1);
    // The host's own mount is as it was.
    fs_err::write(host.join("file"), "other\n").unwrap();
}

fn a_missing_host_directory_is_made() {
    let (place, engine) = place();
    let host = place.path().join("not/there/yet");
    let process = with_volume("touch /in/new", VolumeSource::Path(host.clone()), "/in", false);
    assert_eq!(place.run(&engine, "app", process).0, 0);
    assert!(host.join("new").exists());
}

fn a_volume_starts_with_the_images_files_and_is_kept() {
    let (place, engine) = place();
    let named = |script: &str, name: &str, read_only| {
        with_volume(script, VolumeSource::Named(name.to_owned()), "/data", read_only)
    };
    let script = "cat file; readlink link; stat -c %a:%u:%g .; echo kept > own; rm file";
    let process = Process { cwd: Some("/data".to_owned()), ..named(script, "v", false) };
    let expected = "image\nfile\n1777:3:4\n".to_owned();
    assert_eq!(place.run(&engine, "app", process), (0, expected));
    // Not filled again, and not by another engine either.
    drop(engine);
    let engine = place.engine();
    let (code, output) = place.run(&engine, "app", named("ls /data; cat /data/own", "v", true));
    assert_eq!((code, output.as_str()), (0, "link\nown\nsub\nkept\n"));
    assert_ne!(place.run(&engine, "app", named("touch /data/x", "v", true)).0, 0);
    // Another volume is another one, and the image is what it was.
    let (_, output) = place.run(&engine, "app", named("cat /data/file", "w", false));
    assert_eq!(output, "image\n");
    assert_eq!(place.sh(&engine, "app", "ls /data"), "file\nlink\nsub\n");
    // At a place that the image does not have it is empty.
    let new = with_volume("ls -A /new", VolumeSource::Named("n".to_owned()), "/new", false);
    assert_eq!(place.run(&engine, "app", new), (0, String::new()));
}

fn a_volume_made_by_several_at_once_is_whole() {
    let place = Place::new();
    let engine = place.engine();
    let text = "RUN mkdir /data && for i in $(seq 300); do echo $i > /data/$i; done\n";
    let built = place.build(&engine, text);
    let image = built.image.as_ref().unwrap().id.to_string();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let source = VolumeSource::Named("v".to_owned());
                let process = with_volume("ls /data | wc -l", source, "/data", false);
                assert_eq!(place.run(&engine, &image, process).1.trim(), "300");
            });
        }
    });
}

fn anonymous_volumes_begin_with_the_image_and_go_with_the_container() {
    let place = Place::new();
    let engine = place.engine();
    let text = "RUN mkdir -m 0750 /data && chown 7:8 /data && echo x > /data/x\n\
                VOLUME /data /made\n";
    let built = place.build(&engine, text);
    let image = built.image.as_ref().unwrap().id.to_string();
    let script = "cat /data/x; stat -c %a:%u:%g /data; touch /data/y /made/y /other/y; \
                  ! touch /y 2> /dev/null; grep -c -E ' /(data|made|other) ' /proc/self/mountinfo";
    let process = Process {
        read_only: true,
        ..with_volume(script, VolumeSource::Anonymous, "/other", false)
    };
    assert_eq!(place.run(&engine, &image, process), (0, "x\n750:7:8\n3\n".to_owned()));
    assert_eq!(place.sh(&engine, &image, "ls /data /made"), "/data:\nx\n\n/made:\n");
    assert_eq!(containers(&place), Vec::<String>::new());
}

fn a_killed_container_is_swept_by_the_next_engine() {
    let place = Place::new();
    let engine = place.engine();
    let dead = place.store().join("containers/dead");
    fs_err::create_dir_all(dead.join("fs/etc")).unwrap();
    fs_err::write(dead.join("lock"), "").unwrap();
    drop(engine);
    place.engine();
    assert_eq!(containers(&place), Vec::<String>::new());
}

fn strange_volume_names_are_refused() {
    let (place, engine) = place();
    for name in ["", ".", "..", "../x", "a/b", "-x", "a b", "ü"] {
        let process = with_volume("true", VolumeSource::Named(name.to_owned()), "/v", false);
        let error = engine.create("test", "app", process).unwrap_err();
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
    }
    assert_eq!(containers(&place), Vec::<String>::new());
}

fn a_tmpfs_is_empty_memory() {
    let (place, engine) = place();
    let script =
        "ls -A /data; echo x > /data/x; stat -c %a /data; grep -c ' /data tmpfs ' /proc/mounts";
    let process =
        Process { tmpfs: vec![Tmpfs::new("/data")], cwd: Some("/".to_owned()), ..shell(script) };
    assert_eq!(place.run(&engine, "app", process), (0, "1777\n1\n".to_owned()));
    assert_eq!(place.sh(&engine, "app", "ls /data"), "file\nlink\nsub\n");
}

fn a_read_only_container_writes_to_its_mounts_alone() {
    let (place, engine) = place();
    let read_only = |script: &str| Process {
        read_only: true,
        tmpfs: vec![Tmpfs::new("/tmp")],
        volumes: vec![Volume {
            source: VolumeSource::Named("v".to_owned()),
            target: "/vol".to_owned(),
            read_only: false,
        }],
        ..shell(script)
    };
    for attempt in ["touch /new", "echo x > /data/file", "rm /data/file", "mkdir /etc/x"] {
        let (code, output) = place.run(&engine, "app", read_only(attempt));
        assert_ne!(code, 0, "{attempt}");
        assert!(output.contains("Read-only file system"), "{attempt}: {output}");
    }
    let script = "touch /tmp/a /vol/b /dev/shm/c && echo x > /dev/null && echo fine";
    assert_eq!(place.run(&engine, "app", read_only(script)), (0, "fine\n".to_owned()));
}

fn without_network_there_is_loopback_alone() {
    let (place, engine) = place();
    let script = "ls /sys/class/net; ip -o link | grep -c UP; ip -o addr | grep -c 127.0.0.1; \
                  ping -c 1 -W 5 127.0.0.1 > /dev/null && echo answered";
    let process = Process { network: ContainerNetwork::None, ..shell(script) };
    let (code, output) = place.run(&engine, "app", process);
    assert_eq!((code, output.as_str()), (0, "lo\n1\n1\nanswered\n"));
    // And with it what the host has.
    let ours = place.sh(&engine, "app", "readlink /proc/self/ns/net");
    let host = fs_err::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(ours.trim(), host.to_str().unwrap());
}

fn what_a_container_writes_is_its_own() {
    let (place, engine) = place();
    let script = "echo changed > /data/file; rm -r /data/sub /bin/sh; mkdir /new; touch /new/x; \
                  chmod 777 /etc; cat /data/file";
    assert_eq!(place.run(&engine, "app", shell(script)), (0, "changed\n".to_owned()));
    let script = "cat /data/file; ls -d /data/sub /new 2> /dev/null; stat -c %a /etc; ls /bin/sh";
    assert_eq!(place.sh(&engine, "app", script), "image\n/data/sub\n755\n/bin/sh\n");
    // Not even what the engine makes for it is in the image.
    let text = "FROM app\nRUN ls -A / > /listing && cat /data/file > /copy\n";
    let request = rbuild::BuildRequest::new(place.context()).dockerfile_text(text).tag("next");
    build(&engine, &request);
    assert_eq!(place.sh(&engine, "next", "cat /copy; grep -c new /listing || true"), "image\n0\n");
}

fn two_at_once_do_not_meet() {
    let (place, engine) = place();
    let script = "test ! -e /data/mine && echo $NAME > /data/mine && echo $NAME > /shared/$NAME; \
                  for i in $(seq 200); do test $(ls /shared | wc -l) -eq 2 && break; sleep 0.05; done; \
                  ls /shared | wc -l; cat /data/mine; ls /proc | grep -c '^[0-9]'; echo $$";
    let process = |name: &str| Process {
        env: vec![format!("NAME={name}")],
        ..with_volume(script, VolumeSource::Named("shared".to_owned()), "/shared", false)
    };
    let one = |name: &str| place.run(&engine, "app", process(name));
    // The volume is there before: to fill it is not what is looked at here.
    place.run(
        &engine,
        "app",
        with_volume("true", VolumeSource::Named("shared".to_owned()), "/shared", false),
    );
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| one("a"));
        (one("b"), other.join().unwrap())
    });
    for (name, (code, output)) in [("b", a), ("a", b)] {
        assert_eq!(code, 0, "{output}");
        let lines: Vec<_> = output.lines().collect();
        assert_eq!((lines[0], lines[1], lines[3]), ("2", name, "1"), "{output}");
        assert!(lines[2].parse::<usize>().unwrap() <= 6, "{output}");
    }
}

/// What is in the directory of containers.
fn containers(place: &Place) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(place.store().join("containers")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path().display().to_string()).collect()
}

fn control_groups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = waiting.pop() {
        for entry in fs_err::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() && !entry.path().is_symlink() {
                if entry.file_name().to_string_lossy().contains(&id[..12]) {
                    found.push(entry.path());
                }
                waiting.push(entry.path());
            }
        }
    }
    found
}

fn a_deleted_container_leaves_nothing() {
    let (place, engine) = place();
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    let mut container = engine.create("test", "app", shell("touch /new; sleep 600")).unwrap();
    let id = container.id().to_owned();
    assert_eq!(id.len(), 64);
    assert_eq!(containers(&place).len(), 1);
    container.start(Attach::Yes).unwrap();
    // While it runs nothing is mounted in the host's namespace.
    let store = place.store().display().to_string();
    let during = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!during.contains(&store), "{during}");
    let start = Instant::now();
    container.delete().unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(containers(&place), Vec::<String>::new());
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(control_groups(&id), Vec::<PathBuf>::new());
    assert_eq!(fs_err::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    // One that was never started goes as well.
    let container = engine.create("test", "app", shell("true")).unwrap();
    container.delete().unwrap();
    assert_eq!(containers(&place), Vec::<String>::new());
}

fn a_dropped_container_is_stopped() {
    let (place, engine) = place();
    let marker = format!("{}.75", 300_000 + std::process::id());
    let mut container = engine.create("test", "app", shell(&format!("sleep {marker}"))).unwrap();
    container.start(Attach::Yes).unwrap();
    drop(container);
    let running = || {
        let processes = fs_err::read_dir("/proc").unwrap().flatten();
        let lines =
            processes.filter_map(|it| fs_err::read_to_string(it.path().join("cmdline")).ok());
        lines.filter(|line| line.contains(&marker)).count()
    };
    let start = Instant::now();
    while running() != 0 && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(running(), 0);
    assert_eq!(containers(&place), Vec::<String>::new());
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn a_cancelled_wait_stops_it() {
    let (place, engine) = place();
    let script = "trap 'echo asked; exit 9' TERM; echo up; while :; do sleep 0.05; done";
    let mut container = engine.create("test", "app", shell(script)).unwrap();
    container.start(Attach::Yes).unwrap();
    let cancel = CancelToken::default();
    let mut output = Vec::new();
    let start = Instant::now();
    let result = container.wait(&cancel, &mut |_, bytes| {
        output.extend_from_slice(bytes);
        cancel.cancel();
    });
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let text = String::from_utf8_lossy(&output).into_owned();
    assert!(text.starts_with("up\n"), "{text}");
    match result {
        Err(BuildError::Cancelled(_) | BuildError::Sandbox(SandboxError::Cancelled(_))) => {}
        other => panic!("{other:?} {text}"),
    }
    container.delete().unwrap();
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn signals_arrive() {
    let (_place, engine) = place();
    let script = "trap 'echo usr1' USR1; trap 'echo int; exit 4' INT; echo up; \
                  while :; do sleep 0.05; done";
    let mut container = engine.create("test", "app", shell(script)).unwrap();
    let early = container.signal(10).unwrap_err();
    assert!(matches!(early, BuildError::Conflict { .. }), "{early:?}");
    container.start(Attach::Yes).unwrap();
    assert!(container.signal(4711).unwrap_err().to_string().contains("4711"));
    let signaller = container.line().unwrap();
    let mut output = String::new();
    let exit = container
        .wait(&CancelToken::default(), &mut |_, bytes| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            if text.contains("up") {
                signaller.send(10);
            }
            if text.contains("usr1") {
                signaller.send(2);
            }
            output.push_str(&text);
        })
        .unwrap();
    assert_eq!((exit, output.as_str()), (Exit::Code(4), "up\nusr1\nint\n"));
    // To one that has ended it is no error.
    signaller.send(9);
}

fn a_container_starts_once() {
    let (_place, engine) = place();
    let mut container = engine.create("test", "app", shell("exit 6")).unwrap();
    let error = container.wait(&CancelToken::default(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, BuildError::Conflict { .. }), "{error:?}");
    assert_eq!(finish(&mut container).unwrap().0, Exit::Code(6));
    let error = container.start(Attach::Yes).unwrap_err();
    assert!(matches!(error, BuildError::Conflict { .. }), "{error:?}");
    let error = container.wait(&CancelToken::default(), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, BuildError::Conflict { .. }), "{error:?}");
}

/// Names may go, and prune must leave what the container lies on.
fn an_image_in_use_can_be_removed() {
    let (place, engine) = place();
    let mut container = engine.create("test", "app", shell("cat /data/file")).unwrap();
    engine.remove_image("app", true).unwrap();
    let options = rbuild::PruneOptions { all: true, ..rbuild::PruneOptions::default() };
    let prune = || engine.prune(&options, &rbuild::Silent, &CancelToken::default()).unwrap();
    prune();
    let (exit, output) = finish(&mut container).unwrap();
    assert_eq!((exit, output.as_str()), (Exit::Code(0), "image\n"));
    container.delete().unwrap();
    prune();
    assert_eq!(engine.usage().unwrap().other_snapshots, 0);
    assert_eq!(place.leftovers(), Vec::<String>::new());
}
