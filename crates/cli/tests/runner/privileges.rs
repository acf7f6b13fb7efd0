//! What containers may use and do, as the command line says it and `inspect` shows it.

use crate::containers::program;

#[test]
fn used_up_memory_is_told_everywhere() {
    if fs_err::metadata("/sys/fs/cgroup/memory/memory.limit_in_bytes").is_err()
        && fs_err::metadata("/sys/fs/cgroup/cgroup.controllers").is_err()
    {
        eprintln!("skipped: there is no memory controller");
        return;
    }
    let Some(program) = program() else { return };
    program.file("eat.sh", "x=x\nwhile :; do x=$x$x$x$x; done\n");
    let mount = format!("{}:/mnt:ro", program.context().display());
    let ended = program.run(&format!("run --name eater -m 16m -v {mount} box sh /mnt/eat.sh"));
    assert_eq!(ended.code, 137, "{ended:#?}");
    assert!(ended.stderr.contains("the memory of --memory was used up"), "{ended:#?}");
    let status = program.run("ps -a --format {{.Status}}").good().stdout;
    assert!(status.starts_with("Exited (137) ") && status.contains("(out of memory)"), "{status}");
    let format = "{{.State.OOMKilled}} {{.State.ExitCode}} {{.HostConfig.Memory}} \
                  {{.HostConfig.MemorySwap}}";
    let shown = program.run_words(&["inspect", "-f", format, "eater"]).good().stdout;
    assert_eq!(shown, "true 137 16777216 33554432\n");
    program.run("run --memory 1m box echo").refused(125, "too small");
}

#[test]
fn what_was_asked_for_is_shown() {
    let Some(program) = program() else { return };
    let line = "create --name asked --cpus 1.5 --pids-limit 9 --ulimit nofile=5:6 --shm-size 1m \
                --cap-add net_admin --cap-drop ALL --security-opt no-new-privileges \
                --security-opt seccomp=unconfined --group-add 7 --init --read-only \
                --device /dev/null:/dev/mine --device a.b/c=d --network none --sysctl net.core.somaxconn=9 \
                --tmpfs /run:size=1m,exec --oom-score-adj -5 --domainname example.org box echo";
    program.run(line).good();
    let document = program.run("inspect asked").good().stdout;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let config = &document[0]["HostConfig"];
    let expected = serde_json::json!({
        "NanoCpus": 1_500_000_000,
        "PidsLimit": 9,
        "Ulimits": [{ "Name": "nofile", "Soft": 5, "Hard": 6 }],
        "ShmSize": 1 << 20,
        "CapAdd": ["CAP_NET_ADMIN"],
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
        "GroupAdd": ["7"],
        "Init": true,
        "ReadonlyRootfs": true,
        "Privileged": false,
        "Devices": [{
            "PathOnHost": "/dev/null",
            "PathInContainer": "/dev/mine",
            "CgroupPermissions": "rwm",
        }],
        "DeviceRequests": [{ "Driver": "cdi", "DeviceIDs": ["a.b/c=d"] }],
        "Sysctls": { "net.core.somaxconn": "9" },
        "Tmpfs": { "/run": "rw,exec,nosuid,mode=1777,size=1048576" },
        "OomScoreAdj": -5,
        "OomKillDisable": false,
        "Memory": 0,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&config[key], value, "{key}");
    }
    assert_eq!(document[0]["Config"]["Domainname"], "example.org");
    program.run("create --name plain box echo").good();
    let format = "{{.HostConfig.CapAdd}} {{.HostConfig.PidsLimit}} {{.HostConfig.ShmSize}}";
    let shown = program.run_words(&["inspect", "-f", format, "plain"]).good().stdout;
    assert!(shown.ends_with(" 67108864\n"), "{shown}");
}

#[test]
fn what_was_asked_for_is_changed() {
    let Some(program) = program() else { return };
    program.run("create --name changed -m 64m box echo").good();
    let line = "update -m 128m --pids-limit 5 --restart on-failure:2 changed";
    assert_eq!(program.run(line).good().stdout, "changed\n");
    let format = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}} \
                  {{.HostConfig.RestartPolicy.Name}}";
    let shown = program.run_words(&["inspect", "-f", format, "changed"]).good().stdout;
    assert_eq!(shown, "134217728 268435456 5 on-failure\n");
    program.run("update --pids-limit -1 changed").refused(1, "not be taken away");
    program.run("update --blkio-weight 5 changed").refused(1, "--blkio-weight");
    program.run("container update -m 1k changed").refused(1, "too small");
    program.run("update -m 1g none").refused(1, "no such container: none");
}

#[test]
fn a_real_time_signal_is_sent_by_its_name() {
    let Some(program) = program() else { return };
    program.file("wait.sh", "trap 'exit 5' 37\necho up\nwhile :; do sleep 0.05; done\n");
    let mount = format!("{}:/mnt:ro", program.context().display());
    program.run(&format!("run -d --init --name rt -v {mount} box sh /mnt/wait.sh")).good();
    while program.run("logs rt").good().stdout.is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    program.run("kill -s RTMIN+3 rt").good();
    assert_eq!(program.run("wait rt").good().stdout, "5\n");
}

#[test]
fn options_of_modules_that_are_not_here_are_taken_note_of() {
    let Some(program) = program() else { return };
    if fs_err::metadata("/sys/module/apparmor").is_err() {
        let ran = program.run("run --rm --security-opt apparmor=mine box echo x").good();
        assert_eq!(ran.stdout, "x\n");
        assert!(ran.stderr.contains("note: --security-opt apparmor is ignored"), "{ran:#?}");
    }
    program.run("run --security-opt colour=red box echo").refused(125, "not supported yet");
    program.run("run --cap-add NOPE box echo").refused(125, "unknown capability");
    program.run("run --gpus some box echo").refused(125, "--gpus some");
    program.run("run --device /dev/none box echo").refused(125, "/dev/none");
    program.run("run --oom-kill-disable box echo").refused(125, "--oom-kill-disable");
}
