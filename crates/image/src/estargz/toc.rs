//! The table of contents.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_types::Digest;
use serde::Serialize;

use crate::error::ImageError;
use crate::json;
use crate::tarball::{Entry, EntryKind};

/// All entries of a layer.
#[derive(Serialize)]
pub(super) struct Toc {
    version: u32,
    entries: Vec<TocEntry>,
}

/// An entry of the tar, or a later chunk of a file.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct TocEntry {
    /// As it stands in the tar. JSON has no other bytes than UTF-8: what else there is in a name is
    /// replaced, as Go does.
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    modtime: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dev_major: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dev_minor: Option<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    /// Of the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Digest>,
    /// Where in the blob the member with the chunk starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u64>,
    /// Where in the file the chunk starts.
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    /// 0 for one that goes to the end of the file, unless that is as long as all others.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) chunk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) chunk_digest: Option<Digest>,
    /// The number of the member that [`Self::offset`] is of.
    #[serde(skip)]
    pub(super) member: Option<usize>,
}

impl Toc {
    pub(super) fn to_bytes(entries: Vec<TocEntry>) -> Result<Vec<u8>, ImageError> {
        json::bytes(&Self { version: 1, entries }, "table of contents")
    }
}

impl TocEntry {
    pub(super) fn new(entry: &Entry) -> Self {
        let device = match entry.kind {
            EntryKind::CharDevice | EntryKind::BlockDevice => Some(entry.device),
            _ => None,
        };
        Self {
            name: text(&entry.path),
            kind: match entry.kind {
                EntryKind::File => "reg",
                EntryKind::HardLink => "hardlink",
                EntryKind::Symlink => "symlink",
                EntryKind::CharDevice => "char",
                EntryKind::BlockDevice => "block",
                EntryKind::Directory => "dir",
                EntryKind::Fifo => "fifo",
            },
            size: entry.size,
            modtime: modtime(entry.mtime.sec),
            link_name: text(&entry.link),
            mode: Some(entry.mode),
            uid: Some(entry.uid),
            gid: Some(entry.gid),
            dev_major: device.map(|(major, _)| major),
            dev_minor: device.map(|(_, minor)| minor),
            xattrs: entry
                .xattrs
                .iter()
                .map(|(name, value)| (text(name), STANDARD.encode(value)))
                .collect(),
            ..Self::default()
        }
    }

    /// Whether it stands for a whole file.
    pub(super) fn is_file(&self) -> bool {
        self.kind == "reg"
    }

    /// A chunk of a file behind its first.
    pub(super) fn chunk(file: &Entry, at: u64) -> Self {
        Self { name: text(&file.path), kind: "chunk", chunk_offset: at, ..Self::default() }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// None for 1970 itself, which stands for unknown, and for years that RFC 3339 cannot write.
fn modtime(seconds: i64) -> Option<String> {
    const YEAR_0: i64 = -62_167_219_200;
    let time = jiff::Timestamp::from_second(seconds).ok()?;
    (seconds != 0 && seconds >= YEAR_0).then(|| time.to_string())
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
