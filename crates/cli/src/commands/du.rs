//! `rbuild du`.

use rbuild::Class;
use serde_json::json;

use crate::args::prune::DuArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::listing::Listing;
use crate::table::Table;
use crate::{exit_code, human, output};

/// Shows what takes space.
pub fn run(args: &DuArgs, context: &Context<'_>) -> Result<i32, Failure> {
    args.other.settle()?;
    let listing = Listing::parse(args.format.as_deref())?;
    let engine = context.engine()?;
    if args.verbose {
        let mut rows = engine.rows()?;
        rows.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
        let titles =
            ["ID", "CLASS", "KIND", "SIZE", "CREATED", "LAST USED", "IN USE", "DESCRIPTION"];
        let mut table = Table::new(&titles);
        let now = human::now();
        for row in &rows {
            let id: String = row.id.trim_start_matches("sha256:").chars().take(12).collect();
            let class = match row.class {
                Class::Snapshot => "snapshot",
                Class::Record => "record",
                Class::Blob => "blob",
            };
            table.row(&[
                &id,
                class,
                &row.kind,
                &human::bytes(row.size),
                &human::ago(row.created, now),
                &human::ago(row.last_used, now),
                if row.in_use { "yes" } else { "no" },
                &console::truncate_str(&row.description, 60, "…"),
            ]);
        }
        output::data(table.render())?;
        output::line("")?;
    }
    let usage = engine.usage()?;
    let lines = [
        ("images: trees", usage.image_snapshots),
        ("images: blobs", usage.image_blobs),
        ("cache: trees", usage.other_snapshots),
        ("cache: blobs", usage.other_blobs),
        ("index", usage.records),
        ("logs", usage.logs),
        ("volumes", usage.volumes),
        ("containers", usage.containers),
        ("temporary", usage.temporary),
        ("total", usage.total),
    ];
    if let Some(listing) = listing {
        let rows = lines.map(
            |(what, bytes)| json!({ "What": what, "Size": human::bytes(bytes), "Bytes": bytes }),
        );
        let titles = [("What", "WHAT"), ("Size", "SIZE"), ("Bytes", "BYTES")];
        output::data(listing.render(&titles, &rows)?)?;
        return Ok(exit_code::SUCCESS);
    }
    let mut table = Table::new(&["WHAT", "SIZE"]);
    for (what, bytes) in lines {
        table.row(&[what, &human::bytes(bytes)]);
    }
    output::data(table.render())?;
    Ok(exit_code::SUCCESS)
}
