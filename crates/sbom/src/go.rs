//! Modules of Go: the list in every program since Go 1.18, and `go.mod`.

use std::collections::BTreeMap;

use crate::bytes_at::{BytesAt, Order};
use crate::limits;
use crate::lists::text;
use crate::package::{Kind, Package, Take, give};

/// Sections of a program that are looked at.
const SECTIONS: usize = 4096;

/// What stands before the list.
const MAGIC: &[u8] = b"\xff Go buildinf:";

/// The modules that a program was built from; `None` when it is no program of Go, or of one before
/// 1.18, which says it in another form.
pub fn build_info(program: &(impl BytesAt + ?Sized)) -> Option<Vec<Package>> {
    let (offset, size) = section(program, b".go.buildinfo\0")?;
    let info = program.bytes(offset, size.min(limits::BUILD_INFO))?;
    let flags = info.get(15).filter(|_| info.starts_with(MAGIC))?;
    if flags & 2 == 0 {
        return None;
    }
    let (version, rest) = string(info.get(32..)?)?;
    let (modules, _) = string(rest)?;
    let mut packages = Vec::new();
    let version = text(version);
    if let Some(version) = version.strip_prefix("go") {
        let version = version.split(' ').next().unwrap_or_default();
        packages.push(Package::new(Kind::Golang, "stdlib", version));
    }
    // The list lies between two marks of 16 bytes.
    let listed = modules.len().checked_sub(16).and_then(|end| modules.get(16..end));
    for line in text(listed.unwrap_or_default()).lines() {
        let mut words = line.split('\t');
        let kind = words.next();
        let (Some(path), Some(version)) = (words.next(), words.next()) else { continue };
        let version = if version == "(devel)" { "" } else { version };
        match kind {
            Some("mod" | "dep") => packages.push(Package::new(Kind::Golang, path, version)),
            // A directory has no version.
            Some("=>") if !version.is_empty() => {
                packages.pop();
                packages.push(Package::new(Kind::Golang, path, version));
            }
            _ => {}
        }
    }
    Some(packages)
}

/// Offset and size of a section of an ELF file.
fn section(program: &(impl BytesAt + ?Sized), name: &[u8]) -> Option<(u64, usize)> {
    let header = program.bytes(0, 64)?;
    if !header.starts_with(b"\x7fELF") {
        return None;
    }
    let order = if header[5] == 2 { Order::Big } else { Order::Little };
    let is_64 = header[4] == 2;
    let (table, sizes) = match is_64 {
        true => (order.number(&header, 0x28, 8)?, 0x3a),
        false => (order.number(&header, 0x20, 4)?, 0x2e),
    };
    let entry = order.u16(&header, sizes)?;
    let count = order.u16(&header, sizes + 2)?.min(SECTIONS);
    let names = order.u16(&header, sizes + 4)?;
    if entry < if is_64 { 64 } else { 40 } {
        return None;
    }
    let sections = program.bytes(table, entry * count)?;
    let place = |number: usize| {
        let section = sections.get(number * entry..(number + 1) * entry)?;
        let (offset, size) = match is_64 {
            true => (order.number(section, 0x18, 8)?, order.number(section, 0x20, 8)?),
            false => (order.number(section, 0x10, 4)?, order.number(section, 0x14, 4)?),
        };
        Some((order.number(section, 0, 4)?, offset, usize::try_from(size).ok()?))
    };
    let (_, names, _) = place(names)?;
    for number in 0..count {
        let (at, offset, size) = place(number)?;
        if program.bytes(names.checked_add(at)?, name.len()).as_deref() == Some(name) {
            return Some((offset, size));
        }
    }
    None
}

/// A string behind its length, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_usize;
    for (number, byte) in bytes.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << (7 * number);
        if byte & 0x80 == 0 {
            let start = number + 1;
            let end = start.checked_add(length)?;
            return Some((bytes.get(start..end)?, bytes.get(end..)?));
        }
    }
    None
}

/// The modules that a `go.mod` requires, as they are replaced in it.
pub fn go_mod(bytes: &[u8], take: Take<'_>) {
    let text = text(bytes);
    let replaced = statements(&text).filter_map(|(keyword, words)| match (keyword, &*words) {
        ("replace", [path, "=>", by, version] | [path, _, "=>", by, version]) => {
            Some((*path, (*by, *version)))
        }
        _ => None,
    });
    let replaced: BTreeMap<_, _> = replaced.take(limits::PACKAGES).collect();
    let required = statements(&text).filter_map(|(keyword, words)| match (keyword, &*words) {
        ("require", &[path, version]) => {
            let (path, version) = replaced.get(path).copied().unwrap_or((path, version));
            Some(Package::new(Kind::Golang, path, version))
        }
        _ => None,
    });
    give(required, take);
}

/// Words of a line that are told apart: one more than any statement has that is asked for.
const WORDS: usize = 7;

/// The statements of a `go.mod`: a keyword, and the words behind it.
fn statements(text: &str) -> impl Iterator<Item = (&str, Vec<&str>)> {
    let mut block = None;
    text.lines().filter_map(move |line| {
        let line = line.split("//").next().unwrap_or_default();
        let mut words: Vec<_> = line.split_whitespace().take(WORDS).collect();
        match (block, words.as_slice()) {
            (_, [")"]) => {
                block = None;
                None
            }
            (None, [keyword, "("]) => {
                block = Some(*keyword);
                None
            }
            (None, []) => None,
            (None, _) => Some((words.remove(0), words)),
            (Some(keyword), _) => Some((keyword, words)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{all, given};

    fn varint(text: &[u8]) -> Vec<u8> {
        let (mut length, mut bytes) = (text.len(), Vec::new());
        while length >= 0x80 {
            bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        bytes.push(u8::try_from(length).unwrap());
        [bytes, text.to_vec()].concat()
    }

    /// A file with that section and one of names.
    fn program(modules: &str) -> Vec<u8> {
        let modules = [&[b'<'; 16][..], modules.as_bytes(), &[b'>'; 16]].concat();
        let mut info = [MAGIC, &[8, 2]].concat();
        info.resize(32, 0);
        info.extend(varint(b"go1.22.1 X:foo"));
        info.extend(varint(&modules));
        let names = b"\0.go.buildinfo\0";
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let table = 64 + names.len() + info.len();
        file[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        file[0x3a..0x40].copy_from_slice(&[64, 0, 2, 0, 0, 0]);
        file.extend(names);
        file.extend(&info);
        for (name, offset, size) in [(0, 64, names.len()), (1, 64 + names.len(), info.len())] {
            let mut section = [0; 64];
            section[0] = name;
            section[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
            section[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend(section);
        }
        file
    }

    fn read(packages: &[Package]) -> Vec<String> {
        packages.iter().map(|package| format!("{}={}", package.name, package.version)).collect()
    }

    #[test]
    fn a_program_lists_its_modules() {
        let modules = "path\tx/cmd\nmod\tx\t(devel)\t\ndep\ty/z\tv1.2.0\th1:=\n\
                       dep\told\tv1.0.0\n=>\tnew\tv2.0.0\th1:=\n\
                       dep\tkept\tv3.0.0\n=>\t./kept\t\nbuild\t-o\tx\n";
        let packages = build_info(program(modules).as_slice()).unwrap();
        assert_eq!(
            read(&packages),
            ["stdlib=1.22.1", "x=", "y/z=v1.2.0", "new=v2.0.0", "kept=v3.0.0"]
        );
        assert!(build_info(b"\x7fELF".as_slice()).is_none());
    }

    #[test]
    fn a_go_mod_requires_modules() {
        let text = "module me\n\ngo 1.22\n\nrequire a v1 // indirect\nrequire (\n\tb v2\n\tc v3\n)\n\
                    replace b => d v4\nreplace c => ../c\nexclude (\n\te v5\n)\n";
        let packages = all(|take| go_mod(text.as_bytes(), take));
        assert_eq!(read(&packages), ["a=v1", "d=v4", "c=v3"]);
        assert_eq!(given(2, |take| go_mod(text.as_bytes(), take)), 2);
    }
}
