//! `logs -f`: what comes after what was read.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::read::MAX_FILES;
use super::{Entry, ReadOptions, file};
use crate::ContainerError;

/// How often the file is looked at. A look is a read that finds nothing.
const PERIOD: Duration = Duration::from_millis(50);
/// How much is read at once.
const BLOCK: usize = 64 << 10;

/// Waits for what a container writes.
#[derive(Debug)]
pub struct Follow {
    directory: PathBuf,
    options: ReadOptions,
    file: Option<File>,
    begun: Vec<u8>,
}

impl Follow {
    /// Goes on in the file that [`super::read`] answered, where that ended.
    pub fn new(directory: &Path, options: ReadOptions, file: Option<File>) -> Self {
        let options = ReadOptions { tail: None, ..options };
        Self { directory: directory.to_owned(), options, file, begun: Vec::new() }
    }

    /// The next entries. Empty when there is nothing new, after a short wait; so the caller can
    /// look whether the container still runs. What it wrote before it ended is there when its
    /// state says that it ended.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Io`].
    pub fn more(&mut self) -> Result<Vec<Entry>, ContainerError> {
        let mut entries = Vec::new();
        // In this order: nothing is written to a file once there is a newer one.
        let next = self.next_file();
        if !self.read(&mut entries)? {
            match next {
                Some(next) => {
                    self.file = Some(next);
                    self.begun.clear();
                }
                None => std::thread::sleep(PERIOD),
            }
        }
        Ok(entries)
    }

    /// The file after the one that is read, if there is one. Where that was removed already, it is
    /// the oldest that is left.
    fn next_file(&self) -> Option<File> {
        let open = |age| fs_err::File::open(file(&self.directory, age)).ok();
        let same = |age: u32| {
            let open = self.file.as_ref().and_then(|file| file.metadata().ok())?;
            let named = fs_err::metadata(file(&self.directory, age)).ok()?;
            Some((open.dev(), open.ino()) == (named.dev(), named.ino()))
        };
        let next = match self.file {
            None => open(0),
            Some(_) if same(0) == Some(true) => None,
            Some(_) => {
                let ages = (1..MAX_FILES).take_while(|age| file(&self.directory, *age).exists());
                let mut oldest = 0;
                let mut own = None;
                for age in ages {
                    oldest = age;
                    if same(age) == Some(true) {
                        own = Some(age);
                    }
                }
                open(own.map_or(oldest, |own| own - 1))
            }
        };
        next.map(fs_err::File::into_file)
    }

    /// Whether there was anything to read.
    fn read(&mut self, entries: &mut Vec<Entry>) -> Result<bool, ContainerError> {
        let Some(file) = &mut self.file else { return Ok(false) };
        let mut block = vec![0; BLOCK];
        let mut any = false;
        loop {
            let count = file.read(&mut block)?;
            if count == 0 {
                return Ok(any);
            }
            any = true;
            self.begun.extend_from_slice(&block[..count]);
            let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else { continue };
            let whole: Vec<u8> = self.begun.drain(..=end).collect();
            let lines = whole.split(|byte| *byte == b'\n').filter_map(Entry::parse);
            entries.extend(lines.filter(|entry| self.options.wants(entry)));
            if entries.len() > 1024 {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rbuild_types::Stream;

    use super::*;
    use crate::logs::{LogOptions, LogWriter, read};

    fn all(directory: &Path, options: ReadOptions) -> String {
        let mut text = String::new();
        let mut each = |entry: Entry| {
            text.push_str(&entry.text);
            Ok(())
        };
        read(directory, options, &mut each).unwrap();
        text
    }

    #[test]
    fn lines_come_back_in_order_and_long_ones_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(directory.path(), LogOptions::default()).unwrap();
        let long = "x".repeat(40_000);
        writer.write(Stream::Stdout, b"one\ntw").unwrap();
        writer.write(Stream::Stderr, b"error\n").unwrap();
        writer.write(Stream::Stdout, format!("o\n{long}\nend").as_bytes()).unwrap();
        assert_eq!(
            all(directory.path(), ReadOptions::default()),
            format!("one\nerror\ntwo\n{long}\n")
        );
        writer.flush().unwrap();
        let last = ReadOptions { tail: Some(1), ..ReadOptions::default() };
        assert_eq!(all(directory.path(), last), "end");
        let never = ReadOptions { until: Some(0), ..ReadOptions::default() };
        assert_eq!(all(directory.path(), never), "");
    }

    #[test]
    fn files_are_rotated_and_followed() {
        let directory = tempfile::tempdir().unwrap();
        let options = LogOptions { max_size: Some(1000), max_files: 3, ..LogOptions::default() };
        let mut writer = LogWriter::open(directory.path(), options).unwrap();
        writer.write(Stream::Stdout, b"begin\n").unwrap();
        let mut entries = Vec::new();
        let mut each = |entry: Entry| {
            entries.push(entry.text);
            Ok(())
        };
        let at = read(directory.path(), ReadOptions::default(), &mut each).unwrap();
        let mut follow = Follow::new(directory.path(), ReadOptions::default(), at);
        for number in 0..100 {
            writer.write(Stream::Stdout, format!("{number}\n").as_bytes()).unwrap();
            entries.extend(follow.more().unwrap().into_iter().map(|entry| entry.text));
        }
        for _ in 0..9 {
            entries.extend(follow.more().unwrap().into_iter().map(|entry| entry.text));
        }
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(entries.concat(), format!("begin\n{expected}"));
        let names = |age| file(directory.path(), age);
        assert!(names(2).exists() && !names(3).exists());
        for age in 0..3 {
            assert!(fs_err::metadata(names(age)).unwrap().len() <= 1000);
        }
        assert!(all(directory.path(), ReadOptions::default()).ends_with("98\n99\n"));
    }
}
