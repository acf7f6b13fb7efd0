//! Which files are in the page by their names, and which as part of a sum.

use std::collections::BTreeMap;

use rbuild::{Fate, PathVersion};
use serde_json::{Value, json};

/// Bytes of JSON for files with names.
const NAMED: usize = 900 << 10;
/// Bytes of JSON for sums of directories.
const SUMS: usize = 300 << 10;
/// Names of a path that a sum's directory has.
const DEPTH: usize = 3;
/// Bytes of a row beside its path.
const ROW: usize = 40;

/// What is summed: a directory, a layer, and what became of the files.
type Key = (String, usize, u8);

/// The rows, the largest first.
pub fn rows<'a>(versions: impl Iterator<Item = PathVersion<'a>>) -> Vec<Value> {
    let mut all: Vec<_> = versions.filter(|version| version.size > 0).collect();
    all.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(b.path)));
    let (mut rows, mut room) = (Vec::new(), NAMED);
    let mut sums: BTreeMap<Key, (u64, u64)> = BTreeMap::new();
    for version in all {
        let path = String::from_utf8_lossy(version.path);
        let (layer, fate) = (version.layer, number(version.fate));
        match take(&mut room, &path) {
            true => rows.push(row(&path, version.size, layer, fate, 1)),
            false => {
                let directory: Vec<&str> = path.split('/').collect();
                let above = directory.len().saturating_sub(1).min(DEPTH);
                let directory = directory.get(..above).unwrap_or_default().join("/");
                let sum = sums.entry((directory, layer, fate)).or_default();
                *sum = (sum.0 + version.size, sum.1 + 1);
            }
        }
    }
    let mut sums: Vec<(Key, (u64, u64))> = sums.into_iter().collect();
    sums.sort_by_key(|(_, (size, _))| std::cmp::Reverse(*size));
    let (mut room, mut rest) = (SUMS, BTreeMap::<(usize, u8), (u64, u64)>::new());
    for ((directory, layer, fate), (size, count)) in sums {
        match take(&mut room, &directory) {
            true => rows.push(row(&format!("{directory}/"), size, layer, fate, count)),
            false => {
                let sum = rest.entry((layer, fate)).or_default();
                *sum = (sum.0 + size, sum.1 + count);
            }
        }
    }
    rows.extend(
        rest.into_iter().map(|((layer, fate), (size, count))| row("/", size, layer, fate, count)),
    );
    rows
}

/// Whether there is room for a row of this path, which is then taken. A character may be escaped
/// to six.
fn take(room: &mut usize, path: &str) -> bool {
    let plain = path.bytes().filter(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(byte));
    let plain = plain.count();
    let length = ROW + plain + (path.len() - plain) * 6;
    let fits = length <= *room;
    // Once something did not fit, nothing smaller comes in its place.
    *room = if fits { *room - length } else { 0 };
    fits
}

fn row(path: &str, size: u64, layer: usize, fate: u8, count: u64) -> Value {
    json!([path, size, layer, fate, count])
}

fn number(fate: Fate) -> u8 {
    match fate {
        Fate::Kept => 0,
        Fate::Replaced(_) => 1,
        Fate::Removed(_) => 2,
    }
}
