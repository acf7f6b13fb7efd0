//! `rbuild images`.

use rbuild::{ImageRecord, Reference};
use serde_json::{Value, json};

use crate::args::images::ImagesArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::table::Table;
use crate::template::Template;
use crate::{exit_code, human, output};

/// What stands where there is no name.
const NONE: &str = "<none>";

/// Lists images, the newest first.
pub fn run(args: &ImagesArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let mut records = context.engine()?.images()?;
    records.retain(|record| args.all || record.reference.is_some());
    if let Some(name) = &args.name {
        records.retain(|record| is_named(record, name));
    }
    records.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.reference.cmp(&b.reference)));
    let now = human::now();
    let rows: Vec<Row> = records.iter().map(|record| row(record, now, args.no_trunc)).collect();
    if let Some(template) = template {
        for row in &rows {
            output::line(&template.render(&row.document())?)?;
        }
    } else if args.json {
        let documents: Vec<Value> = rows.iter().map(Row::document).collect();
        output::line(&format!("{:#}", Value::from(documents)))?;
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

fn is_named(record: &ImageRecord, wanted: &str) -> bool {
    let (Some(name), Ok(wanted_name)) = (&record.reference, wanted.parse::<Reference>()) else {
        return false;
    };
    // `app` stands for every tag of it.
    let with_tag = wanted.rsplit('/').next().is_some_and(|last| last.contains(':'));
    name.repository() == wanted_name.repository() && (!with_tag || name.tag() == wanted_name.tag())
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
