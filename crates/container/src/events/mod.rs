//! What happens in a store: a journal of JSON lines, in Docker's form, written by whoever does it.
//!
//! `events` of the store is the newest file, `events.1` the one before it. A line is appended by
//! one write, so those of several processes do not mix, and nothing waits for the disk: what a
//! power cut takes is lost. A file that is large enough is renamed by whoever writes next and holds
//! a kernel lock on it; who has just opened it appends to it still. What cannot be written is not
//! told: a full disk keeps nobody from anything.

mod changes;
mod read;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use changes::told;
pub use read::{FollowEvents, read};

use crate::instant;

/// The newest file.
const FILE: &str = "events";
/// The one before it.
const OLD: &str = "events.1";
/// Bytes after which a new file is begun.
const MAX_SIZE: u64 = 1 << 20;
/// Longest line: what is said besides of an event that is longer is left out.
const MAX_LINE: usize = 16 << 10;
/// The file with a container's name.
const NAME: &str = "name";

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    /// `container`, `image`, `network` or `volume`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `start`, `die` and others, in Docker's words.
    pub action: String,
    /// To what.
    pub actor: Actor,
    /// When, in nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time: i64,
}

/// What something happened to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Its id, or its name where it has none.
    #[serde(rename = "ID")]
    pub id: String,
    /// What is said of it besides: its name, image and labels, an exit code, a signal.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// An event that happens now.
    pub fn now(kind: &str, action: impl Into<String>, id: impl Into<String>) -> Self {
        let actor = Actor { id: id.into(), attributes: BTreeMap::new() };
        Self { kind: kind.to_owned(), action: action.into(), actor, time: instant::now() }
    }

    /// One of the container in `directory`.
    pub fn of_container(directory: &Path, action: impl Into<String>) -> Self {
        let id = directory.file_name().map(|id| id.to_string_lossy().into_owned());
        let event = Self::now("container", action, id.unwrap_or_default());
        match fs_err::read_to_string(directory.join(NAME)) {
            Ok(name) => event.with("name", name),
            Err(_) => event,
        }
    }

    /// Says something besides.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.actor.attributes.insert(name.to_owned(), value.into());
        self
    }

    /// Says more besides; what was said already stays.
    #[must_use]
    pub fn or_all(mut self, attributes: &BTreeMap<String, String>) -> Self {
        for (name, value) in attributes {
            self.actor.attributes.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self
    }

    /// Writes it into the journal of the store in `store`.
    pub fn note(self, store: &Path) {
        // See the header: nobody is kept from anything.
        let _ = self.append(store);
    }

    /// Writes it into the journal of the store that the container in `directory` belongs to.
    pub fn note_beside(self, directory: &Path) {
        if let Some(store) = directory.parent().and_then(Path::parent) {
            self.note(store);
        }
    }

    fn append(self, store: &Path) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(&self)?;
        if line.len() >= MAX_LINE {
            let mut short = self;
            short.actor.attributes.retain(|name, value| name.len() + value.len() < 256);
            while short.actor.attributes.len() > 16 {
                short.actor.attributes.pop_last();
            }
            line = serde_json::to_vec(&short)?;
        }
        line.push(b'\n');
        let path = file(store);
        let open = || {
            fs_err::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .map(fs_err::File::into_file)
        };
        let mut journal = open()?;
        if journal.metadata()?.len() >= MAX_SIZE {
            rotate(&journal, store)?;
            journal = open()?;
        }
        journal.write_all(&line)
    }
}

/// A time of an event by RFC 3339, with nine digits of a second.
pub fn written(time: i64) -> String {
    instant::written(time)
}

fn file(store: &Path) -> PathBuf {
    store.join(FILE)
}

/// Makes the file the old one, unless somebody is at it or has done it.
fn rotate(journal: &File, store: &Path) -> std::io::Result<()> {
    if journal.try_lock().is_ok() && is_at(journal, &file(store)) {
        fs_err::rename(file(store), store.join(OLD))?;
    }
    Ok(())
}

/// Whether a file has this path still.
fn is_at(open: &File, path: &Path) -> bool {
    let named = fs_err::metadata(path).map(|named| (named.dev(), named.ino()));
    let open = open.metadata().map(|open| (open.dev(), open.ino()));
    matches!((open, named), (Ok(open), Ok(named)) if open == named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(store: &Path) -> Vec<String> {
        read(store).unwrap().0.into_iter().map(|event| event.actor.id).collect()
    }

    #[test]
    fn events_come_back_in_order_and_are_followed_over_rotations() {
        let store = tempfile::tempdir().unwrap();
        let note =
            |id: &str| Event::now("container", "start", id).with("a", "b").note(store.path());
        note("one");
        assert_eq!(all(store.path()), ["one"]);
        let (_, mut follow) = read(store.path()).unwrap();
        let long = "x".repeat(1000);
        for number in 0..2500 {
            Event::now("image", "tag", number.to_string()).with("l", &long).note(store.path());
            if number % 500 == 0 {
                assert!(!follow.more().unwrap().is_empty(), "{number}");
            }
        }
        assert!(store.path().join(OLD).exists() && !store.path().join("events.2").exists());
        for name in [FILE, OLD] {
            let size = fs_err::metadata(store.path().join(name)).unwrap().len();
            assert!(size < MAX_SIZE + MAX_LINE as u64, "{size}");
        }
        note("last");
        let mut rest = Vec::new();
        while let more @ [_, ..] = follow.more().unwrap().as_slice() {
            rest.extend(more.iter().map(|event| event.actor.id.clone()));
        }
        assert_eq!(rest.last().map(String::as_str), Some("last"));
        assert_eq!(all(store.path()).last().map(String::as_str), Some("last"));
    }

    #[test]
    fn what_is_too_long_is_shortened_and_what_is_damaged_passed_over() {
        let store = tempfile::tempdir().unwrap();
        let labels: BTreeMap<_, _> =
            (0..9999).map(|n| (format!("l{n}"), "x".repeat(n % 300))).collect();
        Event::now("container", "create", "many").or_all(&labels).note(store.path());
        assert!(fs_err::metadata(file(store.path())).unwrap().len() < MAX_LINE as u64);
        let mut journal = fs_err::OpenOptions::new().append(true).open(file(store.path())).unwrap();
        journal.write_all(b"{\"Type\":\n\xff\n").unwrap();
        Event::now("volume", "create", "after").note(store.path());
        assert_eq!(all(store.path()), ["many", "after"]);
    }

    #[test]
    fn many_write_at_once() {
        let store = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let store = store.path();
                scope.spawn(move || {
                    for number in 0..100 {
                        Event::now("volume", "create", format!("{writer}-{number}")).note(store);
                    }
                });
            }
        });
        assert_eq!(all(store.path()).len(), 400);
    }

    proptest::proptest! {
        #[test]
        fn other_bytes_do_no_harm(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let store = tempfile::tempdir().unwrap();
            fs_err::write(file(store.path()), bytes).unwrap();
            let _ = read(store.path()).unwrap();
        }
    }
}
