//! `cargo xtask bench`: the same build, one tool after the other, round after round.
//!
//! Rounds are interleaved, so that whatever else the machine does falls on all alike. Before each
//! run, what is in memory only goes to the disk. The first round fills caches and is not counted.
//! Medians of the others are printed with the load. No test asserts a time: the command says which
//! targets are met, and succeeds either way.

mod contestant;
mod contexts;
mod plan;
mod report;
mod served;

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use crate::args::Args;
use crate::command::Cmd;
use crate::failure::{Outcome, ensure, fail};
use crate::packages::{self, BASES, PEERS};
use crate::paths;
use crate::sys;

use contestant::{Build, Contestant};
use plan::{BENCHES, Bench, Work};
use report::{Report, Row};
use served::Served;

/// Counted rounds, unless `--runs` says otherwise.
const RUNS: u64 = 7;

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) milliseconds: f64,
    pub(crate) peak_rss: u64,
}

/// `cargo xtask bench [NAME…] [--runs N] [--peers …] [--json FILE] [--dir DIR]`. Stores are below
/// `DIR`: on a file system of its own, what others have removed lately costs nobody anything.
pub(crate) fn run(args: &mut Args) -> Outcome {
    let runs = args.number("--runs")?.unwrap_or(RUNS).max(1);
    let json = args.value("--json")?;
    let peers = args.value("--peers")?.unwrap_or_else(|| "rbuild,docker,buildah,podman".into());
    let place = args.value("--dir")?;
    let words = args.words()?;
    if words.iter().any(|w| w == "list") {
        for bench in BENCHES {
            println!("{:<8} {}", bench.name, bench.what);
        }
        return Ok(());
    }
    let chosen = choose(&words)?;
    packages::ensure_installed(&[BASES, PEERS].concat())?;
    let dir = match place {
        Some(place) => paths::fresh_in(Path::new(&place), "rbuild-bench")?,
        None => paths::fresh("bench")?,
    };
    let contestants =
        peers.split(',').map(|name| contestant::open(name, &dir)).collect::<Outcome<Vec<_>>>()?;
    let mut report = Report::new(runs, contestants.iter().map(|c| c.name()).collect());
    for bench in chosen {
        eprintln!("==> {}: {}", bench.name, bench.what);
        let row = measure(bench, &contestants, runs, &dir)?;
        report.add(row);
        for contestant in &contestants {
            contestant.forget();
        }
    }
    print!("{}", report.text());
    if let Some(file) = json {
        fs_err::write(file, report.json().to_string())?;
    }
    drop(contestants);
    // Millions of small files are nothing to keep; the next run starts from an empty store too.
    paths::remove(&dir)
}

fn choose(words: &[String]) -> Outcome<Vec<&'static Bench>> {
    if words.is_empty() {
        return Ok(BENCHES.iter().filter(|b| b.quick).collect());
    }
    if words == ["all"] {
        return Ok(BENCHES.iter().collect());
    }
    let find = |w: &String| match BENCHES.iter().find(|b| b.name == w) {
        Some(bench) => Ok(bench),
        None => fail(format!("no bench `{w}`; `cargo xtask bench list` names them, and `all`")),
    };
    words.iter().map(find).collect()
}

fn measure(
    bench: &'static Bench,
    contestants: &[Box<dyn Contestant>],
    runs: u64,
    dir: &Path,
) -> Outcome<Row> {
    let mut row = Row::new(bench, contestants.len());
    let context = match bench.context {
        Some(name) => Some(contexts::make(&dir.join("contexts"), name)?),
        None => None,
    };
    let served = match (bench.work, &context) {
        (Work::Pull, Some(context)) => Some(Served::start(context, &dir.join("served"))?),
        _ => None,
    };
    for round in 0..=runs {
        if let (Work::Edit, Some(context)) = (bench.work, &context) {
            contexts::edit(context, round)?;
        }
        for (column, contestant) in contestants.iter().enumerate() {
            let contestant = contestant.as_ref();
            let command = match &served {
                Some(served) => {
                    contestant.remove(&served.reference);
                    contestant.forget();
                    Some(contestant.pull(&served.reference))
                }
                None => prepare(bench, contestant, context.as_deref(), round)?,
            };
            let Some(command) = command else { continue };
            // Whoever syncs must not wait for what another one left in memory.
            Cmd::new("sync").output()?;
            let sample = time(&command, &dir.join("log"))?;
            eprintln!("    round {round} {:<8} {:>9.1} ms", contestant.name(), sample.milliseconds);
            if round > 0 {
                row.samples[column].push(sample);
            }
        }
    }
    Ok(row)
}

/// The command to time, after everything that is not to be timed.
fn prepare(
    bench: &Bench,
    contestant: &dyn Contestant,
    context: Option<&Path>,
    round: u64,
) -> Outcome<Option<Cmd>> {
    let Some(context) = context else {
        return Ok(match bench.work {
            Work::Version => Some(contestant.version()),
            Work::Container(network) => contestant.container(network)?,
            _ => None,
        });
    };
    let nonce = match bench.work {
        Work::Cold => format!("{}-{round}", contestant.name()),
        _ => "same".to_owned(),
    };
    let dockerfile = contexts::dockerfile(context, contestant.name(), &nonce)?;
    let build = Build { context, dockerfile: &dockerfile, tag: bench.name };
    match bench.work {
        Work::Check => return Ok(contestant.check(&build)),
        Work::Stages => return Ok(contestant.stages(&build)),
        _ => {}
    }
    if let Work::Export(codec) = bench.work {
        if contestant.build(&build).is_some_and(|b| round == 0 && b.output().is_err()) {
            return fail(format!("{} did not build {}", contestant.name(), bench.name));
        }
        let file = context.with_extension(format!("{}.tar", contestant.name()));
        let _ = fs_err::remove_file(&file);
        contestant.forget_exports();
        return Ok(contestant.export(&build, &file, codec));
    }
    if let Work::Cold = bench.work {
        contestant.remove(bench.name);
    }
    Ok(contestant.build(&build))
}

/// Runs it with its output in `log`; a run that fails is no measurement.
fn time(command: &Cmd, log: &Path) -> Outcome<Sample> {
    let output = fs_err::File::create(log)?.into_parts().0;
    let mut process = command.command();
    process.stdout(Stdio::from(output.try_clone()?)).stderr(output);
    let started = Instant::now();
    let child = process.spawn().map_err(|e| command.not_started(&e))?;
    let ended = sys::wait(child)?;
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    ensure(ended.status.success(), || {
        let said = fs_err::read_to_string(log).unwrap_or_default();
        format!("{command} {}\n{said}", crate::command::ended(ended.status))
    })?;
    Ok(Sample { milliseconds, peak_rss: ended.peak_rss })
}
