//! `top`, `stats`, `pause`, `unpause` and `events`.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::containers::program;

#[test]
fn a_container_is_watched_and_held() {
    let Some(program) = program() else { return };
    let line = |line: &str| program.run(line).good().stdout;
    line("run -d --name web box sleep 1000");
    let top = line("top web -o pid,user,args");
    let lines: Vec<&str> = top.lines().collect();
    assert!(lines[0].starts_with("PID") && lines[0].ends_with("COMMAND"), "{top}");
    assert!(lines.len() == 2 && lines[1].ends_with("sleep 1000"), "{top}");
    assert!(line("top web").starts_with("UID"), "{top}");
    program.run("top web aux").refused(1, "top: aux is not supported yet");
    let stats = line("stats --no-stream");
    assert!(stats.lines().nth(1).is_some_and(|row| row.contains("web")), "{stats}");
    let words = ["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "web"];
    assert_eq!(program.run_words(&words).good().stdout, "web 1\n");
    assert_eq!(line("pause web"), "web\n");
    let status = || {
        let words = ["ps", "--format", "{{.State}} {{.Status}}"];
        program.run_words(&words).good().stdout
    };
    assert!(status().starts_with("paused Up ") && status().ends_with("(Paused)\n"), "{}", status());
    let words = ["inspect", "--format", "{{.State.Paused}} {{.State.Status}}", "web"];
    assert_eq!(program.run_words(&words).good().stdout, "true paused\n");
    assert_eq!(line("ps -q --filter status=paused").lines().count(), 1);
    program.run("pause web").refused(1, "container web: it is paused already");
    program.run("exec web true").refused(125, "is paused");
    assert_eq!(line("container unpause web"), "web\n");
    assert!(status().starts_with("running Up "), "{}", status());
    line("pause web");
    line("rm -f web");
    program.run("stats --no-stream none").refused(1, "no such container: none");
}

#[test]
fn a_killed_commit_leaves_nothing_paused() {
    let Some(program) = program() else { return };
    // So large that there is time to kill it.
    let script = "busybox dd if=/dev/zero of=/big bs=1 count=1 seek=400000000; sleep 1000";
    program.run_words(&["run", "-d", "--name", "app", "box", "sh", "-c", script]).good();
    let until = |what: &str, is: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is() {
            assert!(Instant::now() < deadline, "no {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    until("file", &|| program.run("diff app").good().stdout.contains("/big"));
    let container = fs_err::read_dir(program.store().join("containers")).unwrap().next().unwrap();
    let state = container.unwrap().path().join("state.json");
    let is_paused = || fs_err::read_to_string(&state).unwrap().contains("\"paused\":true");
    let mut commit = program.start("commit app made", &[]);
    until("pause", &is_paused);
    commit.kill().unwrap();
    commit.wait().unwrap();
    until("end of the pause", &|| !is_paused());
    assert_eq!(program.run("inspect made").code, 1);
    program.run("rm -f app").good();
}

#[test]
fn events_are_shown_and_chosen() {
    let Some(program) = program() else { return };
    let line = |line: &str| program.run(line).good().stdout;
    let mut following = program.start("events --filter type=container --filter event=die", &[]);
    line("volume create data");
    line("run --name web -l a=b box echo x");
    line("rm web");
    let words = ["events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}}"];
    let shown = program.run_words(&words).good().stdout;
    let expected = [
        "volume create",
        "container create",
        "container start",
        "container die",
        "container destroy",
    ];
    let shown: Vec<&str> = shown.lines().filter(|line| !line.starts_with("image")).collect();
    assert_eq!(shown, expected);
    let shown = line("events --since 1h --until 0s --filter event=die --filter label=a=b");
    let end = "(a=b, exitCode=0, image=box, name=web)\n";
    assert!(shown.contains(" container die ") && shown.ends_with(end), "{shown}");
    let json = line("events --since 1h --until 0s --filter volume=data --format json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (json["Action"].as_str(), json["Actor"]["ID"].as_str()),
        (Some("create"), Some("data"))
    );
    program.run("events --filter daemon=x").refused(1, "daemon");
    program.run("events --since yesterday").refused(1, "not a time");
    // What follows sees it too.
    let mut first = String::new();
    let mut output = BufReader::new(following.stdout.take().unwrap());
    output.read_line(&mut first).unwrap();
    assert!(first.contains(" container die ") && first.ends_with(end), "{first}");
    kill_process(Pid::from_child(&following), Signal::TERM).unwrap();
    following.wait().unwrap();
}
