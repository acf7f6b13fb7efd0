//! Why a step's key is not the one that it had: two documents compared.
//!
//! The documents are those that keys are the digests of (`key.rs`). What the instruction itself
//! says comes first, then its environment, then files, then what it builds upon: a step whose text
//! changed is explained by that, whatever else changed below it.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_parser::lint::is_secret;
use rbuild_plan::without_passwords;
use rbuild_types::{FileChange, Reason};
use serde_json::{Map, Value};

use crate::copy::{Input, InputKind};

/// Differences that are told of one step.
const MAX_REASONS: usize = 50;

/// A step as it is now, or as it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    /// Its name; what stands in brackets before it does not count.
    pub(crate) name: &'a str,
    /// The document of its key.
    pub(crate) inputs: &'a Value,
    /// The files that its content digest is made of.
    pub(crate) files: &'a [Input],
}

/// What else is known of the step as it is now.
pub(crate) struct Surroundings<'a> {
    /// Names of the `ARG`s among its variables.
    pub(crate) args: &'a [String],
    /// What is to be said of the root filesystem that it changes, should that be another.
    pub(crate) root: Option<Reason>,
    /// What is different about its other inputs.
    pub(crate) inputs: Vec<Reason>,
}

/// Everything that differs, the most telling first, up to a bound. Empty when the documents are
/// equal.
pub(crate) fn differences(
    old: Step<'_>,
    new: Step<'_>,
    surroundings: &Surroundings<'_>,
) -> Vec<Reason> {
    let (was, is) = (&old.inputs["step"], &new.inputs["step"]);
    let mut reasons = Vec::new();
    match is["op"].as_str() {
        Some("run") => run(&was["run"], &is["run"], old, new, surroundings, &mut reasons),
        Some("copy") => copy(was, is, old, new, &mut reasons),
        _ => settings(was, is, &[], &mut reasons),
    }
    secrets(&old.inputs["secrets"], &new.inputs["secrets"], &mut reasons);
    // Files that were fetched are told by where they are from.
    let is_remote = |reason: &&Reason| matches!(reason, Reason::Remote { .. });
    let (remotes, others): (Vec<_>, Vec<_>) = surroundings.inputs.iter().partition(is_remote);
    reasons.extend(remotes.into_iter().cloned());
    let reads_same = old.inputs["content"] == new.inputs["content"];
    if !reads_same {
        let before = reasons.len();
        files(old.files, new.files, &mut reasons);
        // Of a stage that files are copied from, the files say it.
        if reasons.len() == before {
            reasons.extend(others.into_iter().cloned());
        }
        if reasons.len() == before && is["op"] == "copy" {
            reasons.push(Reason::Files);
        }
    }
    if old.inputs["root"] != new.inputs["root"] {
        reasons.extend(surroundings.root.clone());
    }
    reasons.truncate(MAX_REASONS);
    if reasons.is_empty() && old.inputs != new.inputs {
        reasons.push(Reason::Unknown);
    }
    reasons
}

fn run(
    was: &Value,
    is: &Value,
    old: Step<'_>,
    new: Step<'_>,
    surroundings: &Surroundings<'_>,
    reasons: &mut Vec<Reason>,
) {
    if was["argv"] != is["argv"] || was["scripts"] != is["scripts"] {
        let (before, after) = (text_of(old.name), text_of(new.name));
        reasons.push(match before == after {
            // The name has the first line of a here-document only.
            true => Reason::Text { old: command(was), new: command(is) },
            false => Reason::Text { old: before.to_owned(), new: after.to_owned() },
        });
    }
    variables(&was["env"], &is["env"], surroundings.args, reasons);
    settings(was, is, &["argv", "scripts", "env"], reasons);
}

fn copy(was: &Value, is: &Value, old: Step<'_>, new: Step<'_>, reasons: &mut Vec<Reason>) {
    const TEXT: [&str; 3] = ["sources", "destination", "into_directory"];
    if TEXT.iter().any(|field| was[field] != is[field]) {
        let (before, after) = (text_of(old.name), text_of(new.name));
        // An inline file differs in its bytes only: its content says so.
        if before != after {
            reasons.push(Reason::Text { old: before.to_owned(), new: after.to_owned() });
        }
    }
    settings(was, is, &TEXT, reasons);
}

/// A name without `[stage 1/2] `.
pub(crate) fn text_of(name: &str) -> &str {
    match name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, text)) => text,
        None => name,
    }
}

/// What a process is, without the shell before it where that is usual.
fn command(run: &Value) -> String {
    let last = run["argv"].as_array().and_then(|argv| argv.last()).and_then(Value::as_str);
    let script = run["scripts"].as_array().and_then(|scripts| scripts.first());
    let script = script.and_then(|script| script["content"].as_str());
    without_passwords(script.or(last).unwrap_or_default())
}

fn variables(was: &Value, is: &Value, args: &[String], reasons: &mut Vec<Reason>) {
    let (was, is) = (pairs(was), pairs(is));
    let names: BTreeSet<&str> = was.keys().chain(is.keys()).copied().collect();
    for name in names {
        let (old, new) = (was.get(name), is.get(name));
        if old == new {
            continue;
        }
        let shown = |value: Option<&&str>| {
            value.map(|value| match is_secret(name) {
                true => "****".to_owned(),
                false => without_passwords(value),
            })
        };
        let arg = args.iter().any(|arg| arg == name);
        let name = name.to_owned();
        reasons.push(Reason::Variable { arg, name, old: shown(old), new: shown(new) });
    }
}

fn pairs(env: &Value) -> BTreeMap<&str, &str> {
    let list = env.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|pair| pair.as_str()?.split_once('=')).collect()
}

/// What of secrets is in keys.
fn secrets(was: &Value, is: &Value, reasons: &mut Vec<Reason>) {
    let empty = Map::new();
    let (was, is) = (was.as_object().unwrap_or(&empty), is.as_object().unwrap_or(&empty));
    let ids: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let changed = ids.into_iter().filter(|id| was.get(*id) != is.get(*id));
    reasons.extend(changed.map(|id| Reason::Secret { id: id.clone() }));
}

/// Everything else, field by field.
fn settings(was: &Value, is: &Value, said: &[&str], reasons: &mut Vec<Reason>) {
    let empty = Map::new();
    let was = was.as_object().unwrap_or(&empty);
    let is = is.as_object().unwrap_or(&empty);
    let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    for name in names {
        let (old, new) = (was.get(name), is.get(name));
        if old != new && !said.contains(&name.as_str()) {
            let name = setting(name);
            reasons.push(Reason::Setting { name, old: shown(old), new: shown(new) });
        }
    }
}

/// A field of a document as people write it.
fn setting(field: &str) -> String {
    match field {
        "cwd" => "WORKDIR",
        "user" => "USER",
        "has_root" => "FROM scratch",
        "created" | "latest" => "SOURCE_DATE_EPOCH",
        "mounts" => "--mount",
        "devices" => "--device",
        "extra_hosts" => "--add-host",
        "ulimits" => "--ulimit",
        "shm_size" => "--shm-size",
        "security" | "network" | "chown" | "chmod" | "unpack" | "link" | "parents" => {
            return format!("--{field}");
        }
        other => other,
    }
    .to_owned()
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "not set".to_owned(),
        Some(Value::String(text)) => without_passwords(text),
        Some(other) => without_passwords(&other.to_string()),
    }
}

fn files(old: &[Input], new: &[Input], reasons: &mut Vec<Reason>) {
    let (was, is) = (by_path(old), by_path(new));
    let mut changes = Vec::new();
    for (path, now) in &is {
        let change = match was.get(path) {
            None => Some(FileChange::Added),
            Some(before) => change_of(before, now),
        };
        changes.extend(change.map(|change| (*path, change)));
    }
    let gone = was.keys().filter(|path| !is.contains_key(*path));
    changes.extend(gone.map(|path| (*path, FileChange::Removed)));
    // What changed says more than what is new: a directory comes with all that is in it.
    changes.sort_by_key(|(path, change)| (rank(change), *path));
    let told = changes.into_iter().take(MAX_REASONS);
    reasons.extend(told.map(|(path, change)| Reason::File { path: path.to_owned(), change }));
}

fn rank(change: &FileChange) -> u8 {
    match change {
        FileChange::Added => 1,
        FileChange::Removed => 2,
        _ => 0,
    }
}

fn by_path(files: &[Input]) -> BTreeMap<&str, &Input> {
    files.iter().map(|file| (file.path.as_str(), file)).collect()
}

fn change_of(was: &Input, is: &Input) -> Option<FileChange> {
    if was == is {
        return None;
    }
    if was.kind != is.kind {
        return Some(FileChange::Kind { old: word(was.kind), new: word(is.kind) });
    }
    if let (Some(old), Some(new)) = (was.digest, is.digest)
        && old != new
    {
        return Some(FileChange::Content { old, new });
    }
    if let (Some(old), Some(new)) = (&was.target, &is.target)
        && old != new
    {
        return Some(FileChange::Target { old: old.clone(), new: new.clone() });
    }
    if was.mode != is.mode {
        return Some(FileChange::Mode { old: was.mode, new: is.mode });
    }
    if was.owner != is.owner {
        return Some(FileChange::Owner { old: was.owner, new: is.owner });
    }
    Some(FileChange::Attributes)
}

fn word(kind: InputKind) -> String {
    match kind {
        InputKind::File => "file",
        InputKind::Directory => "directory",
        InputKind::Link => "link",
        InputKind::Special => "device or pipe",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use rbuild_types::Digest;
    use serde_json::json;

    use super::*;

    fn compare(old: Value, new: Value, files: (Vec<Input>, Vec<Input>)) -> Vec<String> {
        let root = Some(Reason::Below { step: "below".to_owned() });
        let surroundings = Surroundings { args: &["A".to_owned()], root, inputs: Vec::new() };
        let old = Step { name: "[1/2] RUN a", inputs: &old, files: &files.0 };
        let new = Step { name: "[s 2/3] RUN b", inputs: &new, files: &files.1 };
        differences(old, new, &surroundings).iter().map(ToString::to_string).collect()
    }

    fn document(run: Value, root: &str) -> Value {
        let mut run = run;
        run["op"] = json!("run");
        json!({ "step": { "op": "run", "run": run }, "root": root, "content": [root] })
    }

    #[test]
    fn what_the_instruction_says_comes_before_what_is_below() {
        let old = document(json!({ "argv": ["a"], "env": ["A=1", "PASSWORD=x"], "user": "" }), "r");
        let new = document(
            json!({ "argv": ["b"], "env": ["A=2", "B=3", "PASSWORD=y"], "user": "app" }),
            "s",
        );
        let expected = [
            "the instruction changed: RUN a → RUN b",
            "ARG A changed: \"1\" → \"2\"",
            "ENV B changed: not set → \"3\"",
            "ENV PASSWORD changed: \"****\" → \"****\"",
            "USER changed:  → app",
            "what it builds upon changed: below",
        ];
        assert_eq!(compare(old, new, Default::default()), expected);
    }

    #[test]
    fn of_files_the_changed_ones_come_first() {
        let file = |path: &str, mode: u32| Input {
            path: path.to_owned(),
            kind: InputKind::File,
            mode,
            owner: (0, 0),
            size: 1,
            digest: Some(Digest::of(path)),
            target: None,
        };
        let old = json!({ "step": { "op": "copy" }, "root": 1, "content": 1 });
        let new = json!({ "step": { "op": "copy" }, "root": 1, "content": 2 });
        let files = (
            vec![file("/b", 0o644), file("/old", 0o644), file("/same", 0o644)],
            vec![file("/a", 0o644), file("/b", 0o600), file("/same", 0o644)],
        );
        let expected = ["/b has another mode: 0644 → 0600", "/a is new", "/old is gone"];
        assert_eq!(compare(old, new, files), expected);
    }

    #[test]
    fn what_cannot_be_told_is_said_to_be_so() {
        let old = json!({ "step": { "op": "copy" }, "root": 1, "content": 1 });
        let new = json!({ "step": { "op": "copy" }, "root": 1, "content": 2 });
        let said = compare(old.clone(), new, Default::default());
        assert_eq!(said, [Reason::Files.to_string()]);
        let new = json!({ "step": { "op": "copy" }, "root": 1, "content": 1, "other": 1 });
        let said = compare(old.clone(), new, Default::default());
        assert_eq!(said, [Reason::Unknown.to_string()]);
        assert!(compare(old.clone(), old, Default::default()).is_empty());
    }
}
