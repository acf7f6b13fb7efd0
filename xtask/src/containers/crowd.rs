//! Many containers at once, and what they cost besides their own processes.

use std::time::Instant;

use super::place::Place;
use crate::failure::{Outcome, ensure};
use crate::leftovers;

/// What a hundred may cost, bytes.
const LIMIT: u64 = 1536 << 20;
/// What a supervisor may have in memory, bytes.
const SUPERVISOR: u64 = 10 << 20;

pub(super) fn hold(place: &Place, crowd: u64) -> Outcome {
    let begun = Instant::now();
    for number in 0..crowd {
        place.run(&format!("crowd{number}")).words("busybox sleep 1000").output()?;
    }
    let running = u64::try_from(place.truth()?.len()).unwrap_or(0);
    ensure(running == crowd, || format!("{running} of {crowd} run"))?;
    println!("    {crowd} containers started in {} ms", begun.elapsed().as_millis());
    let (mut sum, mut largest, mut count) = (0, 0, 0);
    for process in leftovers::memory(&place.dir.join("bin")) {
        sum += process.proportional;
        count += 1;
        if process.name == "rbuild-supervisor" {
            largest = largest.max(process.resident);
        }
    }
    println!(
        "    {count} processes of ours hold {} MiB; the largest supervisor {} KiB",
        sum >> 20,
        largest >> 10
    );
    ensure(sum * 100 / crowd.max(1) < LIMIT, || "that is too much".into())?;
    ensure(largest > 0 && largest < SUPERVISOR, || "a supervisor is too large".into())?;
    let begun = Instant::now();
    place.remove_all()?;
    println!("    removed in {} ms", begun.elapsed().as_millis());
    Ok(())
}
