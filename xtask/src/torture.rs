//! `cargo xtask torture`: kills builds at random moments. The next build must succeed with the
//! right content, and no mount, process, control group or temporary file may be left.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::args::Args;
use crate::command::{Cmd, ended};
use crate::failure::{Outcome, ensure, fail};
use crate::leftovers;
use crate::packages::{self, BASES};
use crate::paths;
use crate::random::Random;
use crate::rbuild::Rbuild;
use crate::service::send;

/// Kills, unless `--kills` says otherwise.
const KILLS: u64 = 200;

/// How long the kernel may take to end what belonged to a killed build.
const SETTLE: Duration = Duration::from_secs(3);

/// How long an interrupted build may take to end by itself.
const POLITE: Duration = Duration::from_secs(2);

/// Small files that a COPY step has to write, so that it takes long enough to be hit.
const FILES: u64 = 400;

/// `cargo xtask torture [--kills N] [--seed N]`.
pub(crate) fn run(args: &mut Args) -> Outcome {
    let kills = args.number("--kills")?.unwrap_or(KILLS);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let clock = clock.map_or(1, |d| u64::from(d.subsec_nanos()));
    let seed = args.number("--seed")?.unwrap_or(clock);
    args.words()?;
    if packages::is_root() {
        packages::ensure_installed(BASES)?;
    }
    let dir = paths::fresh("torture")?;
    let mut torture = Torture::prepare(&dir, seed)?;
    println!("seed {seed}; an undisturbed build takes {} ms", torture.whole.as_millis());
    torture.kill(kills)?;
    torture.interrupt(Signal::INT, 130, 5)?;
    torture.interrupt(Signal::TERM, 143, 5)?;
    println!("{}", torture.figures);
    drop(torture);
    paths::remove(&dir)
}

/// What happened, in numbers.
#[derive(Debug, Default)]
struct Figures {
    killed: u64,
    too_late: u64,
    recovered: u64,
    slowest_recovery: Duration,
    interrupted: u64,
    slowest_exit: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} builds killed, {} had ended before; {} of {} builds afterwards were right, the \
             slowest in {} ms\n{} builds interrupted, the slowest ended after {} ms\n\
             left over: 0 mounts, 0 processes, 0 control groups, 0 temporary files",
            self.killed,
            self.too_late,
            self.recovered,
            self.killed + self.too_late,
            self.slowest_recovery.as_millis(),
            self.interrupted,
            self.slowest_exit.as_millis()
        )
    }
}

struct Torture {
    rbuild: Rbuild,
    /// Holds all of this run, its own copy of the program among it.
    dir: PathBuf,
    context: PathBuf,
    /// A word in the arguments of every step and in the environment of every build, by which
    /// their processes are found.
    marker: String,
    cgroups_before: BTreeSet<PathBuf>,
    random: Random,
    round: u64,
    whole: Duration,
    figures: Figures,
}

impl Torture {
    fn prepare(dir: &Path, seed: u64) -> Outcome<Self> {
        let cgroups_before = leftovers::cgroups();
        let mut rbuild = Rbuild::release(dir.join("store"))?;
        // By its copy, a process of ours is told from any other that runs the same program.
        let copy = dir.join("rbuild");
        fs_err::copy(&rbuild.program, &copy)?;
        rbuild.program = copy;
        rbuild.build_busybox()?;
        let marker = format!("torture-{}", std::process::id());
        let context = dir.join("context");
        write_context(&context, &marker)?;
        let random = Random::new(seed);
        let mut torture = Self {
            rbuild,
            dir: dir.to_owned(),
            context,
            marker,
            cgroups_before,
            random,
            round: 0,
            whole: Duration::ZERO,
            figures: Figures::default(),
        };
        let started = Instant::now();
        torture.build_and_check()?;
        torture.whole = started.elapsed();
        torture.nothing_is_left()?;
        Ok(torture)
    }

    fn kill(&mut self, kills: u64) -> Outcome {
        for kill in 1..=kills {
            let mut child = self.start_at_random()?;
            match child.try_wait()? {
                Some(_) => self.figures.too_late += 1,
                None => {
                    child.kill()?;
                    child.wait()?;
                    self.figures.killed += 1;
                    self.no_process_is_left()?;
                }
            }
            let started = Instant::now();
            self.build_and_check().map_err(|f| f.during(format!("after kill {kill}")))?;
            self.figures.recovered += 1;
            self.figures.slowest_recovery = self.figures.slowest_recovery.max(started.elapsed());
            self.nothing_is_left().map_err(|f| f.during(format!("after kill {kill}")))?;
        }
        Ok(())
    }

    fn interrupt(&mut self, signal: Signal, code: i32, times: u64) -> Outcome {
        let mut left = times;
        while left > 0 {
            let mut child = self.start_at_random()?;
            if child.try_wait()?.is_some() {
                continue;
            }
            let started = Instant::now();
            send(&child, signal)?;
            let status = loop {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
                if started.elapsed() > POLITE {
                    child.kill()?;
                    child.wait()?;
                    return fail(format!("{signal:?} did not end a build within {POLITE:?}"));
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            if status.success() {
                // It had just ended by itself.
                continue;
            }
            let is_silent = fs_err::metadata(self.context.with_extension("log"))?.len() == 0;
            if status.signal() == Some(signal.as_raw()) && is_silent {
                // It had not begun to do anything that it would have to end.
                continue;
            }
            ensure(status.code() == Some(code), || {
                format!("after {signal:?} the build {}, not with {code}", ended(status))
            })?;
            self.figures.slowest_exit = self.figures.slowest_exit.max(started.elapsed());
            self.no_process_is_left()?;
            self.build_and_check().map_err(|f| f.during(format!("after {signal:?}")))?;
            self.nothing_is_left().map_err(|f| f.during(format!("after {signal:?}")))?;
            self.figures.interrupted += 1;
            left -= 1;
        }
        Ok(())
    }

    /// Starts a build whose every step is new, and returns after part of the time it needs.
    fn start_at_random(&mut self) -> Outcome<Child> {
        self.round += 1;
        let build = self.build();
        let log = fs_err::File::create(self.context.with_extension("log"))?.into_parts().0;
        let mut process = build.command();
        let process = process.stdout(Stdio::from(log.try_clone()?)).stderr(log);
        let child = process.spawn().map_err(|e| build.not_started(&e))?;
        let whole = u64::try_from(self.whole.as_micros()).unwrap_or(u64::MAX).max(1);
        std::thread::sleep(Duration::from_micros(self.random.below(whole)));
        Ok(child)
    }

    fn build(&self) -> Cmd {
        self.rbuild
            .cmd("build")
            .env("TORTURE", &self.marker)
            .arg("--progress=plain")
            .arg("--build-arg")
            .arg(format!("ROUND={}", self.round))
            .args(["-t", "torture"])
            .arg(&self.context)
    }

    /// The same build again, this time to its end, and its files compared.
    fn build_and_check(&self) -> Outcome {
        let file = self.context.with_extension("tar");
        let _ = fs_err::remove_file(&file);
        let output = format!("type=tar,dest={}", file.display());
        self.build().arg("-o").arg(output).output()?;
        check_content(&file, self.round)
    }

    fn no_process_is_left(&self) -> Outcome {
        let until = Instant::now() + SETTLE;
        loop {
            let left = leftovers::processes(&self.dir, &self.marker);
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                return fail(format!("processes are left: {left:#?}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn nothing_is_left(&self) -> Outcome {
        self.no_process_is_left()?;
        let mounts = leftovers::mounts_anywhere(&self.rbuild.store);
        ensure(mounts.is_empty(), || format!("mounts are left: {mounts:#?}"))?;
        let mut cgroups = leftovers::cgroups();
        cgroups.retain(|group| !self.cgroups_before.contains(group));
        ensure(cgroups.is_empty(), || format!("control groups are left: {cgroups:#?}"))?;
        let files = leftovers::entries(&self.rbuild.store.join("tmp"));
        ensure(files.is_empty(), || format!("temporary files are left: {files:#?}"))
    }
}

fn write_context(context: &Path, marker: &str) -> Outcome {
    let mut random = Random::new(7);
    for index in 0..FILES {
        let file = context.join(format!("many/d{}/f{index}", index % 9));
        if let Some(folder) = file.parent() {
            fs_err::create_dir_all(folder)?;
        }
        fs_err::write(file, random.prose(2_000))?;
    }
    let dockerfile = format!(
        "FROM busybox AS one\n\
         ARG ROUND\n\
         RUN : {marker}; echo one $ROUND > /one; sleep 0.1; echo end >> /one\n\
         COPY many /many\n\
         RUN : {marker}; find /many -type f | wc -l > /count; sleep 0.1\n\
         FROM busybox AS two\n\
         ARG ROUND\n\
         RUN : {marker}; i=0; while [ $i -lt 200 ]; do echo $ROUND > /f$i; i=$((i+1)); done\n\
         FROM busybox\n\
         ARG ROUND\n\
         COPY --from=one /one /count /out/\n\
         COPY --from=two /f0 /f199 /out/\n\
         COPY many /out/many\n\
         RUN : {marker}; sleep 0.05; cat /out/one /out/f199 > /out/all\n"
    );
    Ok(fs_err::write(context.join("Dockerfile"), dockerfile)?)
}

/// Reads the exported files and compares them with what the Dockerfile says.
fn check_content(file: &Path, round: u64) -> Outcome {
    let expected = [
        ("out/all", format!("one {round}\nend\n{round}\n")),
        ("out/count", format!("{FILES}\n")),
        ("out/f0", format!("{round}\n")),
    ];
    let (mut found, mut copied) = (0, 0);
    let mut archive = tar::Archive::new(std::io::BufReader::new(fs_err::File::open(file)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        copied += u64::from(path.starts_with("out/many/") && entry.size() == 2_000);
        if let Some((_, text)) = expected.iter().find(|(name, _)| *name == path) {
            let mut content = String::new();
            entry.read_to_string(&mut content)?;
            ensure(content == *text, || format!("/{path} holds {content:?}, not {text:?}"))?;
            found += 1;
        }
    }
    ensure(found == expected.len() && copied == FILES, || {
        format!("{found} of {} files and {copied} of {FILES} copies are there", expected.len())
    })
}
