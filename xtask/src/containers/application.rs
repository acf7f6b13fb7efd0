//! The line of every tutorial: an image of a web application, run in the background with a
//! published port.

use std::time::Duration;

use super::place::Place;
use crate::acceptance::{copy_example, proxies};
use crate::command::Cmd;
use crate::failure::{Outcome, ensure};
use crate::http;
use crate::neighbour::Neighbour;

/// How long Python may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 5000;
/// As it is typed.
const LINE: &str =
    "rbuild -t docker_flask:latest . && rbuild run -d -p 5000:5000 docker_flask:latest";

/// Builds the image, so that the line's own build finds all of it in the cache.
pub(super) fn prepare(place: &Place) -> Outcome {
    place.load_python()?;
    let context = place.dir.join("flask");
    copy_example(&context)?;
    let build = place.cmd("build").words("-q -t docker_flask:latest").args(proxies());
    build.arg(".").dir(context).output().map(drop)
}

pub(super) fn hold(place: &Place) -> Outcome {
    println!("    {LINE}");
    let path = std::env::var("PATH").unwrap_or_default();
    let line = Cmd::new("sh")
        .args(["-c", LINE])
        .dir(place.dir.join("flask"))
        .env("RBUILD_ROOT", &place.rbuild.store)
        .env("PATH", format!("{}:{path}", place.dir.join("bin").display()));
    let said = line.output()?;
    let Some(id) = said.lines().last().filter(|id| id.len() == 64) else {
        return crate::failure::fail(format!("the last line is no id: {said:?}"));
    };
    let greeting = "Hello from Flask";
    let answered = http::get_within(PORT, "/", PATIENCE)?;
    ensure(answered == greeting, || format!("127.0.0.1:{PORT} answered {answered:?}"))?;
    let url = |host: &str| format!("http://{host}:{PORT}/");
    let wget = |url: String| Cmd::new("busybox").args(["wget", "-q", "-O", "-"]).arg(url);
    let here = wget(url("[::1]")).output()?;
    ensure(here == greeting, || format!("[::1]:{PORT} answered {here:?}"))?;
    let neighbour = Neighbour::new()?;
    let there = neighbour.cmd(&wget(url(&neighbour.host().to_string()))).output()?;
    ensure(there == greeting, || format!("the neighbour was answered {there:?}"))?;
    println!("    answered on 127.0.0.1, on [::1] and to another network namespace");

    // Prefixes of ids and names mean the same everywhere.
    let short = id.get(..12).unwrap_or(id);
    // A line for each page, with who asked for it; it may come after the page.
    place.logs(short, &format!("{} - - [", neighbour.address()))?;
    let exec = place.cmd("exec").args([short, "python", "-c", "import flask; print(6 * 7)"]);
    let answer = exec.output()?;
    ensure(answer == "42\n", || format!("{exec} said {answer:?}"))?;
    let taken = place.cmd("run").args(["-d", "-p", "5000:5000", "docker_flask"]).capture()?;
    let why = String::from_utf8_lossy(&taken.stderr).into_owned();
    ensure(taken.status.code() == Some(125) && why.contains("5000"), || {
        format!("a second one on the same port: {why:?}")
    })?;
    place.cmd("stop").args(["-t", "1", short]).output()?;
    ensure(!http::answers(PORT), || format!("port {PORT} is answered after `rbuild stop`"))?;
    place.cmd("start").arg(short).output()?;
    http::get_within(PORT, "/", PATIENCE)?;
    place.cmd("stop").args(["-t", "1", short]).output()?;
    println!("    logs, exec, stop, start and rm did what they do elsewhere");
    place.remove_all()
}
