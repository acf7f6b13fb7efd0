//! Parts of the cache as `docker buildx du` shows them, for `du` and `prune`.

use rbuild::{Class, Row};
use serde_json::{Value, json};

use crate::human;
use crate::table::Table;

/// Titles of the fields that a row has.
pub const TITLES: [(&str, &str); 14] = [
    ("ID", "ID"),
    ("Parents", "PARENTS"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Mutable", "MUTABLE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Shared", "SHARED"),
    ("Size", "SIZE"),
    ("Bytes", "BYTES"),
    ("Description", "DESCRIPTION"),
    ("LastUsedAt", "LAST USED AT"),
    ("LastUsedSince", "LAST ACCESSED"),
    ("Type", "TYPE"),
    ("Class", "CLASS"),
];

/// The fields of a row.
pub fn document(row: &Row, now: i64) -> Value {
    json!({
        "ID": row.id,
        "Parents": row.parents,
        "CreatedAt": human::timestamp(row.created),
        "CreatedSince": human::ago(row.created, now),
        "Mutable": row.is_mutable(),
        "Reclaimable": !row.in_use,
        "Shared": row.shared,
        "Size": human::bytes(row.size),
        "Bytes": row.size,
        "Description": row.description,
        "LastUsedAt": human::timestamp(row.last_used),
        "LastUsedSince": human::ago(row.last_used, now),
        "Type": row.buildkit_type(),
        "Class": class(row.class),
    })
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Snapshot => "snapshot",
        Class::Record => "record",
        Class::Blob => "blob",
        Class::Cache => "cache mount",
        Class::Image => "image",
    }
}

/// A line for each row; an asterisk says that it changes while it is used.
pub fn table(rows: &[Row], now: i64) -> String {
    let mut table = Table::new(&["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED", "DESCRIPTION"]);
    for row in rows {
        let mut id: String = row.id.trim_start_matches("sha256:").chars().take(24).collect();
        if row.is_mutable() {
            id.push('*');
        }
        table.row(&[
            &id,
            if row.in_use { "false" } else { "true" },
            &human::bytes(row.size),
            &human::ago(row.last_used, now),
            &console::truncate_str(&row.description, 60, "…"),
        ]);
    }
    table.render()
}

/// A block of lines for each row.
pub fn blocks(rows: &[Row], now: i64) -> String {
    let mut text = String::new();
    for row in rows {
        let yes = |is: bool| is.to_string();
        let lines = [
            ("ID", row.id.clone()),
            ("Parents", row.parents.join(" ")),
            ("Created at", human::timestamp(row.created)),
            ("Mutable", yes(row.is_mutable())),
            ("Reclaimable", yes(!row.in_use)),
            ("Shared", yes(row.shared)),
            ("Size", human::bytes(row.size)),
            ("Description", row.description.clone()),
            ("Last used", human::ago(row.last_used, now)),
            ("Type", row.buildkit_type().to_owned()),
            ("Class", format!("{} ({})", class(row.class), row.kind)),
        ];
        for (title, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
            let title = format!("{title}:");
            text.push_str(&format!("{title:<16}{}\n", crate::output::visible(value)));
        }
        text.push('\n');
    }
    text
}
