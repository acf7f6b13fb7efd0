//! Starts and stops, again and again.

use std::time::Instant;

use super::place::Place;
use crate::failure::{Outcome, ensure};
use crate::http;

/// Serves a file of its volume.
const SERVER: [&str; 6] = ["httpd", "-f", "-p", "80", "-h", "/srv"];

pub(super) fn hold(place: &Place, cycles: u64) -> Outcome {
    place.cmd("network").words("create cycles").output()?;
    let port = http::free_port()?;
    let run = place.run("web").arg("-p").arg(format!("{port}:80"));
    let run = run.words("--network cycles -v cycles:/srv -v /anonymous --health-cmd true busybox");
    run.args(["sh", "-c", "echo 0 > /srv/count; exec \"$@\"", "sh"]).args(SERVER).output()?;
    let (mut slowest_start, mut slowest_stop) = (0, 0);
    for cycle in 1..=cycles {
        let answer = http::get_within(port, "/count", std::time::Duration::from_secs(5))?;
        ensure(answer == "0\n", || format!("cycle {cycle} answered {answer:?}"))?;
        let begun = Instant::now();
        place.cmd("stop").args(["-t", "0", "web"]).output()?;
        slowest_stop = slowest_stop.max(begun.elapsed().as_millis());
        ensure(!http::answers(port), || format!("cycle {cycle}: the port is still answered"))?;
        let begun = Instant::now();
        place.cmd("start").arg("web").output()?;
        slowest_start = slowest_start.max(begun.elapsed().as_millis());
    }
    println!("    {cycles} starts and stops; the slowest {slowest_start} and {slowest_stop} ms");
    place.remove_all()?;
    place.nothing_is_left()?;
    place.cmd("volume").words("rm cycles").output()?;
    place.cmd("network").words("rm cycles").output().map(drop)
}
