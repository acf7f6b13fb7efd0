//! The same archive, seen by GNU tar.

use std::process::Command;

use rbuild_image::tarball::{Entry, EntryKind, Reader};

use crate::support::{Tar, packed, temp};

fn gnu_tar(arguments: &[&str]) -> Option<String> {
    let done = Command::new("tar").env("LC_ALL", "C").env("TZ", "UTC").args(arguments).output();
    let Ok(done) = done else {
        eprintln!("skipped: tar is not installed");
        return None;
    };
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(text)
}

/// `tar tvf` of our reader's entries, without sizes' padding.
fn ours(tar: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(tar);
    let mut lines = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        lines.push(line(&entry));
    }
    lines
}

fn line(entry: &Entry) -> String {
    let path = String::from_utf8_lossy(&entry.path);
    let link = String::from_utf8_lossy(&entry.link);
    let (letter, size, link) = match entry.kind {
        EntryKind::File => ('-', entry.size.to_string(), String::new()),
        EntryKind::HardLink => ('h', "0".into(), format!(" link to {link}")),
        EntryKind::Symlink => ('l', "0".into(), format!(" -> {link}")),
        EntryKind::Directory => ('d', "0".into(), String::new()),
        EntryKind::Fifo => ('p', "0".into(), String::new()),
        EntryKind::CharDevice => {
            ('c', format!("{},{}", entry.device.0, entry.device.1), String::new())
        }
        EntryKind::BlockDevice => {
            ('b', format!("{},{}", entry.device.0, entry.device.1), String::new())
        }
    };
    let bit = |mask: u32, letter: char| if entry.mode & mask != 0 { letter } else { '-' };
    let special = |execute: u32, mask: u32, low: char, high: char| match (
        entry.mode & execute != 0,
        entry.mode & mask != 0,
    ) {
        (true, true) => low,
        (false, true) => high,
        (true, false) => 'x',
        (false, false) => '-',
    };
    let mode: String = [
        bit(0o400, 'r'),
        bit(0o200, 'w'),
        special(0o100, 0o4000, 's', 'S'),
        bit(0o40, 'r'),
        bit(0o20, 'w'),
        special(0o10, 0o2000, 's', 'S'),
        bit(0o4, 'r'),
        bit(0o2, 'w'),
        special(0o1, 0o1000, 't', 'T'),
    ]
    .iter()
    .collect();
    format!("{letter}{mode} {}/{} {size} {path}{link}", entry.uid, entry.gid)
}

fn theirs(path: &str) -> Option<Vec<String>> {
    let text = gnu_tar(&["--numeric-owner", "--quoting-style=literal", "-tvf", path])?;
    let fields = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Mode, owner, size, date, time, name and what it leads to.
        format!("{} {} {} {}", words[0], words[1], words[2], words[5..].join(" "))
    };
    Some(text.lines().map(fields).collect())
}

#[test]
fn gnu_tar_lists_what_we_write_as_we_do() {
    let tree = temp();
    let mut entry = Entry::new("big-ids", EntryKind::File, 0o6755);
    (entry.uid, entry.gid) = (3_000_000, 4_000_000_000);
    entry.mtime.sec = -5;
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(90));
    let tar = Tar::default()
        .entry(&entry, b"x")
        .dir("dir", 0o1777)
        .dir(&"e".repeat(150), 0o755)
        .file(&long, b"content")
        .file(&format!("{}{}", "p/".repeat(100), "q".repeat(150)), b"")
        .symlink("sym", &"t".repeat(180))
        .hard_link("hard", &long)
        .file("\u{e9}\u{fc}", b"")
        .end();
    let path = tree.dir.path().join("x.tar");
    fs_err::write(&path, &tar).unwrap();
    if let Some(theirs) = theirs(path.to_str().unwrap()) {
        assert_eq!(ours(&tar), theirs);
    }
}

#[test]
fn we_list_what_gnu_tar_writes_as_it_does() {
    let tree = temp();
    let dir = tree.dir.path();
    let from = dir.join("from");
    let deep = from.join("n".repeat(200)).join("m".repeat(120));
    fs_err::create_dir_all(&deep).unwrap();
    fs_err::write(deep.join("file"), b"content").unwrap();
    fs_err::hard_link(deep.join("file"), from.join("hard")).unwrap();
    std::os::unix::fs::symlink("l".repeat(150), from.join("sym")).unwrap();
    let sparse = fs_err::File::create(from.join("sparse")).unwrap();
    for at in [0u64, 1 << 20, 5 << 20, 9 << 20, 12 << 20, 20 << 20] {
        std::os::unix::fs::FileExt::write_all_at(sparse.file(), b"data", at).unwrap();
    }
    sparse.set_len(30 << 20).unwrap();
    let from = from.to_str().unwrap();
    for (name, format) in [
        ("gnu", vec!["--format=gnu"]),
        ("gnu-sparse", vec!["--format=gnu", "--sparse"]),
        ("posix", vec!["--format=posix"]),
        ("posix-sparse-0.0", vec!["--format=posix", "--sparse", "--sparse-version=0.0"]),
        ("posix-sparse-0.1", vec!["--format=posix", "--sparse", "--sparse-version=0.1"]),
        ("posix-sparse-1.0", vec!["--format=posix", "--sparse", "--sparse-version=1.0"]),
    ] {
        let path = dir.join(format!("{name}.tar"));
        let path = path.to_str().unwrap();
        let mut arguments = format.clone();
        arguments.extend(["-C", from, "-cf", path, "."]);
        if gnu_tar(&arguments).is_none() {
            return;
        }
        let tar = fs_err::read(path).unwrap();
        assert_eq!(Some(ours(&tar)), theirs(path), "{name}");
        let into = temp();
        crate::support::unpack(&tar, &into.root, None).unwrap();
        let mut same = Command::new("diff");
        same.args(["-r", "--no-dereference", from]).arg(into.dir.path());
        assert!(same.status().unwrap().success(), "{name}");
    }
}

#[test]
fn gnu_tar_unpacks_what_we_pack() {
    let (tree, copy) = (temp(), temp());
    tree.root.create_dir_all("a/b", crate::support::DIR).unwrap();
    tree.root.create_file("a/b/c", 0o640).unwrap().set_len(70_000).unwrap();
    tree.root.hard_link("a/b/c", "z").unwrap();
    tree.root.symlink("z", "link").unwrap();
    tree.root.set_mode("a/b/c", 0o4711).unwrap();
    for path in ["a/b/c", "a/b", "a", "link"] {
        let time = rbuild_rooted::Time { sec: 1_000_000, nsec: 0 };
        tree.root.set_times(path, time, time).unwrap();
    }
    let (before, tar) = packed(&tree.root);
    let file = temp();
    let path = file.dir.path().join("x.tar");
    fs_err::write(&path, tar).unwrap();
    let into = copy.dir.path().to_str().unwrap();
    if gnu_tar(&["-C", into, "-xpf", path.to_str().unwrap()]).is_some() {
        assert_eq!(packed(&copy.root).0, before);
    }
}
