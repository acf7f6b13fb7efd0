//! Trees and tars for tests.

use rbuild_image::ImageError;
use rbuild_image::layer::{
    Devices, Ownership, PackOptions, Packed, UnpackOptions, Unpacked, pack, unpack_layer,
};
use rbuild_image::tarball::{self, END_OF_ARCHIVE, Entry, EntryKind};
use rbuild_rooted::{NewDirs, Root};
use rbuild_types::CancelToken;

pub(crate) const DIR: NewDirs = NewDirs { mode: 0o755, owner: None };

/// A directory that goes away, with a root on it.
pub(crate) struct Temp {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) root: Root,
}

pub(crate) fn temp() -> Temp {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    Temp { dir, root }
}

pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root: {test}");
    }
    root
}

/// Options that work for whoever runs the test.
pub(crate) fn options() -> UnpackOptions {
    let mut options = UnpackOptions { devices: Devices::Skip, ..UnpackOptions::default() };
    if !rustix::process::geteuid().is_root() {
        options.ownership = Ownership::Caller;
        options.overlay = rbuild_image::layer::whiteout::OverlayXattrs::User;
    }
    options
}

/// Tars are written from parts, so that wrong ones can be written too.
#[derive(Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn entry(mut self, entry: &Entry, content: &[u8]) -> Self {
        let mut entry = entry.clone();
        entry.size = content.len() as u64;
        tarball::encode(&entry, &mut self.0).unwrap();
        self.content(content)
    }

    pub(crate) fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len() + tarball::padding(content.len() as u64), 0);
        self
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(&Entry::new(path, EntryKind::File, 0o644), content)
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(&Entry::new(path, EntryKind::Directory, mode), b"")
    }

    pub(crate) fn link(self, kind: EntryKind, path: &str, target: &str) -> Self {
        let entry = Entry { link: target.into(), ..Entry::new(path, kind, 0o777) };
        self.entry(&entry, b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.link(EntryKind::Symlink, path, target)
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(EntryKind::HardLink, path, target)
    }

    /// A header of any type with content, such as `x`, `L` or `S`.
    pub(crate) fn raw(mut self, flag: u8, path: &str, content: &[u8]) -> Self {
        let mut block = Vec::new();
        let mut entry = Entry::new(path, EntryKind::File, 0o644);
        entry.size = content.len() as u64;
        tarball::encode(&entry, &mut block).unwrap();
        self.0.extend(with(&block, 156, &[flag]));
        self.content(content)
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let digits = (1..8).find(|digits| (rest + digits).to_string().len() == *digits);
            content.extend(format!("{} {key}=", rest + digits.unwrap()).into_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.raw(b'x', "pax", &content)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend(END_OF_ARCHIVE);
        self.0
    }
}

/// A header block with some bytes replaced and the checksum made right again.
pub(crate) fn with(block: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut block = block.to_vec();
    block[at..at + bytes.len()].copy_from_slice(bytes);
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

pub(crate) fn unpack(
    tar: &[u8],
    into: &Root,
    merged: Option<&Root>,
) -> Result<Unpacked, ImageError> {
    unpack_layer(&mut &tar[..], into, merged, &options(), &CancelToken::default())
}

pub(crate) fn packed(tree: &Root) -> (Packed, Vec<u8>) {
    let mut tar = Vec::new();
    let packed = pack(tree, &PackOptions::default(), &mut tar, &CancelToken::default()).unwrap();
    assert_eq!(packed.size, tar.len() as u64);
    assert_eq!(packed.diff_id, rbuild_types::Digest::of(&tar));
    (packed, tar)
}

/// Names of a tar's entries with their kinds.
pub(crate) fn listing(tar: &[u8]) -> Vec<(String, EntryKind)> {
    let mut reader = tarball::Reader::new(tar);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        found.push((String::from_utf8_lossy(&entry.path).into_owned(), entry.kind));
    }
    found
}

pub(crate) fn text(root: &Root, path: &str) -> String {
    String::from_utf8(root.read_small(path, 1 << 20).unwrap()).unwrap()
}
