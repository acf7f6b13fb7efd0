//! Reads the journal, and what is added to it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::{Event, MAX_LINE, MAX_SIZE, OLD, file, is_at};

/// Longest file that is read: the last writers may go over the limit.
const LONGEST: u64 = 2 * MAX_SIZE;

/// What is known of the past, the oldest first, and what comes after it.
///
/// # Errors
///
/// When the journal is there and cannot be read.
pub fn read(store: &Path) -> io::Result<(Vec<Event>, FollowEvents)> {
    let mut events = Vec::new();
    if let Some(old) = open(&store.join(OLD))? {
        let mut text = Vec::new();
        old.take(LONGEST).read_to_end(&mut text)?;
        events.extend(text.split(|byte| *byte == b'\n').filter_map(parse));
    }
    let mut follow =
        FollowEvents { path: file(store), file: open(&file(store))?, begun: Vec::new() };
    events.extend(follow.more()?);
    Ok((events, follow))
}

/// Reads what is added to the journal.
#[derive(Debug)]
pub struct FollowEvents {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line.
    begun: Vec<u8>,
}

impl FollowEvents {
    /// What was added since the last call; nothing when that is nothing.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read.
    pub fn more(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        // In this order: who renames a file has nothing more for it.
        let is_current = self.file.as_ref().is_some_and(|open| is_at(open, &self.path));
        self.read_on(&mut events)?;
        if !is_current && let Some(next) = open(&self.path)? {
            self.begun.clear();
            self.file = Some(next);
            self.read_on(&mut events)?;
        }
        Ok(events)
    }

    fn read_on(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.take(LONGEST).read_to_end(&mut self.begun)?;
        if let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') {
            let whole: Vec<u8> = self.begun.drain(..=end).collect();
            events.extend(whole.split(|byte| *byte == b'\n').filter_map(parse));
        }
        if self.begun.len() > MAX_LINE {
            self.begun.clear();
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match fs_err::File::open(path) {
        Ok(file) => Ok(Some(file.into_file())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is no event is passed over.
fn parse(line: &[u8]) -> Option<Event> {
    serde_json::from_slice(line).ok()
}
