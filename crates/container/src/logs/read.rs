//! The reading side: files from the oldest to the newest.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::Path;

use rbuild_types::Stream;

use super::{Line, file};
use crate::{ContainerError, instant};

/// Longest document that is read; ours have no more than six bytes for each of 16 Ki.
const LONGEST: u64 = 1 << 20;
/// As many files are looked for.
pub(super) const MAX_FILES: u32 = 1000;

/// Which entries are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    /// No more than so many of the last ones.
    pub tail: Option<usize>,
    /// Not from before this, in nanoseconds since 1970.
    pub since: Option<i64>,
    /// Not from after this.
    pub until: Option<i64>,
}

/// One line that a container wrote, or a piece of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When, in nanoseconds since 1970.
    pub time: i64,
    /// Where to.
    pub stream: Stream,
    /// The text, with the newline if there was one.
    pub text: String,
}

impl Entry {
    /// Reads one line of the file. What is no document of ours is left out, such as the end of a
    /// file when the machine crashed.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line: Line = serde_json::from_slice(line).ok()?;
        let stream = match line.stream.as_str() {
            "stderr" => Stream::Stderr,
            _ => Stream::Stdout,
        };
        Some(Self { time: instant::read(&line.time)?, stream, text: line.log })
    }

    /// The time as Docker writes it.
    pub fn written_time(&self) -> String {
        instant::written(self.time)
    }
}

impl ReadOptions {
    pub(super) fn wants(&self, entry: &Entry) -> bool {
        self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time <= until)
    }
}

/// Gives what the container in `directory` wrote to `each`, and answers the newest file, from which
/// [`super::Follow`] goes on. Memory is bounded by `tail` entries, if there is one.
///
/// # Errors
///
/// [`ContainerError::File`], and whatever `each` answers.
pub fn read(
    directory: &Path,
    options: ReadOptions,
    each: &mut dyn FnMut(Entry) -> io::Result<()>,
) -> Result<Option<File>, ContainerError> {
    let mut last = VecDeque::new();
    let mut newest = None;
    let mut ages: Vec<u32> =
        (1..MAX_FILES).take_while(|age| file(directory, *age).exists()).collect();
    ages.reverse();
    for age in ages.into_iter().chain([0]) {
        let path = file(directory, age);
        let failed = |source| ContainerError::File { action: "read", path: path.clone(), source };
        let opened = match fs_err::File::open(&path) {
            Ok(opened) => opened,
            // It is rotated away, or never was.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let mut reader = BufReader::new(opened);
        let mut line = Vec::new();
        let mut position = 0;
        loop {
            line.clear();
            let mut limited = io::Read::take(&mut reader, LONGEST);
            let count = limited.read_until(b'\n', &mut line).map_err(failed)?;
            // The end, or a line that is just being written.
            if count == 0 || !line.ends_with(b"\n") && (count as u64) < LONGEST {
                break;
            }
            position += count as u64;
            let Some(entry) = Entry::parse(&line).filter(|entry| options.wants(entry)) else {
                continue;
            };
            match options.tail {
                None => each(entry)?,
                Some(0) => {}
                Some(tail) => {
                    if last.len() == tail {
                        last.pop_front();
                    }
                    last.push_back(entry);
                }
            }
        }
        let mut file = reader.into_inner().into_file();
        file.seek(SeekFrom::Start(position)).map_err(failed)?;
        newest = Some(file);
    }
    last.into_iter().try_for_each(each)?;
    Ok(newest)
}
