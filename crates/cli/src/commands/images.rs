//! `rbuild images`.

use rbuild::{Engine, ImageRecord, Reference};
use serde_json::{Value, json};

use crate::args::filter::{self, ImageFilters};
use crate::args::images::ImagesArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::listing::Listing;
use crate::table::Table;
use crate::{exit_code, human, output};

/// What stands where there is no name.
const NONE: &str = "<none>";

/// Titles of the fields that a row has.
const TITLES: [(&str, &str); 8] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Bytes", "BYTES"),
];

/// Lists images, the newest first.
pub fn run(args: &ImagesArgs, context: &Context<'_>) -> Result<i32, Failure> {
    args.other.settle()?;
    let listing = Listing::parse(args.format.as_deref())?;
    let now = human::now();
    let filters = ImageFilters::parse(&args.filter, now)?;
    let engine = context.engine()?;
    let mut records = engine.images()?;
    let nameless = args.all || filters.dangling == Some(true);
    records.retain(|record| (nameless || record.reference.is_some()) && filters.take(record));
    keep_by_others(&mut records, &filters, &engine)?;
    if let Some(name) = &args.name {
        records.retain(|record| is_named(&engine, record, name));
    }
    records.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.reference.cmp(&b.reference)));
    let rows: Vec<Row> = records.iter().map(|record| row(record, now, args.no_trunc)).collect();
    let documents = || rows.iter().map(Row::document).collect::<Vec<Value>>();
    if let Some(listing) = listing {
        output::data(listing.render(&TITLES, &documents())?)?;
    } else if args.json {
        output::json(&Value::from(documents()))?;
    } else if args.quiet {
        // An image with several names is one image.
        let mut seen = std::collections::BTreeSet::new();
        for row in rows.iter().filter(|row| seen.insert(&row.id)) {
            output::line(&row.id)?;
        }
    } else {
        output::data(table(&rows, args.digests))?;
    }
    Ok(exit_code::SUCCESS)
}

/// Filters that ask about other images, or for what is inside.
fn keep_by_others(
    records: &mut Vec<ImageRecord>,
    filters: &ImageFilters,
    engine: &Engine,
) -> Result<(), Failure> {
    if let Some(name) = &filters.before {
        let created = engine.find_image(name)?.created;
        records.retain(|record| record.created < created);
    }
    if let Some(name) = &filters.since {
        let created = engine.find_image(name)?.created;
        records.retain(|record| record.created > created);
    }
    if !filters.labels.is_empty() {
        let mut kept = Vec::new();
        for record in std::mem::take(records) {
            let details = engine.image_config(&record.image_id.to_string())?;
            let labels = details.config.config.labels;
            let has = |(name, wanted): &(String, Option<String>)| match (labels.get(name), wanted) {
                (found, None) => found.is_some(),
                (found, wanted) => found == wanted.as_ref(),
            };
            if filters.labels.iter().all(has) {
                kept.push(record);
            }
        }
        *records = kept;
    }
    Ok(())
}

struct Row {
    repository: String,
    tag: String,
    digest: String,
    id: String,
    created_since: String,
    created_at: String,
    size: String,
    bytes: u64,
}

impl Row {
    fn document(&self) -> Value {
        json!({
            "Repository": self.repository,
            "Tag": self.tag,
            "Digest": self.digest,
            "ID": self.id,
            "CreatedSince": self.created_since,
            "CreatedAt": self.created_at,
            "Size": self.size,
            "Bytes": self.bytes,
        })
    }
}

fn row(record: &ImageRecord, now: i64, whole: bool) -> Row {
    let name = record.reference.as_ref();
    Row {
        repository: name.map_or(NONE.to_owned(), Reference::familiar_name),
        tag: name.and_then(Reference::tag).unwrap_or(NONE).to_owned(),
        digest: record.manifest_digest.to_string(),
        id: if whole { record.image_id.to_string() } else { record.image_id.short() },
        created_since: human::ago(record.created, now),
        created_at: human::timestamp(record.created),
        size: human::bytes(record.size),
        bytes: record.size,
    }
}

fn is_named(engine: &Engine, record: &ImageRecord, wanted: &str) -> bool {
    let Some(name) = &record.reference else { return false };
    let Ok(wanted_name) = engine.reference(wanted) else {
        return filter::is_like(name, wanted);
    };
    // `app` stands for every tag of it.
    let is_exact = Reference::is_exact(wanted);
    name.repository() == wanted_name.repository() && (!is_exact || name.tag() == wanted_name.tag())
}

fn table(rows: &[Row], digests: bool) -> String {
    let mut titles = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if digests {
        titles.insert(2, "DIGEST");
    }
    let mut table = Table::new(&titles);
    for row in rows {
        let mut cells =
            vec![row.repository.as_str(), &row.tag, &row.id, &row.created_since, &row.size];
        if digests {
            cells.insert(2, &row.digest);
        }
        table.row(&cells);
    }
    table.render()
}
