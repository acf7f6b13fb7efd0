//! `rbuild history`.

use rbuild::HistoryLine;
use serde_json::{Value, json};

use crate::args::images::HistoryArgs;
use crate::args::transfer;
use crate::commands::Context;
use crate::failure::Failure;
use crate::listing::Listing;
use crate::table::Table;
use crate::{exit_code, human, output};

/// Columns that an instruction gets, as in Docker.
const INSTRUCTION: usize = 45;
/// What stands for the id of a layer, which is no image of its own.
const MISSING: &str = "<missing>";

/// Shows how an image was made, the last instruction first.
pub fn run(args: &HistoryArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let listing = Listing::parse(args.format.as_deref())?;
    let engine = context.engine()?;
    let lines = match transfer::platform(args.platform.as_deref())? {
        Some(platform) => engine.history_for(&args.image, &platform)?,
        None => engine.history(&args.image)?,
    };
    let id = engine.image_config(&args.image)?.id;
    let id = if args.no_trunc { id.to_string() } else { id.short() };
    let ids = std::iter::once(id.as_str()).chain(std::iter::repeat(MISSING));
    let now = human::now();
    let rows: Vec<Row> = lines.iter().zip(ids).map(|(line, id)| row(line, id, now, args)).collect();
    let since = if args.human { "CREATED" } else { "CREATED AT" };
    if let Some(listing) = listing {
        let titles = [
            ("ID", "IMAGE"),
            ("CreatedSince", since),
            ("CreatedAt", "CREATED AT"),
            ("CreatedBy", "CREATED BY"),
            ("Size", "SIZE"),
            ("Comment", "COMMENT"),
        ];
        let documents: Vec<Value> = rows.iter().map(Row::document).collect();
        output::data(listing.render(&titles, &documents)?)?;
    } else if args.quiet {
        for row in &rows {
            output::line(row.id)?;
        }
    } else {
        let mut table = Table::new(&["IMAGE", since, "CREATED BY", "SIZE", "COMMENT"]);
        for row in &rows {
            table.row(&[row.id, &row.since, &row.created_by, &row.size, row.comment]);
        }
        output::data(table.render())?;
    }
    Ok(exit_code::SUCCESS)
}

struct Row<'a> {
    id: &'a str,
    since: String,
    created: &'a str,
    created_by: String,
    size: String,
    comment: &'a str,
}

impl Row<'_> {
    fn document(&self) -> Value {
        json!({
            "ID": self.id,
            "CreatedSince": self.since,
            "CreatedAt": self.created,
            "CreatedBy": self.created_by,
            "Size": self.size,
            "Comment": self.comment,
        })
    }
}

fn row<'a>(line: &'a HistoryLine, id: &'a str, now: i64, args: &HistoryArgs) -> Row<'a> {
    let created = line.created.as_deref().unwrap_or_default();
    let since = match args.human {
        true => human::parse_rfc3339(created).map(|millis| human::ago(millis, now)),
        false => line.created.clone(),
    };
    let columns = (!args.no_trunc).then_some(INSTRUCTION);
    let created_by = output::instruction(&line.created_by, columns);
    Row {
        id,
        since: since.unwrap_or_else(|| "N/A".to_owned()),
        created,
        created_by,
        size: if args.human { human::bytes(line.size) } else { line.size.to_string() },
        comment: &line.comment,
    }
}
