//! Functions of templates: Go's own, and those that Docker's command line adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::Mistake;

/// A number of blanks or letters above this is no layout.
const WIDEST: usize = 1000;

/// Calls a function.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, Mistake> {
    let wrong = || Mistake::new(format!("`{name}` cannot be given these arguments"));
    let text = |at: usize| arguments.get(at).and_then(Value::as_str).ok_or_else(wrong);
    let count = |at: usize| {
        let count = arguments.get(at).and_then(Value::as_u64).ok_or_else(wrong)?;
        usize::try_from(count).map_err(|_| wrong())
    };
    let exactly = |wanted: usize| match arguments.len() == wanted {
        true => Ok(()),
        false => Err(wrong()),
    };
    let one = || exactly(1).map(|()| &arguments[0]);
    let answer = match name {
        "json" => Value::from(one()?.to_string()),
        "len" => Value::from(match one()? {
            Value::String(text) => text.len(),
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            Value::Null => 0,
            _ => return Err(wrong()),
        }),
        "index" => {
            let (first, keys) = arguments.split_first().ok_or_else(wrong)?;
            keys.iter().try_fold(first, |value, key| index(value, key))?.clone()
        }
        "slice" => slice(arguments).ok_or_else(wrong)?,
        "join" => {
            exactly(2)?;
            let items = match &arguments[0] {
                Value::Array(items) => items.as_slice(),
                Value::Null => &[],
                _ => return Err(wrong()),
            };
            let items: Vec<String> = items.iter().map(shown).collect();
            Value::from(items.join(text(1)?))
        }
        "split" => {
            exactly(2)?;
            let (whole, separator) = (text(0)?, text(1)?);
            match separator {
                // Letter by letter, as in Go.
                "" => whole.chars().map(String::from).collect(),
                _ => whole.split(separator).map(str::to_owned).collect(),
            }
        }
        "lower" => Value::from(shown(one()?).to_lowercase()),
        "upper" => Value::from(shown(one()?).to_uppercase()),
        "title" => {
            let text = shown(one()?);
            let mut letters = text.chars();
            let first = letters.next().map(|letter| letter.to_uppercase().to_string());
            Value::from(first.unwrap_or_default() + letters.as_str())
        }
        "pad" => {
            exactly(3)?;
            let (before, after) = (count(1)?, count(2)?);
            if before > WIDEST || after > WIDEST {
                return Err(wrong());
            }
            Value::from(format!("{:before$}{}{:after$}", "", text(0)?, ""))
        }
        "truncate" => {
            exactly(2)?;
            Value::from(text(0)?.chars().take(count(1)?).collect::<String>())
        }
        "print" => Value::from(print(arguments)),
        "println" => {
            let words: Vec<String> = arguments.iter().map(shown).collect();
            Value::from(words.join(" ") + "\n")
        }
        "printf" => Value::from(printf(text(0)?, &arguments[1..])?),
        "not" => Value::Bool(!is_true(one()?)),
        "and" => {
            let last = arguments.last().ok_or_else(wrong)?;
            arguments.iter().find(|value| !is_true(value)).unwrap_or(last).clone()
        }
        "or" => {
            let last = arguments.last().ok_or_else(wrong)?;
            arguments.iter().find(|value| is_true(value)).unwrap_or(last).clone()
        }
        "eq" if arguments.len() > 1 => {
            Value::Bool(arguments[1..].iter().any(|value| is_equal(&arguments[0], value)))
        }
        "ne" if arguments.len() == 2 => Value::Bool(!is_equal(&arguments[0], &arguments[1])),
        "lt" | "le" | "gt" | "ge" => {
            exactly(2)?;
            let order = order(&arguments[0], &arguments[1]).ok_or_else(wrong)?;
            Value::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        "eq" | "ne" => return Err(wrong()),
        _ => {
            return Err(Mistake {
                message: format!("no function {name:?}"),
                hint: Some(
                    "there are json, index, len, slice, join, split, lower, upper, title, pad, \
                     truncate, print, printf, println, and, or, not, eq, ne, lt, le, gt and ge"
                        .to_owned(),
                ),
            });
        }
    };
    Ok(answer)
}

/// Whether a function only changes how its first argument looks.
pub(super) fn is_about_text(name: &str) -> bool {
    ["json", "join", "split", "lower", "upper", "title", "pad", "truncate"].contains(&name)
}

/// What `if` takes for true: not zero, nothing or empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value the way Go prints it, near enough: lists as `[a b]`, maps as `map[k:v]`.
pub(super) fn shown(value: &Value) -> String {
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

/// A missing key of a map is empty, as in Go; a list that is too short is a mistake.
fn index<'v>(value: &'v Value, key: &Value) -> Result<&'v Value, Mistake> {
    match (value, key) {
        (Value::Null, _) => Ok(&Value::Null),
        (Value::Object(fields), Value::String(name)) => {
            Ok(fields.get(name).unwrap_or(&Value::Null))
        }
        (Value::Array(items), Value::Number(number)) => {
            let at = number.as_u64().and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| items.get(at)).ok_or_else(|| {
                Mistake::new(format!("`index`: {number} is not in a list of {}", items.len()))
            })
        }
        _ => Err(Mistake::new(format!("`index`: {:?} is no key of that", shown(key)))),
    }
}

/// `slice X FROM TO`, in bytes of a text as in Go.
fn slice(arguments: &[Value]) -> Option<Value> {
    let (value, places) = arguments.split_first()?;
    let at = |place: usize, default: usize| match places.get(place) {
        None => Some(default),
        Some(number) => usize::try_from(number.as_u64()?).ok(),
    };
    let length = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        _ => return None,
    };
    let range = at(0, 0)?..at(1, length)?;
    match value {
        _ if places.len() > 2 => None,
        Value::String(text) => Some(Value::from(text.get(range)?)),
        Value::Array(items) => Some(Value::from(items.get(range)?.to_vec())),
        _ => None,
    }
}

fn is_equal(a: &Value, b: &Value) -> bool {
    order(a, b).map_or_else(|| a == b, Ordering::is_eq)
}

/// Of two numbers or two texts.
fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        _ => None,
    }
}

/// A blank stands between two values of which neither is a text.
fn print(values: &[Value]) -> String {
    let mut text = String::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 && !value.is_string() && !values[at - 1].is_string() {
            text.push(' ');
        }
        text.push_str(&shown(value));
    }
    text
}

/// `%s`, `%v`, `%d`, `%t`, `%q` and `%%`, with a width, and `-` for the left.
fn printf(format: &str, values: &[Value]) -> Result<String, Mistake> {
    let mut values = values.iter();
    let (mut text, mut rest) = (String::new(), format);
    while let Some((before, behind)) = rest.split_once('%') {
        text.push_str(before);
        let (left, behind) = match behind.strip_prefix('-') {
            Some(behind) => (true, behind),
            None => (false, behind),
        };
        let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        let (width, behind) = behind.split_at(digits);
        let width = if width.is_empty() { Some(0) } else { width.parse::<usize>().ok() };
        let unknown = || {
            let verb: String = behind.chars().take(1).collect();
            Mistake {
                message: format!("`printf`: cannot read \"%{verb}\" in {format:?}"),
                hint: Some("there are %s, %v, %d, %t, %q and %%, with a width".to_owned()),
            }
        };
        let width = width.filter(|width| *width <= WIDEST).ok_or_else(unknown)?;
        let verb = behind.chars().next().ok_or_else(unknown)?;
        rest = &behind[verb.len_utf8()..];
        let mut next = || {
            let few = || Mistake::new(format!("`printf`: too few values for {format:?}"));
            values.next().ok_or_else(few)
        };
        let one = match verb {
            '%' => "%".to_owned(),
            's' | 'v' | 'd' | 't' => shown(next()?),
            'q' => Value::from(shown(next()?)).to_string(),
            _ => return Err(unknown()),
        };
        text.push_str(&match left {
            true => format!("{one:<width$}"),
            false => format!("{one:>width$}"),
        });
    }
    match values.next() {
        None => Ok(text + rest),
        Some(_) => Err(Mistake::new(format!("`printf`: too many values for {format:?}"))),
    }
}
