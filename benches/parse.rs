//! From text to syntax: Dockerfiles, variables, ignore rules.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use rbuild_benches::{dockerfile, ignore_file, paths};
use rbuild_parser::expand::{Environment, expand_word};
use rbuild_parser::ignore_file::{MatchedAbove, Patterns};

/// Lines of the parsed Dockerfile.
const LINES: usize = 10_000;
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
    let text = dockerfile(LINES);
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("dockerfile of 10,000 lines", |bencher| {
        bencher.iter(|| rbuild_parser::parse(black_box(&text)));
    });
    group.finish();
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
