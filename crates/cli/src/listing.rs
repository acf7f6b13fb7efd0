//! Commands that list rows: as JSON, by a `--format`, as keys alone, or in a table.

use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::output;
use crate::table::Table;
use crate::template::Template;

/// A parsed `--format` of a list.
#[derive(Debug)]
pub struct Listing {
    template: Template,
    /// `table {{.A}}\t{{.B}}`
    table: bool,
}

impl Listing {
    /// Reads a format. There is none for `table` alone, which is how a list looks anyway.
    pub fn parse(format: Option<&str>) -> Result<Option<Self>, Failure> {
        let Some(format) = format.filter(|format| format.trim() != "table") else {
            return Ok(None);
        };
        let columns = format.strip_prefix("table ");
        let template = Template::parse(columns.map_or(format, str::trim))?;
        Ok(Some(Self { template, table: columns.is_some() }))
    }

    /// The text, a newline after each row. `titles` are those of the fields.
    pub fn render(&self, titles: &[(&str, &str)], rows: &[Value]) -> Result<String, Failure> {
        if !self.table {
            let lines = rows.iter().map(|row| Ok(self.template.render(row)? + "\n"));
            return lines.collect();
        }
        let titles: Map<String, Value> = titles
            .iter()
            .map(|(field, title)| ((*field).to_owned(), Value::from(*title)))
            .collect();
        let titles = self.template.render_titles(&Value::from(titles))?;
        let mut table = Table::new(&titles.split('\t').collect::<Vec<_>>());
        for row in rows {
            table.row(&self.template.render(row)?.split('\t').collect::<Vec<_>>());
        }
        Ok(table.render())
    }
}

/// What a command lists.
#[derive(Debug)]
pub struct List<'a> {
    /// Titles of the fields that a row has.
    pub titles: &'a [(&'a str, &'a str)],
    /// Documents.
    pub rows: Vec<Value>,
    /// The field that `--quiet` prints.
    pub key: &'a str,
    /// The fields of the table that is shown when nobody says otherwise.
    pub shown: &'a [&'a str],
}

impl List<'_> {
    /// Prints it by a `--format`, or as `--json` or `--quiet` say, or as a table.
    pub fn print(self, listing: Option<Listing>, json: bool, quiet: bool) -> Result<(), Failure> {
        if let Some(listing) = listing {
            return output::data(listing.render(self.titles, &self.rows)?);
        }
        if json {
            return output::json(&Value::from(self.rows));
        }
        if quiet {
            return self.rows.iter().try_for_each(|row| output::line(&text(row, self.key)));
        }
        let title =
            |field: &&str| self.titles.iter().find(|(name, _)| name == field).map(|(_, it)| *it);
        let mut table = Table::new(&self.shown.iter().filter_map(title).collect::<Vec<_>>());
        for row in &self.rows {
            let cells: Vec<String> = self.shown.iter().map(|field| text(row, field)).collect();
            table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
        }
        output::data(table.render())
    }
}

/// A field of a row as a table shows it.
fn text(row: &Value, field: &str) -> String {
    match &row[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TITLES: [(&str, &str); 2] = [("Repository", "REPOSITORY"), ("ID", "IMAGE ID")];

    fn listed(format: &str) -> String {
        let rows = [
            json!({"Repository": "a", "ID": "1"}),
            json!({"Repository": "longer/than/that", "ID": "2\n"}),
        ];
        Listing::parse(Some(format)).unwrap().unwrap().render(&TITLES, &rows).unwrap()
    }

    #[test]
    fn a_table_has_titles() {
        let expected = "\
REPOSITORY         IMAGE ID
a                  1
longer/than/that   2\\n
";
        assert_eq!(listed(r"table {{.Repository}}\t{{.ID}}"), expected);
        assert_eq!(listed("table   {{upper .Repository}}").lines().next(), Some("REPOSITORY"));
    }

    #[test]
    fn other_formats_have_a_line_a_row() {
        assert_eq!(listed("{{.Repository}}"), "a\nlonger/than/that\n");
        assert_eq!(listed("json").lines().next(), Some(r#"{"ID":"1","Repository":"a"}"#));
        assert!(Listing::parse(Some("table")).unwrap().is_none());
        assert!(Listing::parse(None).unwrap().is_none());
    }
}
