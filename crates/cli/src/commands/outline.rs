//! `rbuild build --call=outline`, `--call=targets`, `--call=subrequests.describe`: what a
//! Dockerfile takes and offers, in BuildKit's tables and documents.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild::{BuildRequest, ContextInput, Outline, Parameter, Targets};
use serde_json::{Map, Value, json};

use crate::args::call::{Call, METHODS, Method};
use crate::commands::{Context, check};
use crate::failure::Failure;
use crate::report::one_line;
use crate::table::Table;
use crate::{exit_code, interrupt, output};

/// What a stage without a name is called.
const DEFAULT: &str = "(default)";

/// Prints what the target takes.
pub fn outline(call: Call, request: &BuildRequest, context: &Context<'_>) -> Result<i32, Failure> {
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = check::engine(request, context)?;
    let outline = rbuild::outline(request, engine.as_ref(), &cancel)?;
    match call.json {
        true => document(&outline_document(&outline))?,
        false => output::data(outline_text(&outline))?,
    }
    Ok(exit_code::SUCCESS)
}

/// Prints the stages.
pub fn targets(call: Call, request: &BuildRequest, context: &Context<'_>) -> Result<i32, Failure> {
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = match &request.context {
        ContextInput::Archive(_) => check::engine(request, context)?,
        _ => None,
    };
    let targets = rbuild::targets(request, engine.as_ref(), &cancel)?;
    match call.json {
        true => document(&targets_document(&targets))?,
        false => output::data(targets_text(&targets))?,
    }
    Ok(exit_code::SUCCESS)
}

/// Prints what there is to call.
pub fn describe(call: Call) -> Result<i32, Failure> {
    let known = METHODS.iter().filter(|(name, method, _)| {
        *name != "check" && !matches!(method, Method::Build | Method::Dot)
    });
    if call.json {
        let requests: Vec<Value> = known
            .map(|(name, _, description)| {
                json!({
                    "Name": format!("frontend.{name}"),
                    "Version": VERSION,
                    "Type": "rpc",
                    "Description": description,
                })
            })
            .collect();
        document(&Value::Array(requests))?;
    } else {
        let mut table = Table::new(&["NAME", "VERSION", "DESCRIPTION"]);
        known.for_each(|(name, _, description)| table.row(&[name, VERSION, description]));
        output::data(table.render())?;
    }
    Ok(exit_code::SUCCESS)
}

/// The version of each answer's form.
const VERSION: &str = "1.0.0";

fn document(value: &Value) -> Result<(), Failure> {
    output::line(&serde_json::to_string_pretty(value).unwrap_or_default())
}

fn outline_text(outline: &Outline) -> String {
    let mut text = String::new();
    if outline.name.is_some() || outline.description.is_some() {
        text.push_str(&format!("TARGET:      {}\n", outline.name.as_deref().unwrap_or(DEFAULT)));
        if let Some(description) = &outline.description {
            text.push_str(&format!("DESCRIPTION: {}\n", one_line(description)));
        }
        text.push('\n');
    }
    if !outline.args.is_empty() {
        let mut table = Table::new(&["BUILD ARG", "VALUE", "DESCRIPTION"]);
        for arg in &outline.args {
            let value = arg.value.as_deref().unwrap_or_default();
            table.row(&[&arg.name, value, arg.description.as_deref().unwrap_or_default()]);
        }
        text.push_str(&table.render());
        text.push('\n');
    }
    for (title, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !mounts.is_empty() {
            let mut table = Table::new(&[title, "REQUIRED"]);
            for mount in mounts {
                table.row(&[&mount.name, if mount.required { "true" } else { "" }]);
            }
            text.push_str(&table.render());
            text.push('\n');
        }
    }
    if !outline.caches.is_empty() {
        let mut table = Table::new(&["CACHE MOUNT"]);
        outline.caches.iter().for_each(|cache| table.row(&[&cache.name]));
        text.push_str(&table.render());
        text.push('\n');
    }
    text
}

fn outline_document(outline: &Outline) -> Value {
    let mut document = Map::new();
    put(&mut document, "name", outline.name.as_deref());
    put(&mut document, "description", outline.description.as_deref());
    let lists = [
        ("args", &outline.args, "name"),
        ("secrets", &outline.secrets, "name"),
        ("ssh", &outline.ssh, "name"),
        ("cache", &outline.caches, "ID"),
    ];
    for (key, list, name) in lists {
        if !list.is_empty() {
            let list = list.iter().map(|one| parameter(one, name)).collect();
            document.insert(key.to_owned(), Value::Array(list));
        }
    }
    document.insert("sources".to_owned(), json!([STANDARD.encode(&outline.source_text)]));
    Value::Object(document)
}

fn parameter(parameter: &Parameter, name: &str) -> Value {
    let mut document = Map::new();
    document.insert(name.to_owned(), json!(parameter.name));
    put(&mut document, "description", parameter.description.as_deref());
    put(&mut document, "value", parameter.value.as_deref());
    if parameter.required {
        document.insert("required".to_owned(), json!(true));
    }
    document.insert("location".to_owned(), check::location(Some(parameter.lines)));
    Value::Object(document)
}

fn targets_text(targets: &Targets) -> String {
    let mut table = Table::new(&["TARGET", "DESCRIPTION"]);
    for (index, target) in targets.targets.iter().enumerate() {
        let is_last = index + 1 == targets.targets.len();
        let name = match (&target.name, is_last) {
            (Some(name), true) => format!("{name} {DEFAULT}"),
            (Some(name), false) => name.clone(),
            (None, true) => DEFAULT.to_owned(),
            (None, false) => String::new(),
        };
        table.row(&[&name, target.description.as_deref().unwrap_or_default()]);
    }
    table.render()
}

fn targets_document(targets: &Targets) -> Value {
    let last = targets.targets.len().checked_sub(1);
    let list = targets.targets.iter().enumerate().map(|(index, target)| {
        let mut document = Map::new();
        put(&mut document, "name", target.name.as_deref());
        if Some(index) == last {
            document.insert("default".to_owned(), json!(true));
        }
        put(&mut document, "description", target.description.as_deref());
        put(&mut document, "base", Some(&target.base));
        put(&mut document, "platform", target.platform.as_deref());
        document.insert("location".to_owned(), check::location(Some(target.lines)));
        Value::Object(document)
    });
    let list: Vec<Value> = list.collect();
    json!({ "targets": list, "sources": [STANDARD.encode(&targets.source_text)] })
}

/// Puts in what is not empty, as Go's `omitempty` does.
fn put(document: &mut Map<String, Value>, key: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        document.insert(key.to_owned(), json!(value));
    }
}
