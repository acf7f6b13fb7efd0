//! The conformance cases: config and history of each image as BuildKit made them, and the errors
//! that stand in the file and not in what it runs. What needs a registry, a context or a process
//! to know is left to the end-to-end runs of the same cases.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

mod support;

use std::path::{Path, PathBuf};

use rbuild_plan::{Options, Plan, Target};
use rbuild_types::{Diagnostic, LineIndex, Platform};
use serde_json::{Map, Value, json};

/// Fewest cases that must fit, of those that the checkout of the cases held when this was set.
const FLOOR: usize = 444;

/// Classes of errors that the plan, or the parser before it, must find.
const CLASSES: [&str; 8] =
    ["parse", "instruction", "expand", "from", "from-pull", "graph", "target", "platform"];

/// Words of errors that only a context, a registry or a process can raise.
const LATER: [&str; 5] = [
    "failed to compute cache key",
    "failed to calculate checksum",
    "did not complete",
    "secret",
    "exclusion pattern",
];

#[test]
fn configs_and_histories_are_buildkits() {
    let Some(root) = cases() else { return };
    let (mut fit, mut wrong, mut left) = (0, Vec::new(), Vec::new());
    for set in ["own", "public"] {
        for case in sorted(&root.join(set)) {
            let name = case.file_name().unwrap().to_string_lossy().into_owned();
            match run(&case) {
                Outcome::Fits => fit += 1,
                Outcome::Left(why) => left.push(format!("{name}: {why}")),
                Outcome::Differs(what) => wrong.push(format!("{name}: {what}")),
            }
        }
    }
    println!("left out:\n  {}", left.join("\n  "));
    println!("differing:\n  {}", wrong.join("\n  "));
    println!("cases: {fit} fit, {} differ, {} left out", wrong.len(), left.len());
    assert!(fit >= FLOOR, "{fit} cases fit, the floor is {FLOOR}");
}

enum Outcome {
    Fits,
    Left(String),
    Differs(String),
}

fn run(case: &Path) -> Outcome {
    let args = read_json(&case.join("args.json"));
    let golden = read_json(&case.join("golden.json"));
    let Some(text) = dockerfile(case, &args) else { return Outcome::Left("made by gen.sh".into()) };
    if args.get("named_contexts").is_some() {
        return Outcome::Left("named contexts".into());
    }
    let mut options = support::options();
    if let Some(platforms) = args["platform"].as_str() {
        options.platforms = platforms.split(',').map(|one| one.parse().unwrap()).collect();
    }
    options.target = args["target"].as_str().map(str::to_owned);
    fill(&mut options, &args);
    let result = support::plan_with(&text, &options, &support::bases());
    if let Err(errors) = &result
        && let Some(error) = errors.iter().find(|error| error.code == "unsupported")
    {
        return Outcome::Left(error.message.clone());
    }
    if golden["ok"] != json!(true) {
        let expected = args.get("expect_error").cloned().unwrap_or_else(|| json!({}));
        return check_error(&text, &expected, &golden, result);
    }
    match result {
        Ok(plan) => check_image(&plan, &golden),
        Err(errors) => Outcome::Differs(format!("refused: {}", errors[0].message)),
    }
}

fn fill(options: &mut Options, args: &Value) {
    let pairs = |field: &str| args[field].as_object().cloned().unwrap_or_default();
    for (name, value) in pairs("build_args") {
        let value = value.as_str().or_else(|| args["env"][&name].as_str());
        if let Some(value) = value {
            options.build_args.insert(name, value.to_owned());
        }
    }
    for (name, value) in pairs("labels") {
        options.labels.insert(name, value.as_str().unwrap_or_default().to_owned());
    }
}

fn check_error(
    text: &str,
    expected: &Value,
    golden: &Value,
    result: Result<Plan, Vec<Diagnostic>>,
) -> Outcome {
    let class = expected["class"].as_str();
    // Public cases name no class: there the message tells.
    let told = golden["error"]["message"].as_str().unwrap_or_default();
    let ours = match class {
        Some(class) => CLASSES.contains(&class),
        None => !LATER.iter().any(|later| told.contains(later)),
    };
    let errors = match result {
        Err(errors) => errors,
        Ok(_) if ours => return Outcome::Differs(format!("was taken; {told}")),
        Ok(_) => return Outcome::Left(format!("fails later: {told}")),
    };
    let error = &errors[0];
    let mentions = expected["mentions"].as_array().cloned().unwrap_or_default();
    let everything = format!("{} {}", error.message, error.help.as_deref().unwrap_or_default());
    let lower = everything.to_lowercase();
    for wanted in mentions.iter().filter_map(Value::as_str) {
        // The terminal shows the line too.
        let shown = error.span().map_or("", |span| line_of(text, span.start));
        let shown = shown.to_lowercase();
        let found = |word: &str| {
            let word = word.to_lowercase();
            lower.contains(&word) || shown.contains(&word)
        };
        if !wanted.split('|').any(found) {
            return Outcome::Differs(format!("{wanted:?} is not in {everything:?}"));
        }
    }
    let line = error.span().map(|span| LineIndex::new(text).line(span.start) as u64);
    match (expected["line"].as_u64(), line) {
        (Some(wanted), Some(line)) if wanted != line => {
            Outcome::Differs(format!("line {line} instead of {wanted}: {everything}"))
        }
        (Some(wanted), None) => Outcome::Differs(format!("no line instead of {wanted}")),
        _ => {
            if !told.contains(&error.message) {
                println!("other words: {}\n  BuildKit: {told}", error.message);
            }
            Outcome::Fits
        }
    }
}

fn line_of(text: &str, at: usize) -> &str {
    let index = LineIndex::new(text);
    let line = index.line(at.min(text.len()));
    index.start_of(line).and_then(|start| text[start..].lines().next()).unwrap_or("")
}

fn check_image(plan: &Plan, golden: &Value) -> Outcome {
    support::check(plan);
    let images = golden["images"].as_object().unwrap();
    if images.len() != plan.targets.len() {
        let (wanted, made) = (images.len(), plan.targets.len());
        return Outcome::Differs(format!("{made} images instead of {wanted}"));
    }
    for (platform, image) in images {
        let platform: Platform = platform.parse().unwrap();
        let Some(target) = plan.targets.iter().find(|target| target.platform == platform) else {
            return Outcome::Differs(format!("no image for {platform}"));
        };
        if let Some(difference) = difference(target, image) {
            return Outcome::Differs(format!("{platform}: {difference}"));
        }
    }
    Outcome::Fits
}

fn difference(target: &Target, image: &Value) -> Option<String> {
    let (ours, theirs) = (config(target), image["config"].clone());
    if ours != theirs {
        return Some(format!("config\n    {ours}\n    {theirs}"));
    }
    let ours: Vec<Value> = target
        .config
        .history
        .iter()
        .map(|item| json!({"created_by": item.created_by, "empty": item.empty_layer}))
        .collect();
    let theirs = image["history"].as_array().unwrap();
    for (ours, theirs) in ours.iter().zip(theirs) {
        if ours != theirs {
            return Some(format!("history\n    {ours}\n    {theirs}"));
        }
    }
    (ours.len() != theirs.len())
        .then(|| format!("{} items instead of {}", ours.len(), theirs.len()))
}

/// The config in the form of the goldens: sets as lists, nothing empty.
fn config(target: &Target) -> Value {
    let Value::Object(inner) = serde_json::to_value(&target.config.config).unwrap() else {
        panic!("a config is an object")
    };
    let mut shown = Map::new();
    shown.insert(".architecture".into(), json!(target.config.architecture));
    shown.insert(".os".into(), json!(target.config.os));
    if let Some(variant) = &target.config.variant {
        shown.insert(".variant".into(), json!(variant));
    }
    if !target.config.author.is_empty() {
        shown.insert(".author".into(), json!(target.config.author));
    }
    for (key, value) in inner {
        let value = match key.as_str() {
            "ArgsEscaped" => continue,
            "ExposedPorts" | "Volumes" => {
                value.as_object().unwrap().keys().map(|key| json!(key)).collect()
            }
            _ => value,
        };
        shown.insert(key, value);
    }
    Value::Object(shown)
}

fn dockerfile(case: &Path, args: &Value) -> Option<String> {
    let name = args["dockerfile"].as_str().unwrap_or("Dockerfile");
    let places = [case.join("Dockerfile"), case.join("context").join(name)];
    places.iter().find_map(|place| fs_err::read_to_string(place).ok())
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.is_dir());
    paths.sort();
    paths
}

fn cases() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("RBUILD_SHARED").map_or(beside, PathBuf::from);
    let cases = shared.join("cases");
    if cases.join("own").is_dir() {
        return Some(cases);
    }
    println!("skipped: no conformance cases at {}", cases.display());
    None
}
