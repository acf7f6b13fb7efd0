//! The part of `rbuild logs` that shows what steps wrote.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use rbuild::{Engine, PastStep};

use crate::args::container::LogsArgs;
use crate::failure::Failure;
use crate::progress::lines::Lines;
use crate::{exit_code, output};

/// How often a step that runs is looked at for more.
const LOOK: Duration = Duration::from_millis(100);

/// Prints all that a step wrote, both outputs in the order in which it came; to a terminal as
/// progress shows it, without what the terminal would obey.
pub fn print(args: &LogsArgs, engine: &Engine, step: &PastStep) -> Result<i32, Failure> {
    let chosen = args.tail != "all" || args.since.is_some() || args.until.is_some();
    if chosen || args.timestamps {
        return Err(Failure::usage_hint(
            "the log of a step is shown whole, and its lines have no times",
            "leave --tail, --since, --until and --timestamps out; there is tail(1)",
        ));
    }
    let mut log = engine.step_log(step)?;
    let mut lines = std::io::stdout().is_terminal().then(Lines::default);
    loop {
        // In this order: what it wrote before it ended is there once it is known to have ended.
        let runs = args.follow && engine.build_runs(&step.build.id)?;
        if log.is_none() {
            log = engine.step_log(step)?;
        }
        if let Some(log) = &mut log {
            let mut bytes = vec![0; 64 << 10];
            loop {
                let count =
                    log.read(&mut bytes).map_err(Failure::io("read the log of the step"))?;
                if count == 0 {
                    break;
                }
                match &mut lines {
                    None => output::data(&bytes[..count])?,
                    Some(lines) => {
                        let mut shown = String::new();
                        lines.push(&bytes[..count], |line| add_tame(&mut shown, line));
                        output::data(shown)?;
                    }
                }
            }
        }
        if !runs {
            if let Some(lines) = &mut lines {
                let mut shown = String::new();
                lines.finish(|line| add_tame(&mut shown, line));
                output::data(shown)?;
            }
            // One that ran and wrote nothing has none; of others it is not known.
            if log.is_none() && step.step.log.is_some() {
                output::note("nothing is there: it wrote nothing yet, or its log was pruned");
            }
            return Ok(exit_code::SUCCESS);
        }
        std::thread::sleep(LOOK);
    }
}

fn add_tame(shown: &mut String, line: &[u8]) {
    shown.push_str(&output::tame(&String::from_utf8_lossy(line), output::colours()));
    shown.push('\n');
}
