//! eStargz blobs, read as their format says: by offset, and as the gzip streams they also are.

use std::io::{Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use rbuild_image::ImageError;
use rbuild_image::compress::{Compression, Encoding, detect, reader};
use rbuild_image::estargz::{Estargz, EstargzWriter};
use rbuild_image::tarball::{Entry, EntryKind, Reader};
use rbuild_rooted::Time;
use rbuild_types::Digest;
use serde_json::{Value, json};

use crate::support::{Tar, packed, temp, unpack};

const CHUNK: usize = 4 << 20;

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

fn written(tar: &[u8], level: u32, threads: usize, cut: usize) -> std::io::Result<Blob> {
    let pool = pool(threads);
    let mut writer = EstargzWriter::new(Vec::new(), level, &pool);
    for part in tar.chunks(cut) {
        writer.write_all(part)?;
    }
    let (bytes, made) = writer.finish()?;
    Ok(Blob { bytes, made })
}

fn estargz(tar: &[u8]) -> Blob {
    let Encoding::Estargz { level } = Encoding::ESTARGZ else { unreachable!() };
    written(tar, level, 2, 1 << 16).unwrap()
}

struct Blob {
    bytes: Vec<u8>,
    made: Estargz,
}

impl Blob {
    /// All that comes out of it.
    fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        reader(Compression::Gzip, &self.bytes[..], "blob")
            .unwrap()
            .read_to_end(&mut plain)
            .unwrap();
        plain
    }

    /// Some bytes of the gzip member that starts at an offset, and of no other.
    fn member(&self, offset: usize, wanted: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let member = flate2::bufread::GzDecoder::new(&self.bytes[offset..]);
        member.take(wanted as u64).read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// The offset in the footer, whose form the format fixes byte by byte.
    fn toc_offset(&self) -> usize {
        let footer = &self.bytes[self.bytes.len() - 51..];
        assert_eq!(footer[..4], [0x1f, 0x8b, 8, 4]);
        assert_eq!(footer[10..16], [26, 0, b'S', b'G', 22, 0]);
        assert_eq!(footer[32..], *b"STARGZ\x01\0\0\xff\xff\0\0\0\0\0\0\0\0");
        usize::from_str_radix(std::str::from_utf8(&footer[16..32]).unwrap(), 16).unwrap()
    }

    fn toc(&self) -> Vec<Value> {
        let tar = self.member(self.toc_offset(), usize::MAX);
        let mut tar = Reader::new(&tar[..]);
        let entry = tar.next_entry().unwrap().unwrap();
        assert_eq!(entry.path, b"stargz.index.json");
        let mut bytes = Vec::new();
        tar.read_to_end(&mut bytes).unwrap();
        assert!(tar.next_entry().unwrap().is_none());
        assert_eq!(Digest::of(&bytes), self.made.toc_digest);
        let toc: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(toc["version"], 1);
        toc["entries"].as_array().unwrap().clone()
    }

    /// Holds it against the tar it was made of: each entry, its content read by offset alone.
    fn check(&self, tar: &[u8]) {
        assert_eq!(detect(&self.bytes), Some(Compression::Gzip));
        let plain = self.plain();
        assert!(plain.starts_with(tar), "the tar comes first, as it was");
        assert_eq!(self.made.diff_id, Digest::of(&plain));
        assert_eq!(self.made.uncompressed_size, plain.len() as u64);
        let toc = self.toc();
        let mut toc = toc.iter().peekable();
        let mut source = Reader::new(tar);
        while let Some(entry) = source.next_entry().unwrap() {
            let mut content = Vec::new();
            source.read_to_end(&mut content).unwrap();
            let said = toc.next().unwrap();
            assert_eq!(said["name"], *String::from_utf8_lossy(&entry.path));
            assert_eq!(said["mode"], entry.mode);
            assert_eq!((&said["uid"], &said["gid"]), (&entry.uid.into(), &entry.gid.into()));
            for (name, value) in &entry.xattrs {
                let said = &said["xattrs"][&*String::from_utf8_lossy(name)];
                assert_eq!(STANDARD.decode(said.as_str().unwrap()).unwrap(), *value);
            }
            let kind = match entry.kind {
                EntryKind::File => "reg",
                EntryKind::Directory => "dir",
                EntryKind::Symlink => "symlink",
                EntryKind::HardLink => "hardlink",
                EntryKind::CharDevice => "char",
                EntryKind::BlockDevice => "block",
                EntryKind::Fifo => "fifo",
            };
            assert_eq!(said["type"], kind);
            if !entry.link.is_empty() {
                assert_eq!(said["linkName"], *String::from_utf8_lossy(&entry.link));
            }
            if entry.kind != EntryKind::File {
                assert!(said.get("digest").is_none() && said.get("offset").is_none());
                continue;
            }
            assert_eq!(said["digest"], Digest::of(&content).to_string());
            if content.is_empty() {
                assert!(said.get("offset").is_none() && said.get("size").is_none());
                continue;
            }
            assert_eq!(said["size"], content.len());
            let (mut found, mut chunk) = (Vec::new(), said);
            loop {
                assert_eq!(chunk["name"], said["name"]);
                let at = chunk.get("chunkOffset").map_or(0, |at| at.as_u64().unwrap() as usize);
                assert_eq!(at, found.len());
                let size = chunk.get("chunkSize").map(|size| size.as_u64().unwrap() as usize);
                let size = size.unwrap_or(content.len() - at);
                assert!(size <= CHUNK);
                let bytes = self.member(chunk["offset"].as_u64().unwrap() as usize, size);
                assert_eq!(chunk["chunkDigest"], Digest::of(&bytes).to_string());
                found.extend(bytes);
                let Some(next) = toc.next_if(|next| next["type"] == "chunk") else { break };
                chunk = next;
            }
            assert!(found == content, "{}", said["name"]);
        }
        assert!(toc.next().is_none());
    }
}

/// Compressible and not.
fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| if at / 9000 % 2 == 0 { b'a' } else { (at * at / 7) as u8 }).collect()
}

fn everything() -> Vec<u8> {
    let entry = |path: &str, kind| Entry::new(path, kind, 0o755);
    let linked = |path: &str, kind, link: &str| Entry { link: link.into(), ..entry(path, kind) };
    let timed = |path: &str, sec| {
        let mtime = Time { sec, nsec: 0 };
        Entry { mtime, uid: 7, gid: 3_000_000, ..entry(path, EntryKind::File) }
    };
    let capable = Entry {
        xattrs: vec![(b"security.capability".to_vec(), vec![1, 0, 0, 2, 0xff])],
        ..entry("capable", EntryKind::File)
    };
    let device = Entry { device: (4, 64), ..entry("tty", EntryKind::CharDevice) };
    let long = "l/".repeat(120);
    Tar::default()
        .entry(&entry("d/", EntryKind::Directory), b"")
        .entry(&timed("d/empty", 0), b"")
        .entry(&timed("d/one", 1_566_297_043), b"1")
        .entry(&timed("d/whole-blocks", i64::MAX / 2), &content(1024))
        .entry(&timed(&format!("{long}long"), -5), &content(70_000))
        .entry(&timed("exact", 9), &content(CHUNK))
        .entry(&timed("twice", 9), &content(2 * CHUNK))
        .entry(&timed("large", 9), &content(2 * CHUNK + 513))
        .entry(&capable, b"elf")
        .entry(&linked("link", EntryKind::Symlink, "d/one"), b"")
        .entry(&linked("hard", EntryKind::HardLink, "d/one"), b"")
        .entry(&device, b"")
        .entry(&Entry { device: (8, 1), ..entry("disk", EntryKind::BlockDevice) }, b"")
        .entry(&entry("pipe", EntryKind::Fifo), b"")
        .entry(&entry(".wh.gone", EntryKind::File), b"")
        .end()
}

#[test]
fn every_file_can_be_read_by_its_offset() {
    let tar = everything();
    let blob = estargz(&tar);
    blob.check(&tar);
    let toc = blob.toc();
    let of = |name: &str| toc.iter().filter(|entry| entry["name"] == name).collect::<Vec<_>>();
    assert_eq!(of("d/one")[0]["modtime"], "2019-08-20T10:30:43Z");
    assert_eq!(of("tty")[0]["devMajor"], json!(4));
    assert_eq!(of("tty")[0]["devMinor"], json!(64));
    let sizes = |name| of(name).iter().map(|it| it.get("chunkSize").cloned()).collect::<Vec<_>>();
    let whole = Some(json!(CHUNK));
    assert!(sizes("exact") == [Some(json!(CHUNK))]);
    assert_eq!(sizes("twice"), [whole.clone(), whole.clone()]);
    assert_eq!(sizes("large"), [whole.clone(), whole, None]);
    assert_eq!(of("large")[2]["chunkOffset"], json!(2 * CHUNK));
}

#[test]
fn the_bytes_depend_on_the_tar_and_the_level_alone() {
    let tar = everything();
    for level in [0, 9] {
        let first = written(&tar, level, 1, usize::MAX).unwrap();
        first.check(&tar);
        for (threads, cut) in [(3, 511), (5, 70_001)] {
            let again = written(&tar, level, threads, cut).unwrap();
            assert!(again.bytes == first.bytes && again.made == first.made, "{threads} {cut}");
        }
    }
}

#[test]
fn who_unpacks_it_as_gzip_finds_what_was_packed() {
    let (from, to) = (temp(), temp());
    from.root.create_file("a", 0o644).unwrap().write_all(b"one").unwrap();
    let (before, tar) = packed(&from.root);
    let plain = estargz(&tar).plain();
    assert!(plain.len() > tar.len());
    unpack(&plain, &to.root, None).unwrap();
    let names: Vec<_> = to.root.read_dir("").unwrap().into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["a"]);
    assert_eq!(packed(&to.root).0.diff_id, before.diff_id);
}

#[test]
fn many_entries_without_content_are_in_several_members() {
    let mut tar = Tar::default().file("first", b"1");
    for index in 0..20_000 {
        tar = tar.entry(&Entry::new(format!("{index}/"), EntryKind::Directory, 0o755), b"");
    }
    let tar = tar.file("last", b"2").end();
    assert!(tar.len() > 2 * CHUNK);
    let blob = estargz(&tar);
    blob.check(&tar);
    assert!(blob.member(0, usize::MAX).len() < 2 * CHUNK);
}

#[test]
fn ends_of_every_kind() {
    let whole = Tar::default().file("f", b"123").0;
    for zeros in [0, 512, 1024, 10_240, 5 << 20] {
        let tar = [&whole[..], &vec![0; zeros]].concat();
        estargz(&tar).check(&tar);
    }
    estargz(b"").check(b"");
    let junk = [&whole[..], &[0; 1024], b"anything"].concat();
    estargz(&junk).check(&junk);
}

fn refused(tar: &[u8]) -> String {
    let error = written(tar, 1, 2, 100).map(|_| ()).unwrap_err();
    error.downcast::<ImageError>().unwrap().to_string()
}

#[test]
fn what_it_cannot_hold_is_refused() {
    let tar = Tar::default().file("f", &content(3000)).end();
    for length in [100, 512, 1000, 512 + 3000, 512 + 3000 + 5] {
        assert!(refused(&tar[..length]).contains("truncated"), "{length}");
    }
    for name in ["stargz.index.json", "./stargz.index.json"] {
        assert!(refused(&Tar::default().file(name, b"{}").end()).contains("a file of its own"));
    }
    let holes: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"9"),
        ("GNU.sparse.name", b"f"),
    ];
    let sparse = Tar::default().pax(&holes).file("f", b"1\n6\n3\n").end();
    assert!(refused(&sparse).contains("sparse"));
    let holes: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"6,3")];
    assert!(refused(&Tar::default().pax(&holes).file("f", b"abc").end()).contains("sparse"));
    let global =
        Tar::default().raw(b'g', "x", &[&b"1000000 a="[..], &[b'a'; 999_989], b"\n"].concat()).0;
    assert!(refused(&global.repeat(6)).contains("more headers"));
}

fn entries() -> impl Strategy<Value = Vec<(Entry, Vec<u8>)>> {
    let kind = prop::sample::select(vec![
        EntryKind::File,
        EntryKind::File,
        EntryKind::Symlink,
        EntryKind::HardLink,
        EntryKind::Directory,
        EntryKind::Fifo,
    ]);
    let name = "[a-z\u{e9}/]{1,30}|[a-z]{101,200}|[a-z]{60,90}/[a-z]{60,90}";
    let size = prop_oneof![0usize..2000, 0usize..300_000];
    let entry = (name, kind, 0..0o10000u32, any::<i32>(), size).prop_map(
        |(path, kind, mode, sec, size)| {
            let path = match kind {
                EntryKind::Directory => format!("{}/", path.trim_end_matches('/')),
                _ => format!("{path}x"),
            };
            let mtime = Time { sec: i64::from(sec), nsec: 0 };
            let is_link = matches!(kind, EntryKind::Symlink | EntryKind::HardLink);
            let link = if is_link { b"target".to_vec() } else { Vec::new() };
            let bytes = if kind == EntryKind::File { content(size) } else { Vec::new() };
            (Entry { link, mtime, ..Entry::new(path, kind, mode) }, bytes)
        },
    );
    prop::collection::vec(entry, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_tree_can_be_read_by_offsets(entries in entries()) {
        let tar = entries.iter().fold(Tar::default(), |tar, (entry, bytes)| tar.entry(entry, bytes));
        let tar = tar.end();
        estargz(&tar).check(&tar);
    }

    #[test]
    fn any_bytes_are_refused_or_kept(
        flag in prop::sample::select(b"0123456xgLKS\0".to_vec()),
        size in prop::collection::vec(any::<u8>(), 12),
        tail in prop::collection::vec(any::<u8>(), 0..3000),
        cut in 1usize..700,
    ) {
        for sized in [false, true] {
            let mut tar = Tar::default().file("name", b"").0;
            tar[156] = flag;
            if sized {
                tar = crate::support::with(&tar, 124, &size);
            }
            tar.extend(&tail);
            if let Ok(blob) = written(&tar, 1, 1, cut) {
                prop_assert!(blob.plain().starts_with(&tar));
            }
        }
    }
}
