//! `.git` for `keep-git-dir`: the one commit as a repository that git itself can use.
//!
//! Objects are written one by one, uncompressed history is not there (`shallow`), and the index
//! knows no times, so that git looks at the files themselves when it is first asked.

use std::collections::HashSet;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use rbuild_rooted::Root;
use rbuild_types::Ctx;

use super::checkout::Written;
use super::database::Database;
use super::error::GitError;
use super::object::{Commit, EntryMode, ObjectId, plain_sha1};

const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
/// Objects never change.
const OBJECT_MODE: u32 = 0o444;

/// What the directory is about.
pub(super) struct Head<'a> {
    pub(super) remote: &'a str,
    /// `refs/…` and what it stands for, if the commit was found by a name.
    pub(super) reference: Option<(&'a str, ObjectId)>,
    pub(super) id: ObjectId,
    pub(super) commit: &'a Commit,
}

/// Writes `.git` into a checkout.
pub(super) fn write(
    database: &Database<'_>,
    head: &Head<'_>,
    written: &Written,
    root: &Root,
    ctx: Ctx<'_>,
) -> Result<(), GitError> {
    for name in ["", "/objects", "/objects/pack", "/refs", "/refs/heads", "/refs/tags"] {
        make(root, &format!(".git{name}"))?;
    }
    let put = |name: &str, text: &[u8]| -> Result<(), GitError> {
        let mut file = root.create_file(format!(".git/{name}"), FILE_MODE)?;
        Ok(file.write_all(text)?)
    };
    put("HEAD", format!("{}\n", head.id).as_bytes())?;
    put("config", config(head.remote).as_bytes())?;
    if head.commit.has_parents {
        put("shallow", format!("{}\n", head.id).as_bytes())?;
    }
    let mut ids = vec![head.id];
    if let Some((name, id)) = head.reference.filter(|(name, _)| is_plain(name)) {
        let mut at = String::from(".git");
        for part in name.split('/').collect::<Vec<_>>().split_last().map_or(&[][..], |(_, up)| up) {
            at = format!("{at}/{part}");
            make(root, &at)?;
        }
        put(name, format!("{id}\n").as_bytes())?;
        ids.push(id);
    }
    ids.extend(&written.trees);
    let own = written.files.iter().filter(|(_, mode, _)| *mode != EntryMode::Submodule);
    ids.extend(own.map(|(.., id)| *id));
    let mut seen = HashSet::new();
    for id in ids {
        ctx.cancel.check()?;
        if seen.insert(id) {
            object(database, &id, root)?;
        }
    }
    put("index", &index(written))
}

fn make(root: &Root, path: &str) -> Result<(), GitError> {
    root.create_private_dir(path)?;
    Ok(root.set_mode(path, DIRECTORY_MODE)?)
}

/// `refs/` and names that lead nowhere else.
fn is_plain(name: &str) -> bool {
    let part = |part: &str| !matches!(part, "" | "." | "..") && !part.ends_with(".lock");
    name.starts_with("refs/") && name.split('/').all(part) && name.split('/').count() > 2
}

fn config(remote: &str) -> String {
    let url: String = remote
        .chars()
        .flat_map(|letter| match letter {
            '"' | '\\' => vec!['\\', letter],
            letter => vec![letter],
        })
        .collect();
    format!(
        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\
         [remote \"origin\"]\n\turl = \"{url}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
    )
}

fn object(database: &Database<'_>, id: &ObjectId, root: &Root) -> Result<(), GitError> {
    let (kind, bytes) = database.read(id)?;
    let hex = id.hex();
    let (directory, name) = hex.split_at(2);
    make(root, &format!(".git/objects/{directory}"))?;
    let file = root.create_file(format!(".git/objects/{directory}/{name}"), OBJECT_MODE)?;
    let mut encoder = ZlibEncoder::new(file, Compression::fast());
    encoder.write_all(format!("{} {}\0", kind.name(), bytes.len()).as_bytes())?;
    encoder.write_all(&bytes)?;
    encoder.finish()?;
    Ok(())
}

/// Version 2 of the index (gitformat-index): names, modes and objects, no times.
fn index(written: &Written) -> Vec<u8> {
    let mut files: Vec<_> = written.files.iter().collect();
    files.sort_by(|one, other| one.0.cmp(&other.0));
    let mut bytes = b"DIRC\0\0\0\x02".to_vec();
    bytes.extend((files.len() as u32).to_be_bytes());
    for (path, mode, id) in files {
        let start = bytes.len();
        bytes.extend([0; 24]);
        bytes.extend(mode.bits().to_be_bytes());
        bytes.extend([0; 12]);
        bytes.extend(id.0);
        bytes.extend((path.len().min(0xfff) as u16).to_be_bytes());
        bytes.extend(path);
        // At least one NUL, up to a multiple of eight.
        let length = bytes.len() - start;
        bytes.resize(start + (length / 8 + 1) * 8, 0);
    }
    let digest = plain_sha1(&bytes);
    bytes.extend(digest);
    bytes
}
