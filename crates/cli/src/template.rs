//! The part of Go's templates that scripts use with `--format`: text, `{{.Field}}`, dotted paths,
//! `{{json .Field}}`, and `json` alone for one document a row.

use serde_json::Value;

use crate::failure::Failure;

/// A parsed `--format`.
#[derive(Debug, PartialEq)]
pub struct Template(Kind);

#[derive(Debug, PartialEq)]
enum Kind {
    /// The whole row as JSON.
    Json,
    Parts(Vec<Part>),
}

#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

impl Template {
    /// Reads a template; what is beyond the subset is an error that says so.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if text == "json" {
            return Ok(Self(Kind::Json));
        }
        let refuse = |what: &str| {
            Failure::usage_hint(
                format!("--format: cannot read {what:?}"),
                "understood are text, {{.Field}}, {{.Outer.Inner}}, {{json .Field}} and `json`",
            )
        };
        let mut parts = Vec::new();
        let mut rest = text.strip_prefix("table ").unwrap_or(text);
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after.split_once("}}").ok_or_else(|| refuse(rest))?;
            parts.push(Part::Text(unescape(before)));
            let words: Vec<&str> = action.split_whitespace().collect();
            let (json, path) = match words.as_slice() {
                [path] => (false, path),
                ["json", path] => (true, path),
                _ => return Err(refuse(action)),
            };
            let path = path.strip_prefix('.').ok_or_else(|| refuse(action))?;
            let word = |part: &str| {
                !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_')
            };
            if !path.is_empty() && !path.split('.').all(word) {
                return Err(refuse(action));
            }
            let path = path.split('.').filter(|part| !part.is_empty());
            parts.push(Part::Field { path: path.map(str::to_owned).collect(), json });
            rest = after;
        }
        parts.push(Part::Text(unescape(rest)));
        Ok(Self(Kind::Parts(parts)))
    }

    /// Fills in one row. A field that the row does not have is an error that lists those it has.
    pub fn render(&self, row: &Value) -> Result<String, Failure> {
        let parts = match &self.0 {
            Kind::Json => return Ok(row.to_string()),
            Kind::Parts(parts) => parts,
        };
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Field { path, json: true } => text.push_str(&find(row, path)?.to_string()),
                Part::Field { path, json: false } => text.push_str(&shown(&find(row, path)?)),
            }
        }
        Ok(text)
    }
}

/// Shells leave `\t` and `\n` alone inside quotes; Docker reads them.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Maps below this level have keys of the user's, so a missing one is empty and not a mistake.
fn find(row: &Value, path: &[String]) -> Result<Value, Failure> {
    let mut here = row;
    for (depth, name) in path.iter().enumerate() {
        here = match here {
            Value::Object(fields) => match fields.get(name) {
                Some(value) => value,
                // A field of a config that is not set.
                None if depth > 0 => return Ok(Value::Null),
                None => {
                    let known: Vec<&str> = fields.keys().map(String::as_str).collect();
                    let hint = format!("there are {}", known.join(", "));
                    return Err(Failure::usage_hint(format!("--format: no field {name:?}"), hint));
                }
            },
            _ => return Ok(Value::Null),
        };
    }
    Ok(here.clone())
}

/// A value the way Go prints it, near enough: lists as `[a b]`, maps as `map[k:v]`.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" "))
        }
        Value::Object(fields) => {
            let pairs: Vec<_> =
                fields.iter().map(|(name, value)| format!("{name}:{}", shown(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> Result<String, Failure> {
        let row =
            json!({ "Id": "sha256:1", "Config": { "Cmd": ["a", "b"], "Labels": {"k": "v"} } });
        Template::parse(template)?.render(&row)
    }

    #[test]
    fn fields_paths_and_json() {
        assert_eq!(render("{{.Id}}").unwrap(), "sha256:1");
        assert_eq!(render(r"id={{ .Id }}\t{{.Config.Cmd}}!").unwrap(), "id=sha256:1\t[a b]!");
        assert_eq!(render("{{json .Config.Cmd}}").unwrap(), r#"["a","b"]"#);
        assert_eq!(render("{{.Config.Labels}}").unwrap(), "map[k:v]");
        assert_eq!(render("{{.Config.User}}").unwrap(), "");
        assert!(render("{{json .}}").unwrap().starts_with('{'));
        assert!(render("json").unwrap().starts_with('{'));
    }

    #[test]
    fn the_rest_is_refused() {
        for bad in ["{{range .X}}{{end}}", "{{.Id", "{{Id}}", "{{.a..b}}", "{{.Nope}}", "{{}}"] {
            assert!(render(bad).is_err(), "{bad}");
        }
    }
}
