//! What steps may use, and what they may do with permission only.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rbuild::{BuildError, BuildRequest, Entitlement, StepError};

use crate::child;
use crate::support::{BASE, Place, build, build_error, explain, ran};
use crate::tests;

tests![
    extra_hosts_are_in_etc_hosts,
    of_extra_hosts_only_names_make_another_step,
    limits_of_processes_are_set,
    processors_and_their_time_are_limited,
    used_up_memory_is_the_reason,
    limits_make_no_other_step,
    wrong_limits_are_refused_before_anything_runs,
    no_group_is_left,
    steps_beside_each_other_leave_no_group,
    a_killed_build_leaves_no_group,
    a_group_that_was_left_is_swept,
    an_insecure_step_needs_permission,
    an_insecure_step_may_do_anything,
];

/// Where this machine has a hierarchy of control groups that can limit memory.
fn memory_hierarchy() -> Option<PathBuf> {
    let old = PathBuf::from("/sys/fs/cgroup/memory");
    let unified = PathBuf::from("/sys/fs/cgroup");
    let controllers = fs_err::read_to_string(unified.join("cgroup.controllers"));
    let found = if old.is_dir() {
        Some(old)
    } else {
        controllers.is_ok_and(|text| text.contains("memory")).then_some(unified)
    };
    if found.is_none() {
        eprintln!("skipped: there is no memory controller");
    }
    found
}

fn limited(request: BuildRequest, change: impl FnOnce(&mut rbuild::Resources)) -> BuildRequest {
    let mut request = request;
    change(&mut request.resources);
    request
}

fn hosts(place: &Place, text: &str, hosts: &[&str]) -> BuildRequest {
    let mut request = place.request(text);
    request.options.extra_hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
    request
}

fn extra_hosts_are_in_etc_hosts() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN cat /etc/hosts > /seen\n";
    let of = ["db:192.0.2.7", "six=[2001:db8::1]", "up:host-gateway", "db:192.0.2.8"];
    build(&engine, &hosts(&place, text, &of).tag("app"));
    let seen = place.sh(&engine, "app", "cat /seen");
    let end = "192.0.2.7\tdb\n2001:db8::1\tsix\n127.0.0.1\tup\n192.0.2.8\tdb\n";
    assert!(seen.ends_with(end) && seen.starts_with("127.0.0.1\tlocalhost"), "{seen}");
    assert!(!place.sh(&engine, "app", "cat /etc/hosts").contains("192.0.2.7"));
}

fn of_extra_hosts_only_names_make_another_step() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN cat /etc/hosts > /seen\n";
    let run = |of: &[&str]| ran(&build(&engine, &hosts(&place, text, of))).len();
    assert_ne!(run(&["db:192.0.2.7"]), 0);
    assert_eq!(run(&["db:192.0.2.8"]), 0);
    assert_ne!(run(&["other:192.0.2.8"]), 0);
    assert_ne!(run(&[]), 0);
}

fn limits_of_processes_are_set() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\n\
                RUN test $(ulimit -Sn):$(ulimit -Hn) = 77:88 && grep ' /dev/shm .*size=2048k' /proc/mounts\n";
    let mut request = place.request(text);
    request.options.ulimits = vec!["nofile=77:88".parse().unwrap()];
    request.options.shm_size = Some(2 << 20);
    build(&engine, &request);
    // They are a part of the step.
    let error = build_error(&engine, &place.request(text));
    assert!(matches!(error, BuildError::Step { .. }), "{error}");
}

fn processors_and_their_time_are_limited() {
    if memory_hierarchy().is_none() {
        return;
    }
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\n\
                RUN grep -x 'Cpus_allowed_list:\t0' /proc/self/status\n";
    let request = limited(place.request(text), |resources| {
        resources.cpuset_cpus = Some("0".to_owned());
        // A tenth of a processor.
        resources.cpu_period = Some(100_000);
        resources.cpu_quota = Some(10_000);
        resources.cpu_shares = Some(2);
    });
    build(&engine, &request);
    let request = limited(place.request("FROM base\nRUN true\n"), |resources| {
        resources.cpuset_cpus = Some("4000".to_owned());
    });
    let told = explain(&build_error(&engine, &request));
    assert!(told.contains("cannot limit cpuset to 4000"), "{told}");
}

fn used_up_memory_is_the_reason() {
    if memory_hierarchy().is_none() {
        return;
    }
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN x=x; while :; do x=$x$x$x$x; done\n";
    let request = limited(place.request(text), |resources| {
        (resources.memory, resources.memory_swap) = (Some(16 << 20), Some(16 << 20));
    });
    let error = build_error(&engine, &request);
    let BuildError::Step { failure, .. } = &error else { panic!("{error:?}") };
    let StepError::OutOfMemory { code: 137, memory, .. } = &failure.source else {
        panic!("{:?}", failure.source)
    };
    assert_eq!(*memory, 16 << 20);
    let told = error.to_string();
    assert!(told.contains("exit code: 137: out of memory"), "{told}");
}

fn limits_make_no_other_step() {
    if memory_hierarchy().is_none() {
        return;
    }
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN touch /done\n";
    place.build(&engine, text);
    let request = limited(place.request(text), |resources| {
        (resources.memory, resources.cpu_shares) = (Some(64 << 20), Some(9));
        resources.cgroup_parent = Some("/somewhere".to_owned());
    });
    let built = build(&engine, &request);
    assert_eq!(built.executed, 0, "{:?}", ran(&built));
}

fn wrong_limits_are_refused_before_anything_runs() {
    let place = Place::new();
    let engine = place.engine();
    let request = limited(place.request("FROM base\n"), |resources| resources.memory = Some(1));
    let error = build_error(&engine, &request);
    assert!(matches!(&error, BuildError::Request { .. }), "{error:?}");
    assert!(error.to_string().contains("too small"), "{error}");
}

/// Groups below `parent` in all hierarchies.
fn groups(parent: &str) -> Vec<PathBuf> {
    let tops = fs_err::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let tops = tops.chain([PathBuf::from("/sys/fs/cgroup")]);
    tops.map(|top| top.join(parent)).filter(|group| group.is_dir()).collect()
}

fn no_group_is_left() {
    if memory_hierarchy().is_none() {
        return;
    }
    let place = Place::new();
    let engine = place.engine();
    for script in ["true", "sleep 30 & exit 1", "setsid sleep 30 & true"] {
        let text = format!("FROM base\nRUN {script}; exit $?\n");
        let request = limited(place.request(&text), |resources| {
            resources.memory = Some(64 << 20);
            resources.cpuset_cpus = Some("0".to_owned());
            resources.cgroup_parent = Some("/rbuild-engine-test/deeper".to_owned());
        });
        let _ = engine.build(&request, &rbuild::Silent, &rbuild::CancelToken::default());
        assert_eq!(groups("rbuild-engine-test"), Vec::<PathBuf>::new(), "{script}");
    }
}

/// Which of them makes the parent, and which leaves last, is chance.
fn steps_beside_each_other_leave_no_group() {
    if memory_hierarchy().is_none() {
        return;
    }
    let place = Place::new();
    let mut text = String::new();
    for stage in 0..6 {
        text.push_str(&format!("FROM base AS s{stage}\nRUN sleep 0.{stage}; touch /{stage}\n"));
    }
    text.push_str("FROM base\n");
    for stage in 0..6 {
        text.push_str(&format!("COPY --from=s{stage} /{stage} /\n"));
    }
    let request = limited(place.request(&text), |resources| {
        resources.memory = Some(64 << 20);
        resources.cgroup_parent = Some("rbuild-many-test".to_owned());
    });
    build(&place.engine(), &BuildRequest { jobs: Some(6), ..request });
    assert_eq!(groups("rbuild-many-test"), Vec::<PathBuf>::new());
}

fn a_killed_build_leaves_no_group() {
    if memory_hierarchy().is_none() {
        return;
    }
    let place = Place::new();
    let parent = "rbuild-kill-test";
    let text = format!("{BASE}FROM base\nRUN sleep 60\n");
    let dockerfile = place.write("Dockerfile", text);
    let mut command =
        child::build_with_limit(&place.store(), &place.context(), &dockerfile, parent);
    let mut building = command.spawn().unwrap();
    let wait = |until: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !until() {
            assert!(Instant::now() < deadline, "{:?}", groups(parent));
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let is_sleeping = || {
        let processes = fs_err::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|process| fs_err::read_to_string(process.path().join("cgroup")).ok())
            .any(|text| text.contains(parent))
    };
    wait(&is_sleeping);
    building.kill().unwrap();
    building.wait().unwrap();
    wait(&|| groups(parent).is_empty());
}

/// As a helper that was killed itself leaves it.
fn a_group_that_was_left_is_swept() {
    let Some(hierarchy) = memory_hierarchy() else { return };
    let namespace = fs_err::read_link("/proc/self/ns/pid").unwrap().display().to_string();
    let namespace: String = namespace.chars().filter(char::is_ascii_digit).collect();
    let parent = hierarchy.join("rbuild-sweep-test");
    let dead = parent.join(format!("rbuild-{namespace}-{}-1", std::process::id()));
    let other = parent.join("somebody-else");
    fs_err::create_dir_all(&dead).unwrap();
    fs_err::create_dir_all(&other).unwrap();
    let place = Place::new();
    let request = limited(place.request("FROM base\nRUN true\n"), |resources| {
        resources.memory = Some(64 << 20);
        resources.cgroup_parent = Some("rbuild-sweep-test".to_owned());
    });
    build(&place.engine(), &request);
    let names = |path: &Path| -> Vec<String> {
        let entries = fs_err::read_dir(path).unwrap().flatten();
        let directories = entries.filter(|entry| entry.path().is_dir());
        directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let left = names(&parent);
    for group in [&other, &dead, &parent] {
        let _ = rustix::fs::rmdir(group);
    }
    assert_eq!(left, ["somebody-else"]);
}

fn an_insecure_step_needs_permission() {
    let place = Place::new();
    let engine = place.engine();
    let error = build_error(&engine, &place.request("FROM base\nRUN --security=insecure true\n"));
    let BuildError::Dockerfile { diagnostics, .. } = &error else { panic!("{error:?}") };
    assert_eq!(diagnostics[0].message, "security.insecure is not allowed");
    let help = format!("{:?}", diagnostics[0]);
    assert!(help.contains("--allow security.insecure"), "{help}");
    // It is not needed where no such step is built.
    place.build(&engine, "FROM base AS unused\nRUN --security=insecure true\nFROM base\n");
}

fn an_insecure_step_may_do_anything() {
    let place = Place::new();
    let engine = place.engine();
    let script = "grep -q 'Seccomp:.0' /proc/self/status && mount -t tmpfs none /mnt && \
                  grep -q ' /sys sysfs rw' /proc/mounts && test -c /dev/fuse && \
                  mknod /zero c 1 5 && head -c 1 /zero > /dev/null && rm /zero && touch /done";
    let text = |flag: &str| format!("FROM base\nRUN mkdir /mnt\nRUN {flag}{script}\n");
    let mut request = place.request(&text("--security=insecure "));
    request.options.allow.insert(Entitlement::SecurityInsecure);
    build(&engine, &request);
    // Permission alone changes nothing, and the steps are not the same.
    let mut request = place.request(&text("--security=sandbox "));
    request.options.allow.insert(Entitlement::SecurityInsecure);
    let error = build_error(&engine, &request);
    assert!(matches!(error, BuildError::Step { .. }), "{error}");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}
