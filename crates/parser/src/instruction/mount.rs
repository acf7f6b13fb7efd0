//! The values of `RUN --mount` and `--device`: comma-separated fields, each `key=value`.
//!
//! [`parse`] splits and refuses what BuildKit refuses while it reads the file. [`check`] refuses
//! what BuildKit finds when it reaches the stage and has expanded the values. Here a value with a
//! `$` in it is taken as good, and what depends on it is left to the plan.

use crate::ast::{Device, Mount, Text};
use crate::expand::{NoVariables, expand_word};
use crate::suggest::{did_you_mean, suggest};

use super::go_quoted;

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARING: [&str; 3] = ["shared", "private", "locked"];

/// Splits the value of `--mount`.
pub(super) fn parse(text: Text) -> Result<Mount, String> {
    let fields =
        fields(&text.value).map_err(|problem| format!("failed to parse csv mounts: {problem}"))?;
    let fields: Vec<_> = fields.iter().map(|field| key_and_value(field)).collect();
    for (key, value) in &fields {
        let dollar = value.as_deref().and_then(|value| Some((value.find('$')? + 1, value.len())));
        if key == "from" && dollar.is_some_and(|(after, length)| after != length) {
            return Err(
                "'from' doesn't support variable expansion, define alias stage instead".to_owned()
            );
        }
    }
    Ok(Mount { text, fields })
}

fn key_and_value(field: &str) -> (String, Option<String>) {
    match field.split_once('=') {
        Some((key, value)) => (key.to_lowercase(), Some(value.to_owned())),
        None => (field.to_lowercase(), None),
    }
}

/// What is known of a value before variables are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Known(String),
    /// It holds a variable.
    Later,
}

impl Value {
    fn of(text: &str, escape: char) -> Self {
        if text.contains('$') {
            return Self::Later;
        }
        // What cannot be expanded is the plan's to refuse.
        expand_word(text, escape, &NoVariables).map_or(Self::Later, |value| Self::Known(value.text))
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Known(text) if text.is_empty())
    }

    /// Whether a known value is good; an unknown one is.
    fn is(&self, good: impl FnOnce(&str) -> bool) -> bool {
        match self {
            Self::Known(text) => good(text),
            Self::Later => true,
        }
    }
}

/// The fields that the checks after the last one look at.
#[derive(Debug)]
struct Seen {
    /// Nothing when the type holds a variable.
    kind: Option<String>,
    from: bool,
    source: bool,
    target: bool,
    id: bool,
    sharing: bool,
    /// `mode`, `uid` and `gid`, in this order.
    owner: [bool; 3],
}

impl Seen {
    fn is_kind(&self, kinds: &[&str]) -> bool {
        self.kind.as_deref().is_none_or(|kind| kinds.contains(&kind))
    }

    fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or_default()
    }
}

/// Checks keys, values and what may stand together, as far as no variable is involved.
pub(super) fn check(mount: &Mount, escape: char) -> Result<(), String> {
    let mut seen = Seen {
        kind: Some("bind".to_owned()),
        from: false,
        source: false,
        target: false,
        id: false,
        sharing: false,
        owner: [false; 3],
    };
    for (key, value) in &mount.fields {
        match value {
            Some(value) => check_field(key, value, escape, &mut seen)?,
            None => check_bare_field(key, &mount.text.value, &seen)?,
        }
    }
    check_together(&seen)
}

fn check_bare_field(key: &str, whole: &str, seen: &Seen) -> Result<(), String> {
    match key {
        "readonly" | "ro" | "readwrite" | "rw" => Ok(()),
        "required" if seen.is_kind(&["secret", "ssh"]) => Ok(()),
        "required" => Err(unexpected_for(key, seen)),
        _ => {
            // The message names the field as it was written, upper case included.
            let fields = fields(whole).unwrap_or_default();
            let written = fields.iter().find(|field| field.to_lowercase() == key);
            let written = written.map_or(key, String::as_str);
            Err(format!("invalid field '{written}' must be a key=value pair"))
        }
    }
}

fn check_field(key: &str, text: &str, escape: char, seen: &mut Seen) -> Result<(), String> {
    let value = Value::of(text, escape);
    let invalid = || Err(format!("invalid value for {key}: {text}"));
    match key {
        "type" => {
            seen.kind = match &value {
                Value::Later => None,
                Value::Known(kind) if TYPES.contains(&kind.to_lowercase().as_str()) => {
                    Some(kind.to_lowercase())
                }
                Value::Known(kind) => return Err(unsupported("mount type", kind, &TYPES)),
            };
        }
        "from" => seen.from = !value.is_empty(),
        "source" | "src" => seen.source = !value.is_empty(),
        "target" | "dst" | "destination" => seen.target = !value.is_empty(),
        "id" => seen.id = !value.is_empty(),
        "env" => {}
        "readonly" | "ro" | "readwrite" | "rw" if value.is(is_boolean) => {}
        "readonly" | "ro" | "readwrite" | "rw" => return invalid(),
        "required" if !seen.is_kind(&["secret", "ssh"]) => return Err(unexpected_for(key, seen)),
        "required" if value.is(is_boolean) => {}
        "required" => return invalid(),
        "size" if !seen.is_kind(&["tmpfs"]) => return Err(unexpected_for(key, seen)),
        "size" if value.is(is_size) => {}
        "size" => return invalid(),
        "sharing" => match &value {
            Value::Known(mode) if !SHARING.contains(&mode.to_lowercase().as_str()) => {
                return Err(unsupported("sharing value", mode, &SHARING));
            }
            _ => seen.sharing = true,
        },
        "mode" | "uid" | "gid" => {
            let base = if key == "mode" { 8 } else { 10 };
            if !value.is(|number| is_number(number, base)) {
                return Err(format!("invalid value {text} for {key}"));
            }
            for (name, given) in ["mode", "uid", "gid"].iter().zip(&mut seen.owner) {
                *given |= *name == key;
            }
        }
        _ => {
            let message = format!("unexpected key '{key}' in '{key}={text}'");
            return Err(did_you_mean(message, suggest(key, KEYS)));
        }
    }
    Ok(())
}

fn check_together(seen: &Seen) -> Result<(), String> {
    if !seen.is_kind(&["secret", "ssh", "cache"]) {
        let kind = seen.kind();
        for (name, given) in ["mode", "uid", "gid"].iter().zip(seen.owner) {
            if given {
                return Err(format!("{name} not allowed for \"{kind}\" type mounts"));
            }
        }
    }
    let problem = match seen.kind() {
        "secret" if seen.from => "secret mount should not have a from",
        "secret" if seen.sharing => "secret mount should not define sharing",
        "secret" if !(seen.source || seen.target || seen.id) => {
            "invalid secret mount. one of source, target required"
        }
        "secret" if seen.source && seen.id => "both source and id can't be set",
        kind if seen.sharing && !seen.is_kind(&["cache"]) => {
            return Err(format!("invalid cache sharing set for {kind} mount"));
        }
        _ => return Ok(()),
    };
    Err(problem.to_owned())
}

fn unexpected_for(key: &str, seen: &Seen) -> String {
    format!("unexpected key '{key}' for mount type '{}'", seen.kind())
}

fn unsupported(what: &str, value: &str, known: &[&str]) -> String {
    let message = format!("unsupported {what} {}", go_quoted(value));
    did_you_mean(message, suggest(value, known.iter().copied()))
}

/// Go's `strconv.ParseBool`.
fn is_boolean(text: &str) -> bool {
    let known = ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];
    known.contains(&text)
}

fn is_number(text: &str, base: u32) -> bool {
    !text.starts_with('+') && u32::from_str_radix(text, base).is_ok()
}

/// A size as `units.RAMInBytes` reads it: a number, perhaps a blank, perhaps a unit.
fn is_size(text: &str) -> bool {
    let digits = text.trim_end_matches(|next: char| next.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default().to_lowercase();
    let number = digits.strip_suffix(' ').unwrap_or(digits);
    let letters = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let is_plain = number.bytes().all(|next| next.is_ascii_digit() || next == b'.');
    is_plain
        && number.parse::<f64>().is_ok()
        && matches!(letters, "" | "k" | "m" | "g" | "t" | "p")
        && unit != "ib"
}

/// Reads the value of `--device`.
pub(super) fn device(text: Text) -> Result<Device, String> {
    let fields =
        fields(&text.value).map_err(|problem| format!("failed to parse csv devices: {problem}"))?;
    let mut device = Device { text, name: String::new(), required: false };
    for field in fields {
        match key_and_value(&field) {
            (key, None) if key == "required" => device.required = true,
            (key, Some(value)) if key == "required" => {
                if !is_boolean(&value) {
                    return Err(format!("invalid value for {key}: {value}"));
                }
                device.required = value.starts_with(['1', 't', 'T']);
            }
            (key, Some(value)) if key == "name" => {
                if !device.name.is_empty() {
                    return Err(format!("device name already set to {}", device.name));
                }
                device.name = value;
            }
            _ if device.name.is_empty() => device.name = field,
            (_, None) => {
                return Err(format!("invalid field '{field}' must be a key=value pair"));
            }
            (key, Some(_)) => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(did_you_mean(message, suggest(&key, ["name", "required"])));
            }
        }
    }
    Ok(device)
}

/// One line of comma-separated values; a field in quotes may hold commas, and `""` for a quote.
fn fields(line: &str) -> Result<Vec<String>, String> {
    let problem = |at: usize, what: &str| {
        let column = at + 1;
        Err(format!("parse error on line 1, column {column}: {what}"))
    };
    let line = line.strip_suffix('\n').unwrap_or(line);
    if line.is_empty() {
        return Err("EOF".to_owned());
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let at = line.len() - rest.len();
        let Some(quoted) = rest.strip_prefix('"') else {
            let field = rest.split(',').next().unwrap_or_default();
            if let Some(quote) = field.find('"') {
                return problem(at + quote, "bare \" in non-quoted field");
            }
            fields.push(field.to_owned());
            match rest.get(field.len() + 1..) {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        rest = quoted;
        loop {
            let Some((inside, after)) = rest.split_once('"') else {
                let at = line.len() - rest.len();
                return problem(at, "extraneous or missing \" in quoted-field");
            };
            field.push_str(inside);
            if let Some(after) = after.strip_prefix('"') {
                field.push('"');
                rest = after;
                continue;
            }
            fields.push(field);
            if after.is_empty() {
                return Ok(fields);
            }
            let Some(after) = after.strip_prefix(',') else {
                let at = line.len() - after.len() - 1;
                return problem(at, "extraneous or missing \" in quoted-field");
            };
            rest = after;
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use rbuild_types::Span;

    use super::*;
    use crate::ast::Spanned;

    fn problem(text: &str) -> String {
        let text = Spanned::new(text.to_owned(), Span::new(0, 0));
        match parse(text).and_then(|mount| check(&mount, '\\')) {
            Ok(()) => String::new(),
            Err(problem) => problem,
        }
    }

    #[test]
    fn good_mounts() {
        for text in [
            "type=cache,target=/x",
            "type=CACHE,Target=/x,sharing=Locked,id=a,mode=0755,uid=0,gid=0",
            "target=/x,rw",
            "type=bind,source=a,dst=/b,ro=false",
            "type=tmpfs,target=/t,size=100m",
            "type=tmpfs,size=1.5 GiB,target=/t",
            "type=secret,id=a,required",
            "type=secret,target=/x,env=A,required=true",
            "type=ssh",
            "type=$T,size=1,sharing=x$,required",
            "type=secret,id=$A",
            "from=a$",
            "\"target=/a,b\",type=cache",
        ] {
            assert_eq!(problem(text), "", "{text}");
        }
    }

    #[test]
    fn errors_use_buildkits_words() {
        let rows = [
            ("typ=tmpfs", "unexpected key 'typ' in 'typ=tmpfs' (did you mean type?)"),
            ("type=tmp", "unsupported mount type \"tmp\" (did you mean tmpfs?)"),
            ("type=cache,X", "invalid field 'X' must be a key=value pair"),
            ("size=1m", "unexpected key 'size' for mount type 'bind'"),
            ("type=tmpfs,size=x", "invalid value for size: x"),
            ("type=cache,sharing=some", "unsupported sharing value \"some\""),
            ("sharing=shared", "invalid cache sharing set for bind mount"),
            ("required", "unexpected key 'required' for mount type 'bind'"),
            ("type=secret,required=x,id=a", "invalid value for required: x"),
            ("ro=x", "invalid value for ro: x"),
            ("uid=1", "uid not allowed for \"bind\" type mounts"),
            ("type=tmpfs,mode=1", "mode not allowed for \"tmpfs\" type mounts"),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,src=a,id=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
            ("from=$a", "'from' doesn't support variable expansion, define alias stage instead"),
            ("", "failed to parse csv mounts: EOF"),
            (
                "a\"b",
                "failed to parse csv mounts: parse error on line 1, column 2: bare \" in \
                 non-quoted field",
            ),
        ];
        for (text, message) in rows {
            assert_eq!(problem(text), message, "{text}");
        }
    }

    #[test]
    fn devices_have_one_name() {
        let read = |text: &str| device(Text::new(text.to_owned(), Span::default()));
        for (text, name, required) in [
            ("vendor/class=dev", "vendor/class=dev", false),
            ("vendor/class=*,required", "vendor/class=*", true),
            ("required,\"v/c=a,b\"", "v/c=a,b", true),
            ("name=a,required=false", "a", false),
            ("NAME=a,required=True", "a", true),
            ("required", "", true),
        ] {
            let device = read(text).unwrap();
            assert_eq!((device.name.as_str(), device.required), (name, required), "{text}");
        }
        let problem = |text| read(text).err().unwrap_or_default();
        assert_eq!(problem("a,required=x"), "invalid value for required: x");
        assert_eq!(problem("a,b"), "invalid field 'b' must be a key=value pair");
        assert_eq!(problem("a,name=b"), "device name already set to a");
        assert_eq!(problem("a,nam=b"), "unexpected key 'nam' in 'nam=b' (did you mean name?)");
    }
}
