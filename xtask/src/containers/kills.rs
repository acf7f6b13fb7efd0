//! `kill -9` of supervisors, helpers and the program itself, at random moments. Afterwards `ps` tells
//! the truth, and what is left can be removed.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::place::Place;
use crate::command::Cmd;
use crate::failure::Outcome;
use crate::leftovers;
use crate::random::Random;

/// How long what a killed command has begun may take.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a command may run before it is killed, microseconds.
const WHOLE: u64 = 40_000;

pub(super) fn hold(place: &Place, kills: u64, seed: u64) -> Outcome {
    println!("    seed {seed}");
    let mut random = Random::new(seed);
    let mut survived = 0;
    for kill in 1..=kills {
        let name = format!("k{kill}");
        let during = |failure: crate::failure::Failure| failure.during(format!("kill {kill}"));
        let run = place.run(&name).words("-p 0:80 -v kills:/data --restart on-failure:1 busybox");
        let run = run.words("sleep 1000");
        match kill % 5 {
            0 => kill_at_random(&run, &mut random)?,
            number => {
                run.output()?;
                match number {
                    1 => kill_process_of(place, "rbuild-supervisor", &mut random)?,
                    2 => kill_process_of(place, "rbuild-sandbox-helper", &mut random)?,
                    3 => kill_at_random(&place.cmd("stop").args(["-t", "0", &name]), &mut random)?,
                    _ => kill_at_random(&place.cmd("rm").args(["-f", &name]), &mut random)?,
                }
            }
        }
        let running = place.truth().map_err(during)?;
        survived += u64::from(running.contains(&name));
        comes_up(place, &name).map_err(during)?;
        place.remove_all().map_err(during)?;
        place.nothing_is_left().map_err(during)?;
    }
    println!("    {kills} kills; {survived} containers ran on, and `ps` was right about all");
    place.cmd("volume").words("prune -a -f").output().map(drop)
}

/// Whatever a container is now, it runs or can be started, or it is gone.
fn comes_up(place: &Place, name: &str) -> Outcome {
    let until = Instant::now() + SETTLE;
    loop {
        let listed = place.cmd("ps").args(["-a", "--format", "{{.Names}}"]).output()?;
        if !listed.lines().any(|listed| listed == name) || place.truth()?.contains(name) {
            return Ok(());
        }
        // Whoever was killed may have left a supervisor that is about to start it.
        let started = place.cmd("start").arg(name).output();
        if Instant::now() > until {
            started?;
        }
    }
}

/// Starts a command and kills it while it runs, or just after.
fn kill_at_random(command: &Cmd, random: &mut Random) -> Outcome {
    let mut process = command.command();
    let process = process.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = process.spawn().map_err(|error| command.not_started(&error))?;
    std::thread::sleep(Duration::from_micros(random.below(WHOLE)));
    // It may have ended; until it is waited for, its number is its own.
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// Kills the process of ours that goes by this name.
fn kill_process_of(place: &Place, name: &str, random: &mut Random) -> Outcome {
    std::thread::sleep(Duration::from_micros(random.below(WHOLE)));
    for line in leftovers::processes(&place.dir.join("bin"), "no process has this in its words") {
        let Some((number, _)) = line.split_once(' ').filter(|(_, words)| words.contains(name))
        else {
            continue;
        };
        if let Some(pid) = number.parse().ok().and_then(Pid::from_raw) {
            // It may just have ended.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}
