//! `top`, `stats`, `pause` and `unpause`.

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
