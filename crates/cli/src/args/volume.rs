//! `-v SRC:DST[:OPTIONS]` and files of variables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild::{Hold, Volume, VolumeSource};

use crate::environment::Environment;
use crate::failure::Failure;

/// Reads one `--volume`. A target alone is an anonymous volume.
pub fn parse(text: &str) -> Result<Volume, Failure> {
    let refuse = |why: &str| {
        Failure::usage_hint(
            format!("--volume {text}: {why}"),
            "the form is SOURCE:/TARGET[:ro], where SOURCE is a path, the name of a volume, or \
             cache:ID for a cache mount of builds",
        )
    };
    let parts: Vec<&str> = text.split(':').collect();
    // `cache:/x:ro` is a volume named cache.
    let of_cache = match parts.as_slice() {
        ["cache", id, target, ..] if !id.is_empty() && target.starts_with('/') => Some(*id),
        _ => None,
    };
    let parts = match of_cache {
        Some(_) => &parts[1..],
        None => parts.as_slice(),
    };
    let (source, target, options) = match parts {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(refuse("too many colons")),
    };
    if source == Some("") {
        return Err(refuse("no source"));
    }
    if !target.starts_with('/') || target == "/" {
        return Err(refuse("the target is not an absolute path below /"));
    }
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => read_only = true,
            // The rest is for labels of SELinux and for systems where files are far away.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            other => return Err(refuse(&format!("option `{other}` is not supported yet"))),
        }
    }
    let target = target.to_owned();
    let source = match of_cache {
        Some(id) => VolumeSource::Cache { id: id.to_owned(), hold: Hold::Shared },
        None => source.map_or(VolumeSource::Anonymous, self::source),
    };
    Ok(Volume { source, target, read_only })
}

/// A path has a slash in it or starts with a dot; everything else is a name.
fn source(text: &str) -> VolumeSource {
    let is_path = text.contains('/') || text.starts_with('.');
    match is_path {
        true => VolumeSource::Path(absolute(text)),
        false => VolumeSource::Named(text.to_owned()),
    }
}

/// A path of the host, whole.
pub fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// The variables of `--env-file` and `--env`, in the order in which later ones win. A name alone
/// takes the caller's value, and is left out when there is none.
pub fn variables(
    files: &[PathBuf],
    given: &[String],
    environment: &Environment,
) -> Result<Vec<String>, Failure> {
    let mut variables = Vec::new();
    for file in files {
        let text = fs_err::read_to_string(file).map_err(Failure::io("read the variables"))?;
        variables.extend(of_file(&text, file, environment)?);
    }
    for text in given {
        if text.is_empty() || text.starts_with('=') {
            return Err(Failure::usage(format!("--env {text}: no name")));
        }
        variables.extend(variable(text, environment));
    }
    Ok(variables)
}

/// The labels of `--label-file` and `--label`, of which later ones win.
pub fn labels(files: &[PathBuf], given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut lines = Vec::new();
    for file in files {
        let text = fs_err::read_to_string(file).map_err(Failure::io("read the labels"))?;
        let labels = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        lines.extend(labels.filter(|line| !line.is_empty()).map(str::to_owned));
    }
    lines.extend(given.iter().cloned());
    let mut labels = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once('=').unwrap_or((&line, ""));
        if name.is_empty() {
            return Err(Failure::usage(format!("--label {line}: no name")));
        }
        labels.insert(name.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// Docker's grammar: no quotes, no expansion; `#` starts a comment only at the start of a line.
fn of_file(text: &str, path: &Path, environment: &Environment) -> Result<Vec<String>, Failure> {
    let mut variables = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            let place = format!("{}:{}", path.display(), number + 1);
            return Err(Failure::usage(format!("{place}: {name:?} is not a name")));
        }
        variables.extend(variable(line, environment));
    }
    Ok(variables)
}

fn variable(text: &str, environment: &Environment) -> Option<String> {
    match text.contains('=') {
        true => Some(text.to_owned()),
        false => environment.get(text).map(|value| format!("{text}={value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_volumes() {
        let volume = |text: &str| parse(text).unwrap();
        assert_eq!(volume("/a:/b:ro,z").source, VolumeSource::Path("/a".into()));
        assert!(volume("/a:/b:ro,z").read_only && volume("/a:/b").target == "/b");
        assert_eq!(volume("data:/b").source, VolumeSource::Named("data".to_owned()));
        assert_eq!(volume("/b").source, VolumeSource::Anonymous);
        let cache = |id: &str| VolumeSource::Cache { id: id.to_owned(), hold: Hold::Shared };
        assert_eq!(volume("cache:go:/b:ro").source, cache("go"));
        assert_eq!(volume("cache:/root/.cache:/b").source, cache("/root/.cache"));
        assert_eq!(volume("cache:/b:ro").source, VolumeSource::Named("cache".to_owned()));
        let here = std::env::current_dir().unwrap();
        assert_eq!(volume("./x:/b").source, VolumeSource::Path(here.join("x")));
        for bad in ["", "a:b", ":/x", "/a:/b:ro:z", "/a:/b:what", "/a:/"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_of_variables_follow_docker() {
        let environment = Environment::of(&[("SET", "s")]);
        let text = "\u{feff}# comment\n\n  A=1 # not a comment\nB=\"quoted\"\nSET\nUNSET\nC=\n";
        let variables = of_file(text, Path::new("f"), &environment).unwrap();
        assert_eq!(variables, ["A=1 # not a comment", "B=\"quoted\"", "SET=s", "C="]);
        assert!(of_file("A B=1", Path::new("f"), &environment).is_err());
        assert!(of_file("=1", Path::new("f"), &environment).is_err());
    }
}
