//! From text to syntax: Dockerfiles, variables, ignore rules.

#![allow(clippy::print_stdout, reason = "a bench talks")]

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use rbuild_benches::{dockerfile, ignore_file, paths};
use rbuild_parser::expand::{Environment, expand_word};
use rbuild_parser::ignore_file::{MatchedAbove, Patterns};

/// Lines of the parsed Dockerfiles: the time for each must be in proportion.
const LINES: [usize; 3] = [10_000, 20_000, 40_000];
/// Rules of the ignore file.
const RULES: usize = 50;
/// Paths that are judged.
const PATHS: usize = 10_000;

struct Variables;

impl Environment for Variables {
    fn get(&self, name: &str) -> Option<&str> {
        match name {
            "NAME" => Some("application"),
            "VERSION" => Some("1.2.3-beta"),
            "PATH" => Some("/usr/local/bin:/usr/bin:/bin"),
            _ => None,
        }
    }
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let mut per_line = Vec::new();
    for lines in LINES {
        let text = dockerfile(lines);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("dockerfile of {lines} lines"), |bencher| {
            bencher.iter(|| rbuild_parser::parse(black_box(&text)));
        });
        per_line.push(nanoseconds(|| drop(rbuild_parser::parse(&text))) / lines as f64);
    }
    group.finish();
    let per_line: Vec<String> = per_line.iter().map(|one| format!("{one:.0} ns")).collect();
    println!("processor time for a line of {LINES:?}: {}", per_line.join(", "));
}

/// The least time on a processor of several runs: other processes do not count.
fn nanoseconds(run: impl Fn()) -> f64 {
    let on_processor = || -> f64 {
        let text = fs_err::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        text.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or_default()
    };
    let time = |_| {
        let before = on_processor();
        run();
        on_processor() - before
    };
    (0..15).map(time).fold(f64::INFINITY, f64::min)
}

fn expand(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("expand");
    let words = [
        ("plain", "/usr/share/doc/readme.txt"),
        ("one name", "/opt/$NAME/bin"),
        ("defaults", "${NAME:-none}-${MISSING:-${VERSION:+released}}"),
        ("patterns", "${VERSION%%-*}/${PATH//bin/sbin}/${NAME#app}"),
    ];
    for (name, word) in words {
        group.bench_function(name, |bencher| {
            bencher.iter(|| expand_word(black_box(word), '\\', &Variables));
        });
    }
    group.finish();
}

fn ignore(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ignore");
    let (patterns, _) = Patterns::parse(&ignore_file(RULES));
    let paths = paths(PATHS);
    group.throughput(Throughput::Elements(PATHS as u64));
    group.bench_function("10,000 paths, 50 rules, each alone", |bencher| {
        bencher.iter(|| paths.iter().filter(|path| patterns.matches(path).excluded).count());
    });
    // As a walker asks: the directories' answers are at hand.
    let above = MatchedAbove::default();
    group.bench_function("10,000 paths, 50 rules, coming down", |bencher| {
        bencher.iter(|| {
            let judge = |path: &&String| patterns.matches_below(path, &above).0.excluded;
            paths.iter().filter(judge).count()
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    parse(&mut criterion);
    expand(&mut criterion);
    ignore(&mut criterion);
    criterion.final_summary();
}
