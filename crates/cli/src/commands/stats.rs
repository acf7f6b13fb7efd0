//! `rbuild stats`.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use rbuild::{BuildError, CancelToken, ContainerUsage, Engine};
use serde_json::{Value, json};

use crate::args::container::StatsArgs;
use crate::commands::{Context, ps};
use crate::failure::Failure;
use crate::listing::Listing;
use crate::table::Table;
use crate::{exit_code, human, interrupt, output};

/// Titles of the fields that a row has.
const TITLES: [(&str, &str); 9] = [
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
    ("Container", "CONTAINER"),
];
/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Between the two looks that a share of the time needs.
const SHORT: Duration = Duration::from_millis(500);
/// How often a wait looks whether it is still wanted.
const TICK: Duration = Duration::from_millis(50);

/// Shows what containers use.
pub fn run(args: &StatsArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let listing = Listing::parse(args.format.as_deref())?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = context.engine()?;
    for name in &args.containers {
        engine.container(name)?;
    }
    let live = !args.no_stream && std::io::stdout().is_terminal();
    let mut before = looks(args, &engine)?;
    loop {
        wait(if args.no_stream { SHORT } else { PERIOD }, &cancel);
        if cancel.is_cancelled() {
            return Ok(exit_code::SUCCESS);
        }
        let now = looks(args, &engine)?;
        let earlier: HashMap<&str, &Look> =
            before.iter().map(|look| (look.id.as_str(), look)).collect();
        let rows: Vec<Value> =
            now.iter().map(|look| row(look, earlier.get(look.id.as_str()), args)).collect();
        let text = match &listing {
            Some(listing) => listing.render(&TITLES, &rows)?,
            None => table(&rows),
        };
        // From the corner on, and what is left of the last one is cleared.
        let front = if live { "\x1b[H\x1b[J" } else { "" };
        output::data(format!("{front}{text}"))?;
        if args.no_stream {
            return Ok(exit_code::SUCCESS);
        }
        before = now;
    }
}

fn wait(time: Duration, cancel: &CancelToken) {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline && !cancel.is_cancelled() {
        std::thread::sleep(TICK);
    }
}

/// What was seen of a container.
struct Look {
    id: String,
    name: String,
    at: Instant,
    /// Nothing when it does not run.
    usage: Option<ContainerUsage>,
}

fn looks(args: &StatsArgs, engine: &Engine) -> Result<Vec<Look>, Failure> {
    let containers = match args.containers.is_empty() {
        false => args
            .containers
            .iter()
            // One that is gone is shown no more.
            .filter_map(|name| engine.container(name).ok())
            .collect(),
        true => engine
            .containers()?
            .into_iter()
            .filter(|(_, state)| args.all || ps::is_up(state))
            .filter_map(|(record, _)| engine.container(&record.id).ok())
            .collect::<Vec<_>>(),
    };
    let mut looks = Vec::new();
    for container in containers {
        let usage = match container.usage() {
            Ok(usage) => Some(usage),
            Err(BuildError::Conflict { .. } | BuildError::Container(_) | BuildError::Io { .. }) => {
                None
            }
            Err(error) => return Err(error.into()),
        };
        let (id, name) = (container.id().to_owned(), container.name().to_owned());
        looks.push(Look { id, name, at: Instant::now(), usage });
    }
    Ok(looks)
}

fn row(look: &Look, before: Option<&&Look>, args: &StatsArgs) -> Value {
    let used = look.usage.unwrap_or_default();
    let earlier = before.and_then(|before| Some((before.at, before.usage?.cpu)));
    let cpu = earlier.map_or(0.0, |(at, cpu)| {
        let wall = look.at.duration_since(at).as_secs_f64();
        let busy = used.cpu.saturating_sub(cpu).as_secs_f64();
        if wall <= 0.0 { 0.0 } else { 100.0 * busy / wall }
    });
    let memory = match used.memory_limit {
        0 => 0.0,
        limit => 100.0 * used.memory as f64 / limit as f64,
    };
    let pair = |a: u64, b: u64| format!("{} / {}", human::bytes(a), human::bytes(b));
    let memory_shown = [used.memory, used.memory_limit].map(human::binary_bytes).join(" / ");
    let short = look.id.get(..12).unwrap_or(&look.id);
    json!({
        "ID": if args.no_trunc { &look.id } else { short },
        "Container": if args.no_trunc { &look.id } else { short },
        "Name": look.name,
        "CPUPerc": format!("{cpu:.2}%"),
        "MemUsage": memory_shown,
        "MemPerc": format!("{memory:.2}%"),
        "NetIO": pair(used.received, used.sent),
        "BlockIO": pair(used.read, used.written),
        "PIDs": used.processes.to_string(),
    })
}

fn table(rows: &[Value]) -> String {
    let shown = &TITLES[..8];
    let mut table = Table::new(&shown.iter().map(|(_, title)| *title).collect::<Vec<_>>());
    for row in rows {
        let cells = shown.iter().map(|(field, _)| row[*field].as_str().unwrap_or_default());
        table.row(&cells.collect::<Vec<_>>());
    }
    table.render()
}
