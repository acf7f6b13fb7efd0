//! Why a step ran instead of being taken from the cache.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The first thing that differs from when the step was last run, or what else kept its result from
/// being used. As text it is one line, made to follow a step's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// No earlier build had such a step.
    New,
    /// The cache was not to be read for it.
    NoCache,
    /// Its result was pruned.
    Evicted {
        /// Milliseconds since 1970.
        at: i64,
    },
    /// Its record or its files are gone, though nobody pruned them: damage, a power cut, a lost
    /// index.
    Lost,
    /// It failed, or was stopped, in the last build.
    Unfinished,
    /// Its result is older than it may be.
    Expired {
        /// Seconds since it was made.
        age: u64,
        /// Seconds that it may be used.
        ttl: u64,
    },
    /// The instruction says something else.
    Text {
        /// What it said.
        old: String,
        /// What it says.
        new: String,
    },
    /// A variable of its environment differs.
    Variable {
        /// Whether an `ARG` gives it, and not an `ENV`.
        arg: bool,
        /// Its name.
        name: String,
        /// What it was; `None` when it was not set. Stars where its name is that of a secret.
        old: Option<String>,
        /// What it is.
        new: Option<String>,
    },
    /// Something else that the instruction, an option or the image says of the step differs.
    Setting {
        /// What it is, such as `user`, `--chown`, `network`.
        name: String,
        /// What it was.
        old: String,
        /// What it is.
        new: String,
    },
    /// The base image is another.
    Base {
        /// Its name.
        image: String,
        /// The digest that it had; empty if nobody knows.
        old: String,
        /// The digest that it has.
        new: String,
    },
    /// What a URL or a git reference stands for is another.
    Remote {
        /// Its address.
        name: String,
        /// Digest or commit that it had; empty if nobody knows.
        old: String,
        /// Digest or commit that it has.
        new: String,
    },
    /// A file that it copies or is shown differs.
    File {
        /// Its path in the context, the stage or the image.
        path: String,
        /// What about it.
        change: FileChange,
    },
    /// Files that it copies differ, and which is not known any more.
    Files,
    /// A secret that is a part of its key has another value.
    Secret {
        /// The secret's id.
        id: String,
    },
    /// The step that it builds upon gave another result.
    Below {
        /// That step's name.
        step: String,
    },
    /// A stage or image that it reads differs.
    Input {
        /// The name of that stage's last step, or of the image.
        step: String,
    },
    /// Something differs, and what it was like is not known any more.
    Unknown,
}

/// What differs about a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FileChange {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// Its bytes.
    Content {
        /// Digest of what they were.
        old: Digest,
        /// Digest of what they are.
        new: Digest,
    },
    /// Its permission bits.
    Mode {
        /// What they were.
        old: u32,
        /// What they are.
        new: u32,
    },
    /// Its owner and group.
    Owner {
        /// What they were.
        old: (u32, u32),
        /// What they are.
        new: (u32, u32),
    },
    /// Whether it is a file, a directory, a link.
    Kind {
        /// What it was.
        old: String,
        /// What it is.
        new: String,
    },
    /// Where it leads, for a link.
    Target {
        /// Where it led.
        old: String,
        /// Where it leads.
        new: String,
    },
    /// Something else: a device's number, a capability.
    Attributes,
}

/// Hexadecimal digits of a digest that people are shown.
const SHORT: usize = 12;
/// Letters of a value that people are shown.
const LONG: usize = 60;

fn short(digest: &str) -> String {
    let bare = digest.rsplit_once(':').map_or(digest, |(_, hex)| hex);
    bare.chars().take(SHORT).collect()
}

fn cut(text: &str) -> String {
    let line = text.replace(['\n', '\r', '\t'], " ");
    match line.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn value(text: &Option<String>) -> String {
    text.as_deref().map_or("not set".to_owned(), |text| format!("\"{}\"", cut(text)))
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new step"),
            Self::NoCache => f.write_str("the cache is not to be used"),
            Self::Evicted { .. } => f.write_str("its result was pruned"),
            Self::Lost => f.write_str("its result is gone from the store"),
            Self::Unfinished => f.write_str("it did not finish in the last build"),
            Self::Expired { age, ttl } => {
                write!(f, "its result is {} old, more than {}", duration(*age), duration(*ttl))
            }
            Self::Text { old, new } => {
                write!(f, "the instruction changed: {} → {}", cut(old), cut(new))
            }
            Self::Variable { arg, name, old, new } => {
                let what = if *arg { "ARG" } else { "ENV" };
                write!(f, "{what} {name} changed: {} → {}", value(old), value(new))
            }
            Self::Setting { name, old, new } => {
                write!(f, "{name} changed: {} → {}", cut(old), cut(new))
            }
            Self::Base { image, old, new } => {
                write!(f, "base image {image} changed")?;
                change_of(f, old, new)
            }
            Self::Remote { name, old, new } => {
                write!(f, "{} changed", cut(name))?;
                change_of(f, old, new)
            }
            Self::File { path, change } => write!(f, "{path} {change}"),
            Self::Files => {
                f.write_str("the files that it takes changed; which, is not known any more")
            }
            Self::Secret { id } => write!(f, "secret {id} changed"),
            Self::Below { step } => write!(f, "what it builds upon changed: {}", cut(step)),
            Self::Input { step } => write!(f, "what it reads changed: {}", cut(step)),
            Self::Unknown => {
                f.write_str("its inputs changed, and the earlier ones are not known any more")
            }
        }
    }
}

fn change_of(f: &mut fmt::Formatter<'_>, old: &str, new: &str) -> fmt::Result {
    match old.is_empty() || new.is_empty() {
        true => Ok(()),
        false => write!(f, ": {} → {}", short(old), short(new)),
    }
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => f.write_str("is new"),
            Self::Removed => f.write_str("is gone"),
            Self::Content { old, new } => {
                f.write_str("changed")?;
                change_of(f, &old.to_string(), &new.to_string())
            }
            Self::Mode { old, new } => write!(f, "has another mode: {old:04o} → {new:04o}"),
            Self::Owner { old, new } => {
                write!(f, "has another owner: {}:{} → {}:{}", old.0, old.1, new.0, new.1)
            }
            Self::Kind { old, new } => write!(f, "was a {old} and is a {new}"),
            Self::Target { old, new } => {
                write!(f, "leads elsewhere: {} → {}", cut(old), cut(new))
            }
            Self::Attributes => f.write_str("has other attributes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        let long = "x\n".repeat(500);
        let reason = Reason::Text { old: long.clone(), new: long };
        let text = reason.to_string();
        assert!(!text.contains('\n') && text.chars().count() < 200, "{text}");
        let mode = FileChange::Mode { old: 0o644, new: 0o4755 };
        let reason = Reason::File { path: "/run.sh".to_owned(), change: mode };
        assert_eq!(reason.to_string(), "/run.sh has another mode: 0644 → 4755");
    }

    #[test]
    fn a_reason_is_read_back_from_its_json() {
        for reason in [
            Reason::New,
            Reason::Expired { age: 9, ttl: 8 },
            Reason::File {
                path: "/a".to_owned(),
                change: FileChange::Content { old: Digest::of("a"), new: Digest::of("b") },
            },
        ] {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(serde_json::from_str::<Reason>(&json).unwrap(), reason, "{json}");
        }
    }
}
