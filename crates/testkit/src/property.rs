//! Properties that hold for any input: tried on a thousand inputs by `cargo test`, and on as many
//! as fit into a number of seconds by `cargo xtask fuzz`, which sets two variables:
//!
//! * `RBUILD_FUZZ_SECONDS`: how long each property is tried.
//! * `RBUILD_FUZZ_SEED`: where the inputs come from, 0 without it; the same number gives the same
//!   inputs, so that a test that passed does not fail by chance.

#![allow(clippy::print_stdout, reason = "a part of tests: they say how much they tried")]

use std::cell::Cell;
use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use rustix::time::{ClockId, clock_gettime};

/// Inputs of one property, unless seconds are given.
const INPUTS: u32 = 1000;

/// Inputs between two looks at the clock.
const ROUND: u32 = 250;

/// An input that takes longer is a hang.
const LONGEST: Duration = Duration::from_secs(5);

/// More memory than any input may make the process use, in MiB.
const MEMORY: u64 = 512;

/// Tries `property`, which panics where it does not hold, on inputs of `strategy`.
///
/// # Panics
///
/// When it does not hold of an input, takes very long for one, or the process becomes very large.
/// The message has the smallest such input that was found.
pub fn holds<S: Strategy>(name: &str, strategy: &S, property: impl Fn(S::Value)) {
    let seconds = number("RBUILD_FUZZ_SECONDS").map(Duration::from_secs);
    let seed = number("RBUILD_FUZZ_SEED").unwrap_or_default();
    let (started, mut rounds) = (Instant::now(), 0);
    let (tried, slowest) = (Cell::new(0_u64), Cell::new(Duration::ZERO));
    loop {
        let config = Config { cases: ROUND, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, random(seed, rounds));
        let result = runner.run(strategy, |input| {
            let before = Instant::now();
            property(input);
            let took = before.elapsed();
            tried.set(tried.get() + 1);
            slowest.set(slowest.get().max(took));
            match took > LONGEST {
                true => Err(TestCaseError::fail(format!("took {took:?}"))),
                false => Ok(()),
            }
        });
        if let Err(error) = result {
            panic!("{name}: {error}\nTry again with RBUILD_FUZZ_SEED={seed}");
        }
        rounds += 1;
        let is_enough = match seconds {
            Some(seconds) => started.elapsed() >= seconds,
            None => rounds >= u64::from(INPUTS / ROUND),
        };
        if is_enough {
            break;
        }
    }
    let (tried, slowest, memory) = (tried.get(), slowest.get(), peak_memory());
    println!("{name}: {tried} inputs, slowest {slowest:.1?}, peak {memory} MiB, seed {seed}");
    assert!(memory < MEMORY, "{name}: the process became {memory} MiB large");
}

/// Four times the input may take eight times the work: what grows with the square takes sixteen.
const GROWTH: f64 = 8.0;

/// Processor time of the larger input below which nothing can be said, and need not.
const SMALL: Duration = Duration::from_millis(4);

/// Takes an input of `size` and one of four times that, and compares the processor time that `run`
/// takes for them. Another process makes both dearer, but seldom the larger one alone: several
/// attempts settle it.
///
/// # Panics
///
/// When no attempt shows that the time grows about as the input does.
pub fn grows_with_its_input(
    name: &str,
    size: usize,
    make: impl Fn(usize) -> String,
    run: impl Fn(&str),
) {
    let cost = |input: &str| {
        let before = processor_time();
        run(input);
        processor_time() - before
    };
    let (small, large) = (make(size), make(size * 4));
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        let (one, four) = (cost(&small), cost(&large));
        if four < SMALL {
            return;
        }
        least = least.min(four.as_secs_f64() / one.as_secs_f64().max(1e-9));
        if least < GROWTH {
            return;
        }
    }
    panic!("{name}: four times the input takes {least:.1} times the work");
}

fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

fn random(seed: u64, round: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&round.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// The most memory that this process ever had, in MiB.
fn peak_memory() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panics(run: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let caught = std::panic::catch_unwind(run).unwrap_err();
        caught.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    #[test]
    fn what_does_not_hold_is_found_and_made_small() {
        let said = panics(|| holds("below ten", &(0..1000_u32), |number| assert!(number < 10)));
        assert!(said.contains("below ten") && said.contains("minimal failing input: 10"));
        holds("below a thousand", &(0..1000_u32), |number| assert!(number < 1000));
    }

    #[test]
    fn what_grows_with_the_square_is_told_from_what_does_not() {
        let make = |size| "x".repeat(size);
        grows_with_its_input("a sum", 50_000, make, |text| {
            assert!(text.bytes().map(u64::from).sum::<u64>() > 0);
        });
        let said = panics(|| {
            grows_with_its_input("pairs", 500, make, |text| {
                let pairs = text.bytes().flat_map(|one| text.bytes().map(move |two| one ^ two));
                assert_eq!(pairs.map(u64::from).sum::<u64>(), 0);
            });
        });
        assert!(said.contains("pairs: four times the input takes 1"), "{said}");
    }
}
