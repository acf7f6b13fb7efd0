//! Settles which command a line means before clap reads it: `rbuild -t app .` builds, and Docker's
//! longer spellings (`image ls`, `system df`) are the short ones.

use std::ffi::{OsStr, OsString};

use crate::failure::Failure;

const COMMANDS: &[&str] = &[
    super::CONTAINER_PRUNE,
    super::IMAGE_PRUNE,
    "build",
    "context",
    "lock",
    "run",
    "create",
    "start",
    "stop",
    "restart",
    "kill",
    "rm",
    "ps",
    "logs",
    "exec",
    "shell",
    "builds",
    "attach",
    "top",
    "stats",
    "events",
    "pause",
    "unpause",
    "wait",
    "rename",
    "update",
    "cp",
    "commit",
    "export",
    "import",
    "port",
    "network",
    "volume",
    "images",
    "rmi",
    "tag",
    "inspect",
    "history",
    "layers",
    "diff",
    "repro",
    "manifest",
    "pull",
    "push",
    "save",
    "load",
    "login",
    "logout",
    "why",
    "du",
    "prune",
    "cache",
    "fsck",
    "version",
    "info",
    "help",
];

/// Flags of the whole command that take a value as the next word.
const WITH_VALUE: &[&str] = &[
    "--root",
    "--registry-mirror",
    "--insecure-registry",
    "--authfile",
    "--creds",
    "--cert-dir",
    "--token-host",
    "--max-used-space",
    "--reserved-space",
    "--keep-storage",
    "--min-free-space",
];

/// Flags of the whole command that take none, or one behind `=`.
const SWITCHES: &[&str] = &["--offline", "--tls-verify"];

/// Flags that clap answers itself.
const ANSWERED: &[&str] = &["-h", "--help", "-v", "-V", "--version"];

/// Flags that Docker has before its commands, and that are not here yet.
const OF_DOCKER: &[&str] = &[
    "--config",
    "--context",
    "--host",
    "--log-level",
    "--tls",
    "--tlscacert",
    "--tlscert",
    "--tlskey",
    "--tlsverify",
    "-H",
    "-l",
];

/// Docker's spellings in two words.
const LONG_FORMS: &[(&str, &str, &str)] = &[
    ("buildx", "build", "build"),
    ("buildx", "du", "du"),
    ("buildx", "prune", "prune"),
    ("builder", "build", "build"),
    ("builder", "prune", "prune"),
    ("container", "attach", "attach"),
    ("container", "commit", "commit"),
    ("container", "cp", "cp"),
    ("container", "create", "create"),
    ("container", "diff", "diff"),
    ("container", "exec", "exec"),
    ("container", "export", "export"),
    ("container", "inspect", "inspect"),
    ("container", "kill", "kill"),
    ("container", "list", "ps"),
    ("container", "logs", "logs"),
    ("container", "ls", "ps"),
    ("container", "pause", "pause"),
    ("container", "port", "port"),
    ("container", "prune", super::CONTAINER_PRUNE),
    ("container", "ps", "ps"),
    ("container", "remove", "rm"),
    ("container", "rename", "rename"),
    ("container", "restart", "restart"),
    ("container", "rm", "rm"),
    ("container", "run", "run"),
    ("container", "start", "start"),
    ("container", "stats", "stats"),
    ("container", "stop", "stop"),
    ("container", "top", "top"),
    ("container", "unpause", "unpause"),
    ("container", "update", "update"),
    ("container", "wait", "wait"),
    ("image", "build", "build"),
    ("image", "history", "history"),
    ("image", "import", "import"),
    ("image", "inspect", "inspect"),
    ("image", "list", "images"),
    ("image", "load", "load"),
    ("image", "ls", "images"),
    ("image", "prune", super::IMAGE_PRUNE),
    ("image", "pull", "pull"),
    ("image", "push", "push"),
    ("image", "remove", "rmi"),
    ("image", "rm", "rmi"),
    ("image", "save", "save"),
    ("image", "tag", "tag"),
    ("system", "df", "du"),
    ("system", "events", "events"),
    ("system", "info", "info"),
];

/// Words of Docker that need a second one. A directory of that name can still be built as
/// `./image`.
const GROUPS: &[&str] = &["builder", "buildx", "container", "image", "system", "trust"];

/// Commands of Docker that are not here yet. A directory of that name can still be built as
/// `./compose`.
const NOT_YET: &[&str] = &["bake", "compose"];

/// The line with its command named.
pub fn settle(mut line: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let Some(at) = of(&line) else { return Ok(line) };
    let word = line[at].to_string_lossy().into_owned();
    let next = line.get(at + 1).map(|next| next.to_string_lossy().into_owned());
    if let Some((_, _, short)) = LONG_FORMS
        .iter()
        .find(|(first, second, _)| *first == word && Some(*second) == next.as_deref())
    {
        line.splice(at..=at + 1, [OsString::from(short)]);
    } else if GROUPS.contains(&word.as_str()) {
        return Err(not_in_group(&word, next.as_deref().filter(|next| !next.starts_with('-'))));
    } else if let Some(flag) =
        OF_DOCKER.iter().find(|flag| **flag == word || is_joined(&word, flag))
    {
        return Err(Failure::usage(format!("{flag} is not supported yet")));
    } else if NOT_YET.contains(&word.as_str()) {
        return Err(Failure::usage(format!("`rbuild {word}` is not supported yet")));
    } else if !COMMANDS.contains(&word.as_str()) && !ANSWERED.contains(&word.as_str()) {
        not_a_misspelling(&line[at], line.len() - at)?;
        line.insert(at, OsString::from("build"));
    }
    Ok(line)
}

/// Nothing is done with the second word of one of the [`GROUPS`], or there is none.
fn not_in_group(group: &str, next: Option<&str>) -> Failure {
    let known: Vec<&str> = LONG_FORMS
        .iter()
        .filter(|(first, _, _)| *first == group)
        .map(|(_, second, _)| *second)
        .collect();
    let message = match next {
        Some(next) => format!("`rbuild {group} {next}` is not supported yet"),
        None if known.is_empty() => format!("`rbuild {group}` is not supported yet"),
        None => format!("`rbuild {group}` needs a command"),
    };
    let near = next.and_then(|next| known.iter().find(|known| is_near(known, next)));
    match near {
        Some(near) => {
            Failure::usage_hint(message, format!("did you mean `rbuild {group} {near}`?"))
        }
        None if known.is_empty() => Failure::usage(message),
        None => Failure::usage_hint(message, format!("of {group} there are {}", known.join(", "))),
    }
}

/// Index of the first word that is not a flag of the whole command.
pub fn of(line: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(word) = line.get(at) {
        let word = word.to_str().unwrap_or_default();
        if WITH_VALUE.contains(&word) {
            at += 2;
        } else if SWITCHES.contains(&word)
            || WITH_VALUE.iter().chain(SWITCHES).any(|flag| is_joined(word, flag))
        {
            at += 1;
        } else {
            return Some(at);
        }
    }
    None
}

/// `--flag=value`.
fn is_joined(word: &str, flag: &str) -> bool {
    word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
}

/// `rbuild imagse` is a command spelled wrong, not a context that does not exist.
fn not_a_misspelling(word: &OsStr, words: usize) -> Result<(), Failure> {
    let text = word.to_string_lossy();
    let plain = text.chars().all(|c| c.is_ascii_lowercase());
    if !plain || text.is_empty() || std::path::Path::new(word).exists() {
        return Ok(());
    }
    let near = COMMANDS.iter().find(|command| is_near(command, &text));
    match near {
        Some(command) => Err(Failure::usage_hint(
            format!("there is neither a command nor a directory named `{text}`"),
            format!("did you mean `rbuild {command}`?"),
        )),
        None if words > 1 => Err(Failure::usage_hint(
            format!("there is neither a command nor a directory named `{text}`"),
            "`rbuild --help` lists the commands",
        )),
        None => Ok(()),
    }
}

/// Whether one edit, or one swap of neighbours, makes `a` into `b`.
fn is_near(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    match (a, b) {
        ([x, y, rest @ ..], [v, w, other @ ..]) if x == w && y == v && rest == other => true,
        ([_, rest @ ..], [_, other @ ..]) if rest == other => true,
        ([_, rest @ ..], other) if rest == other => true,
        (rest, [_, other @ ..]) if rest == other => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        match settle(words) {
            Ok(line) => {
                line.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
            }
            Err(Failure::Usage { message, .. }) => message,
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_command_builds() {
        assert_eq!(settled("rbuild -t app ."), "rbuild build -t app .");
        assert_eq!(settled("rbuild ."), "rbuild build .");
        assert_eq!(settled("rbuild --root /x -q ."), "rbuild --root /x build -q .");
        assert_eq!(settled("rbuild --root=/x images"), "rbuild --root=/x images");
        for line in ["--offline images", "--tls-verify=false --creds a:b pull x"] {
            assert_eq!(settled(&format!("rbuild {line}")), format!("rbuild {line}"));
        }
        assert_eq!(settled("rbuild --version"), "rbuild --version");
        assert_eq!(settled("rbuild"), "rbuild");
    }

    #[test]
    fn long_forms_are_short_ones() {
        assert_eq!(settled("rbuild image ls -q"), "rbuild images -q");
        assert_eq!(settled("rbuild buildx build ."), "rbuild build .");
        assert_eq!(settled("rbuild bake -a"), "`rbuild bake` is not supported yet");
        assert_eq!(settled("rbuild --context=x ."), "--context is not supported yet");
        assert_eq!(settled("rbuild -H tcp://x images"), "-H is not supported yet");
    }

    #[test]
    fn second_words_are_named() {
        for line in [
            "buildx ls",
            "image trust",
            "image frobnicate",
            "builder rm",
            "system prune",
            "trust ls",
            "container checkpoint",
        ] {
            let expected = format!("`rbuild {line}` is not supported yet");
            assert_eq!(settled(&format!("rbuild {line} x")), expected);
        }
        assert_eq!(settled("rbuild image --help"), "`rbuild image` needs a command");
        assert_eq!(settled("rbuild buildx"), "`rbuild buildx` needs a command");
        assert_eq!(settled("rbuild trust"), "`rbuild trust` is not supported yet");
        assert_eq!(settled("rbuild ./image"), "rbuild build ./image");
        let hint = |group, next| match not_in_group(group, Some(next)) {
            Failure::Usage { hints, .. } => hints.join(" "),
            other => panic!("{other:?}"),
        };
        assert_eq!(hint("image", "sl"), "did you mean `rbuild image ls`?");
        assert_eq!(hint("buildx", "ls"), "of buildx there are build, du, prune");
        assert_eq!(hint("trust", "ls"), "");
    }

    #[test]
    fn misspelled_commands_are_not_contexts() {
        assert!(settled("rbuild imagse").starts_with("there is neither"));
        assert!(settled("rbuild buid .").starts_with("there is neither"));
        assert!(is_near("build", "buidl") && is_near("run", "rnu") && is_near("tag", "tags"));
        assert!(!is_near("build", "images"));
    }
}
