//! Each known cause as the difference that it makes.

use proptest::prelude::*;
use rbuild_rooted::FileKind;

use super::cause::Cause;
use super::suspect::{Suspect, cause};
use super::{elf, members};
use crate::inspect::{Aspect, ContentDifference, FileDifference, FileFacts};

fn facts() -> FileFacts {
    FileFacts {
        kind: Some(FileKind::Regular),
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 1,
        mtime: 0,
        target: None,
        entries: 0,
    }
}

fn changed(path: &str, before: &[u8], after: &[u8]) -> FileDifference {
    let offset = before.iter().zip(after).take_while(|(a, b)| a == b).count() as u64;
    let (one, other) = (before.to_vec(), after.to_vec());
    FileDifference {
        path: path.into(),
        before: Some(facts()),
        after: Some(facts()),
        aspects: vec![Aspect::Content],
        content: Some(ContentDifference { offset, excerpt_offset: 0, before: one, after: other }),
    }
}

fn of(path: &str, before: &[u8], after: &[u8]) -> Option<Cause> {
    let difference = changed(path, before, after);
    let suspect = Suspect {
        difference: &difference,
        contents: Some((before, after)),
        host_names: ("box", "another-host"),
        all: &[],
    };
    cause(&suspect)
}

#[test]
fn paths_have_their_causes() {
    for (path, expected) in [
        ("var/log/apt/history.log", Cause::Log),
        ("var/log/dpkg.log", Cause::Log),
        ("var/log/alternatives.log", Cause::Log),
        ("var/cache/ldconfig/aux-cache", Cause::LoaderCache),
        ("var/lib/apt/lists/deb.debian.org_InRelease", Cause::AptCache),
        ("var/cache/apt/pkgcache.bin", Cause::AptCache),
        ("etc/machine-id", Cause::MachineId),
        ("var/lib/dbus/machine-id", Cause::MachineId),
        ("var/lib/dpkg/status-old", Cause::Backup),
        ("var/cache/debconf/config.dat-old", Cause::Backup),
        ("etc/passwd-", Cause::Backup),
        ("etc/ssh/ssh_host_ed25519_key.pub", Cause::SshHostKey),
    ] {
        assert_eq!(of(path, b"one", b"two"), Some(expected), "{path}");
    }
    for path in ["var/logs", "etc/machine-id2", "usr/x-old", "home/ssh_host_rsa_key", "x.pyc"] {
        assert_eq!(of(path, b"one", b"two"), None, "{path}");
    }
}

#[test]
fn of_a_password_file_only_the_day_counts() {
    let line = |hash: &str, day: &str| format!("root:*:1::::::\na:{hash}:{day}:0:::::\n");
    let of = |before: String, after: String| of("etc/shadow", before.as_bytes(), after.as_bytes());
    assert_eq!(of(line("!", "19000"), line("!", "19001")), Some(Cause::PasswordDay));
    assert_eq!(of(line("$6$a", "19000"), line("$6$b", "19000")), None);
}

#[test]
fn headers_with_times_are_known() {
    let pyc = |time: u8| [b"\xa7\r\r\n\0\0\0\0", &[time; 4][..], b"\x0c\0\0\0code"].concat();
    assert_eq!(of("a/__pycache__/b.cpython-311.pyc", &pyc(1), &pyc(2)), Some(Cause::PycTime));
    let gzip = |time: u8, rest: &[u8]| [b"\x1f\x8b\x08\0", &[time; 4][..], rest].concat();
    assert_eq!(of("x.gz", &gzip(1, b"data"), &gzip(2, b"data")), Some(Cause::GzipTime));
    assert_eq!(of("x.gz", &gzip(1, b"data"), &gzip(2, b"date")), None);
}

/// A small ELF file of either width and byte order with a note section.
fn elf_with(wide: bool, little: bool, id: &[u8], rest: &[u8]) -> Vec<u8> {
    let number = |value: usize, length: usize| -> Vec<u8> {
        let bytes = (value as u64).to_le_bytes()[..length].to_vec();
        if little { bytes } else { bytes.into_iter().rev().collect() }
    };
    let word = if wide { 8 } else { 4 };
    let (header, section) = if wide { (64, 64) } else { (52, 40) };
    let note =
        [number(4, 4), number(id.len(), 4), number(3, 4), b"GNU\0".to_vec(), id.to_vec()].concat();
    let mut file = vec![0_u8; header];
    file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1 + u8::from(wide), 2 - u8::from(little)]);
    let put = |file: &mut Vec<u8>, at: usize, bytes: Vec<u8>| {
        file[at..at + bytes.len()].copy_from_slice(&bytes);
    };
    put(&mut file, if wide { 40 } else { 32 }, number(header, word));
    put(&mut file, if wide { 58 } else { 46 }, number(section, 2));
    put(&mut file, if wide { 60 } else { 48 }, number(1, 2));
    let mut table = vec![0_u8; section];
    put(&mut table, 4, number(7, 4));
    let offset = if wide { 24 } else { 16 };
    put(&mut table, offset, number(header + section, word));
    put(&mut table, offset + word, number(note.len(), word));
    [file, table, note, rest.to_vec()].concat()
}

#[test]
fn a_random_build_id_is_known_in_every_form_of_elf() {
    for (wide, little) in [(false, false), (false, true), (true, false), (true, true)] {
        let file = |id: u8, rest: &[u8]| elf_with(wide, little, &[id; 20], rest);
        assert_eq!(of("bin/x", &file(1, b"code"), &file(2, b"code")), Some(Cause::BuildId));
        assert_eq!(of("bin/x", &file(1, b"code"), &file(2, b"core")), None);
        let ids = elf::build_ids(&file(7, b""));
        assert_eq!(file(7, b"")[ids[0].clone()], [7; 20]);
    }
}

fn ar(members: &[(&str, u32)]) -> Vec<u8> {
    let mut file = b"!<arch>\n".to_vec();
    for (name, time) in members {
        let header = format!("{name:<16}{time:<12}0     0     100644  {:<10}`\n", name.len());
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(name.as_bytes());
        file.resize(file.len().next_multiple_of(2), b'\n');
    }
    file
}

fn zip(members: &[(&str, u32)]) -> Vec<u8> {
    let (mut file, mut central) = (Vec::new(), Vec::new());
    for (name, time) in members {
        let length = (name.len() as u16).to_le_bytes();
        let fields = [&time.to_le_bytes()[..], &[0; 12], &length, &[0; 2]].concat();
        file.extend_from_slice(b"PK\x03\x04\x0a\0\0\0\0\0");
        file.extend_from_slice(&[&fields, name.as_bytes()].concat());
        central.extend_from_slice(b"PK\x01\x02\x0a\0\x0a\0\0\0\0\0");
        central.extend_from_slice(&[&fields, &[0_u8; 14][..], name.as_bytes()].concat());
    }
    let (size, at) = ((central.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes());
    file.extend_from_slice(&central);
    file.extend_from_slice(&[b"PK\x05\x06", &[0_u8; 8][..], &size, &at, &[0; 2]].concat());
    file
}

fn tar(members: &[(&str, u32)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, time) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(name.len() as u64);
        header.set_mtime(u64::from(*time));
        header.set_mode(0o644);
        archive.append_data(&mut header, name, name.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn order_and_times_in_archives_are_told_apart() {
    for (name, make) in
        [("x.a", ar as fn(&[(&str, u32)]) -> Vec<u8>), ("x.jar", zip), ("x.tar", tar)]
    {
        let usual = make(&[("one", 1), ("two", 1)]);
        assert_eq!(members::members(&usual).unwrap().len(), 2, "{name}");
        let turned = make(&[("two", 1), ("one", 1)]);
        assert_eq!(of(name, &usual, &turned), Some(Cause::ArchiveOrder), "{name}");
        let later = make(&[("one", 1), ("two", 5)]);
        assert_eq!(of(name, &usual, &later), Some(Cause::ArchiveTime), "{name}");
        let other = make(&[("one", 1), ("three", 1)]);
        assert_eq!(of(name, &usual, &other), None, "{name}");
    }
}

#[test]
fn what_text_holds_is_looked_at_around_the_difference() {
    let cause = |before: &str, after: &str| of("etc/info", before.as_bytes(), after.as_bytes());
    assert_eq!(cause("built on box\n", "built on another-host\n"), Some(Cause::HostName));
    let dates = ("Sun Nov 22 03:13:57 UTC 2026\n", "Sun Nov 22 03:14:01 UTC 2026\n");
    assert_eq!(cause(dates.0, dates.1), Some(Cause::TimeInContent));
    assert_eq!(cause("t=1795317237\n", "t=1795317240\n"), Some(Cause::TimeInContent));
    assert_eq!(cause("a\n", "b\n"), None);
    assert_eq!(cause("port 12345\n", "port 12346\n"), None);
    let far = |end: &str| format!("{}{end}", "x\n".repeat(500));
    assert_eq!(cause(&far("1"), &format!("{}12:00:00", far("2"))), None);
}

#[test]
fn a_random_name_has_a_counterpart() {
    let alone = |path: &str, is_first: bool| FileDifference {
        before: is_first.then(facts),
        after: (!is_first).then(facts),
        aspects: Vec::new(),
        content: None,
        ..changed(path, b"", b"")
    };
    let all = [
        alone("opt/tmp.aB3xYz", true),
        alone("opt/tmp.qqWe12", false),
        alone("opt/other", true),
        alone("etc/tmp.zzzzzz", true),
        alone("tmp/kd83", false),
        alone("tmp/93ks", true),
    ];
    let causes: Vec<_> = all
        .iter()
        .map(|difference| {
            cause(&Suspect { difference, contents: None, host_names: ("a", "b"), all: &all })
        })
        .collect();
    let random = Some(Cause::RandomName);
    assert_eq!(causes, [random, random, None, None, random, random]);
}

#[test]
fn times_of_files_alone_are_known_and_every_cause_has_words() {
    let difference =
        FileDifference { aspects: vec![Aspect::Time], content: None, ..changed("a", b"", b"") };
    let host_names = ("a", "b");
    let suspect = Suspect { difference: &difference, contents: None, host_names, all: &[] };
    assert_eq!(cause(&suspect), Some(Cause::FileTime));
    assert!(Cause::FileTime.to_string().starts_with("timestamps: use --rewrite-timestamp"));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(
        form in 0..5_usize,
        rest in prop::collection::vec(any::<u8>(), 0..600),
        at in 0..600_usize,
    ) {
        let start: &[&[u8]] = &[b"\x7fELF\x02\x01", b"\x7fELF\x01\x02", b"PK\x03\x04", b"!<arch>\n", b""];
        let mut bytes = [start[form], &rest].concat();
        let ends: [&[u8]; 3] = [b"PK\x05\x06", b"ustar", b"\xff\xff\xff\xff\xff\xff\xff\xff"];
        for (end, place) in ends.into_iter().zip([at, 257, at / 2]) {
            if let Some(room) = bytes.get_mut(place..place + end.len()) {
                room.copy_from_slice(end);
            }
        }
        elf::build_ids(&bytes);
        members::members(&bytes);
        of("x", &bytes, &rest);
    }

    #[test]
    fn damaged_archives_and_programs_are_read_without_harm(
        form in 0..4_usize,
        at in 0..400_usize,
        value in any::<u8>(),
    ) {
        let mut bytes = match form {
            0 => ar(&[("one", 1), ("two", 2)]),
            1 => zip(&[("one", 1), ("two", 2)]),
            2 => tar(&[("one", 1), ("two", 2)]),
            _ => elf_with(true, true, &[1; 20], b"code"),
        };
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        elf::build_ids(&bytes);
        members::members(&bytes);
    }
}
