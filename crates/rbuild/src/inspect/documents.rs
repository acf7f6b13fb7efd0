//! In what two JSON documents differ, field by field.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// A field that two documents do not have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldDifference {
    /// Names of the fields on the way: `config.Env.PATH`, `history[2].created_by`.
    pub field: String,
    /// What the first has.
    pub before: Option<Value>,
    /// What the second has.
    pub after: Option<Value>,
}

/// Finds them in the order of the fields. Lists of objects are compared item by item, other lists
/// as a whole.
pub(crate) fn differences(before: &Value, after: &Value) -> Vec<FieldDifference> {
    let mut found = Vec::new();
    descend(String::new(), Some(before), Some(after), &mut found);
    found
}

fn descend(
    field: String,
    before: Option<&Value>,
    after: Option<&Value>,
    found: &mut Vec<FieldDifference>,
) {
    if before == after {
        return;
    }
    match (before, after) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let inner = match field.is_empty() {
                    true => name.clone(),
                    false => format!("{field}.{name}"),
                };
                descend(inner, before.get(name), after.get(name), found);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after)))
            if before.iter().chain(after).all(Value::is_object) =>
        {
            for index in 0..before.len().max(after.len()) {
                let inner = format!("{field}[{index}]");
                descend(inner, before.get(index), after.get(index), found);
            }
        }
        _ => found.push(FieldDifference { field, before: before.cloned(), after: after.cloned() }),
    }
}

/// Variables by their names: in a list, one more would make all others different.
pub(crate) fn with_named_variables(mut config: Value) -> Value {
    if let Some(Value::Array(list)) = config.pointer_mut("/config/Env").map(Value::take) {
        let mut named = Map::new();
        for variable in list {
            let text = variable.as_str().unwrap_or_default();
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            named.insert(name.to_owned(), value.into());
        }
        config["config"]["Env"] = Value::Object(named);
    }
    config
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(before: Value, after: Value) -> Vec<(String, Option<Value>, Option<Value>)> {
        let before = with_named_variables(before);
        let all = differences(&before, &with_named_variables(after));
        all.into_iter().map(|one| (one.field, one.before, one.after)).collect()
    }

    #[test]
    fn fields_are_named_by_the_way_to_them() {
        let before = json!({
            "config": {"Env": ["A=1", "B=2"], "Cmd": ["a", "b"], "Labels": {"x": "1"}},
            "history": [{"created_by": "one"}, {"created_by": "two"}],
        });
        let after = json!({
            "config": {"Env": ["B=2", "C=3=4", "A=1"], "Cmd": ["a"], "Labels": null},
            "history": [{"created_by": "one"}],
        });
        assert_eq!(found(before.clone(), before.clone()), []);
        let expected = [
            ("config.Cmd", Some(json!(["a", "b"])), Some(json!(["a"]))),
            ("config.Env.C", None, Some(json!("3=4"))),
            ("config.Labels", Some(json!({"x": "1"})), Some(Value::Null)),
            ("history[1]", Some(json!({"created_by": "two"})), None),
        ];
        let expected = expected.map(|(field, before, after)| (field.to_owned(), before, after));
        assert_eq!(found(before, after), expected);
    }
}
