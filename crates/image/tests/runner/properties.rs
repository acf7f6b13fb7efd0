//! Readers of strangers' bytes never panic, and what is written is read back.

use proptest::prelude::*;
use rbuild_image::compress::{Compression, reader};
use rbuild_image::config::parse_config;
use rbuild_image::manifest::parse_manifest;
use rbuild_image::tarball::{Entry, EntryKind, Reader};
use rbuild_rooted::Time;

use crate::support::{Tar, temp, unpack, with};

fn read_all(bytes: &[u8]) -> usize {
    let mut reader = Reader::new(bytes);
    let mut count = 0;
    while let Ok(Some(_)) = reader.next_entry() {
        count += 1;
        assert!(count <= bytes.len() / 512 + 1);
    }
    count
}

fn entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let name = "[a-z\u{e9}./]{1,40}|[a-z]{90,120}/[a-z]{90,110}|[a-z]{200,270}";
    let kind =
        prop::sample::select(vec![EntryKind::File, EntryKind::Symlink, EntryKind::Directory]);
    let ids = (0..u32::MAX, 0..u32::MAX);
    let content = prop::collection::vec(any::<u8>(), 0..1200);
    let xattrs = prop::collection::btree_map(
        "user\\.[a-z]{1,9}",
        prop::collection::vec(any::<u8>(), 1..99),
        0..3,
    );
    (name, name, kind, 0..0o10000u32, ids, any::<i64>(), content, xattrs).prop_map(
        |(path, link, kind, mode, (uid, gid), sec, content, xattrs)| {
            let content = if kind == EntryKind::File { content } else { Vec::new() };
            // A file's slash at the end would make it a directory.
            let path = match kind {
                EntryKind::Directory => format!("{}/", path.trim_end_matches('/')),
                _ => format!("{path}x"),
            };
            let entry = Entry {
                link: if kind == EntryKind::Symlink { link.into_bytes() } else { Vec::new() },
                uid,
                gid,
                size: content.len() as u64,
                mtime: Time { sec: sec.max(-i64::MAX), nsec: 0 },
                xattrs: xattrs
                    .into_iter()
                    .map(|(name, value)| (name.into_bytes(), value))
                    .collect(),
                ..Entry::new(path, kind, mode)
            };
            (entry, content)
        },
    )
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        read_all(&bytes);
        let _ = parse_manifest(&bytes, None);
        let _ = parse_config(&bytes);
        for compression in [Compression::Gzip, Compression::Zstd, Compression::Xz, Compression::Bzip2] {
            if let Ok(reader) = reader(compression, &bytes[..], "x") {
                let _ = std::io::copy(&mut std::io::Read::take(reader, 1 << 20), &mut std::io::sink());
            }
        }
    }

    #[test]
    fn damaged_headers_with_right_sums_never_panic(
        changes in prop::collection::vec((0usize..512, any::<u8>()), 1..40),
        flag in prop::sample::select(b"0123456xgLKS\0".to_vec()),
        tail in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let mut block = Tar::default().file("name", b"").0;
        block[156] = flag;
        for (at, byte) in changes {
            block = with(&block, at, &[byte]);
        }
        block.extend(tail);
        read_all(&block);
        let _ = unpack(&block, &temp().root, None);
    }

    #[test]
    fn arbitrary_pax_records_never_panic(
        records in prop::collection::vec(any::<u8>(), 0..300),
        keys in prop::collection::vec(("path|size|uid|mtime|linkpath|GNU.sparse.map|GNU.sparse.major|GNU.sparse.minor|GNU.sparse.size|GNU.sparse.realsize|SCHILY.xattr.user.x", prop::collection::vec(any::<u8>(), 0..30)), 0..6),
    ) {
        read_all(&Tar::default().raw(b'x', "pax", &records).file("f", b"abc").end());
        let keys: Vec<(&str, &[u8])> = keys.iter().map(|(key, value)| (key.as_str(), &value[..])).collect();
        read_all(&Tar::default().pax(&keys).file("f", b"abc").end());
    }

    #[test]
    fn what_is_encoded_is_read_back(entries in prop::collection::vec(entry(), 1..6)) {
        let tar = entries.iter().fold(Tar::default(), |tar, (entry, content)| tar.entry(entry, content)).end();
        let mut reader = Reader::new(&tar[..]);
        for (entry, content) in &entries {
            let found = reader.next_entry().unwrap().unwrap();
            prop_assert_eq!(&found, entry);
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
            prop_assert_eq!(&bytes, content);
        }
        prop_assert!(reader.next_entry().unwrap().is_none());
    }
}
