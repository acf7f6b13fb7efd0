//! The writing side, in the supervisor.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rbuild_types::Stream;

use super::{Line, LogOptions, file};
use crate::instant;

/// Longest text of one document (Docker's).
const LONGEST: usize = 16 << 10;

/// Writes what a container writes, line by line.
#[derive(Debug)]
pub(crate) struct LogWriter {
    directory: PathBuf,
    options: LogOptions,
    file: Option<fs_err::File>,
    size: u64,
    /// Beginnings of lines, of output and error.
    begun: [Vec<u8>; 2],
}

impl LogWriter {
    /// Goes on where an earlier one ended.
    pub(crate) fn open(directory: &Path, options: LogOptions) -> io::Result<Self> {
        let mut writer = Self {
            directory: directory.to_owned(),
            options,
            file: None,
            size: 0,
            begun: [Vec::new(), Vec::new()],
        };
        if options.keep {
            writer.open_file()?;
        }
        Ok(writer)
    }

    fn open_file(&mut self) -> io::Result<()> {
        let path = file(&self.directory, 0);
        let opened = fs_err::OpenOptions::new().create(true).append(true).open(path)?;
        self.size = opened.metadata()?.len();
        self.file = Some(opened);
        Ok(())
    }

    /// Takes bytes; whole lines are in the file when it returns.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let mut documents = Vec::new();
        let begun = &mut self.begun[place(stream)];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut rest = piece;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(LONGEST - begun.len()));
                begun.extend_from_slice(now);
                rest = later;
                if begun.ends_with(b"\n") || begun.len() == LONGEST {
                    document(&mut documents, stream, begun)?;
                    begun.clear();
                }
            }
        }
        self.put(&documents)
    }

    /// Writes beginnings of lines of which no more will come.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let mut documents = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let begun = std::mem::take(&mut self.begun[place(stream)]);
            if !begun.is_empty() && self.file.is_some() {
                document(&mut documents, stream, &begun)?;
            }
        }
        self.put(&documents)
    }

    /// Writes whole documents, in as few calls as the limit of a file allows.
    fn put(&mut self, documents: &[u8]) -> io::Result<()> {
        let mut rest = documents;
        while !rest.is_empty() {
            let fits = self.fitting(rest);
            if fits == 0 {
                self.rotate()?;
                continue;
            }
            let (now, later) = rest.split_at(fits);
            if let Some(file) = &mut self.file {
                file.write_all(now)?;
                self.size += now.len() as u64;
            }
            rest = later;
        }
        Ok(())
    }

    /// The length of those of the documents that the file has room for; an empty one has room for
    /// any one.
    fn fitting(&self, documents: &[u8]) -> usize {
        let Some(limit) = self.options.max_size else { return documents.len() };
        let mut length = 0;
        for document in documents.split_inclusive(|byte| *byte == b'\n') {
            let total = self.size + (length + document.len()) as u64;
            if total > limit && self.size + length as u64 > 0 {
                break;
            }
            length += document.len();
        }
        length
    }

    /// Makes every file one older; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let oldest = self.options.max_files.max(1) - 1;
        for age in (0..=oldest).rev() {
            let path = file(&self.directory, age);
            let moved = match age == oldest {
                true => fs_err::remove_file(&path),
                false => fs_err::rename(&path, file(&self.directory, age + 1)),
            };
            match moved {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.open_file()
    }
}

fn place(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

fn document(into: &mut Vec<u8>, stream: Stream, text: &[u8]) -> io::Result<()> {
    let stream = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let line = Line {
        log: String::from_utf8_lossy(text).into_owned(),
        stream: stream.to_owned(),
        time: instant::written(instant::now()),
    };
    serde_json::to_writer(&mut *into, &line)?;
    into.push(b'\n');
    Ok(())
}
