//! `rbuild du`.

use crate::args::prune::{DuArgs, row_filter};
use crate::commands::{Context, rows};
use crate::failure::Failure;
use crate::listing::Listing;
use crate::table::Table;
use crate::{exit_code, human, output};

/// Shows what takes space: the parts of the cache, and then, unless some of them were chosen, the
/// whole store by classes.
pub fn run(args: &DuArgs, context: &Context<'_>) -> Result<i32, Failure> {
    args.other.settle()?;
    let listing = Listing::parse(args.format.as_deref())?;
    let now = human::now();
    let filter = row_filter(&args.filter, now)?;
    let usage = context.engine()?.usage()?;
    let mut shown = usage.rows;
    shown.retain(|row| filter.takes(row));
    shown.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    if let Some(listing) = listing {
        let documents: Vec<_> = shown.iter().map(|row| rows::document(row, now)).collect();
        output::data(listing.render(&rows::TITLES, &documents)?)?;
        return Ok(exit_code::SUCCESS);
    }
    if args.verbose {
        output::data(rows::blocks(&shown, now))?;
    } else if !shown.is_empty() {
        output::data(rows::table(&shown, now))?;
        output::line("")?;
    }
    let reclaimable = shown.iter().filter(|row| !row.in_use).map(|row| row.size).sum();
    if !filter.is_empty() {
        let total = shown.iter().map(|row| row.size).sum();
        output::data(sums(&[("reclaimable", reclaimable), ("total", total)]))?;
        return Ok(exit_code::SUCCESS);
    }
    output::data(sums(&[
        ("images: trees", usage.image_snapshots),
        ("images: blobs", usage.image_blobs),
        ("cache: trees", usage.other_snapshots),
        ("cache: blobs", usage.other_blobs),
        ("cache mounts", usage.caches),
        ("volumes", usage.volumes),
        ("containers", usage.containers),
        ("logs", usage.logs),
        ("index", usage.index),
        ("temporary", usage.temporary),
        ("other", usage.other),
        ("reclaimable", reclaimable),
        ("total", usage.total),
    ]))?;
    Ok(exit_code::SUCCESS)
}

fn sums(lines: &[(&str, u64)]) -> String {
    let mut table = Table::new(&["WHAT", "SIZE"]);
    for (what, bytes) in lines {
        table.row(&[what, &human::bytes(*bytes)]);
    }
    table.render()
}
