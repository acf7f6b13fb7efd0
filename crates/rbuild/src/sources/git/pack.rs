//! Packs: many objects in one file, some as the difference to another.
//!
//! A pack is read twice. The first pass goes over the entries in their order and names those that
//! stand for themselves. The second goes from each of them up along the differences, so that
//! every object is made once. After that the name of each object is proven, and differences form
//! no circle.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use rbuild_types::CancelToken;
use sha1_checked::{Digest as _, Sha1};

use super::delta::apply;
use super::entry::{Header, MAX_OBJECT, Reading, bad};
use super::error::GitError;
use super::object::{Kind, Naming, ObjectId};

/// Most bytes of objects that are held at once while differences are followed.
const MAX_HELD: usize = 1 << 30;
/// Longest chain of differences; git makes 50 and reads 4095.
const MAX_CHAIN: usize = 4_095;
/// Bytes of the pack's own digest at its end.
const TRAILER: u64 = 20;

/// A pack whose objects are known by name.
pub(super) struct Pack {
    file: File,
    objects: HashMap<ObjectId, u64>,
}

/// A difference that waits for its base.
struct Waiting {
    offset: u64,
    base: Rc<Vec<u8>>,
    kind: Kind,
    depth: usize,
}

impl Pack {
    /// Reads a pack of `size` bytes and names its objects.
    pub(super) fn open(file: File, size: u64, cancel: &CancelToken) -> Result<Self, GitError> {
        let mut pack = Self { file, objects: HashMap::new() };
        let end = pack.check(size, cancel)?;
        let mut after: HashMap<u64, Vec<u64>> = HashMap::new();
        let mut of: HashMap<ObjectId, Vec<u64>> = HashMap::new();
        let mut whole = Vec::new();
        let mut at = Reading::new(&pack.file, 8);
        let count = at.number()?;
        for _ in 0..count {
            cancel.check()?;
            let offset = at.offset;
            if offset >= end {
                return Err(bad("it has fewer objects than it says"));
            }
            let (header, size) = at.header(offset)?;
            match header {
                Header::Whole(kind) => {
                    let mut naming = Naming::new(kind, size);
                    at.inflate(size, u64::MAX, |bytes| {
                        naming.update(bytes);
                        Ok(())
                    })?;
                    let id = naming.finish().ok_or_else(|| bad("an object has a forged name"))?;
                    pack.objects.insert(id, offset);
                    whole.push((id, kind, offset));
                }
                Header::After(base) => {
                    at.inflate(size, MAX_OBJECT, |_| Ok(()))?;
                    after.entry(base).or_default().push(offset);
                }
                Header::Of(base) => {
                    at.inflate(size, MAX_OBJECT, |_| Ok(()))?;
                    of.entry(base).or_default().push(offset);
                }
            }
        }
        for (id, kind, offset) in whole {
            if !after.contains_key(&offset) && !of.contains_key(&id) {
                continue;
            }
            let base = Rc::new(pack.read(&id)?.ok_or_else(|| bad("an object is gone"))?.1);
            let mut children = |offset: u64, id: &ObjectId| {
                let mut all = after.remove(&offset).unwrap_or_default();
                all.extend(of.remove(id).unwrap_or_default());
                all
            };
            let wait = |offset, base: &Rc<Vec<u8>>, depth| Waiting {
                offset,
                base: base.clone(),
                kind,
                depth,
            };
            // Bytes of the bases that something waits for.
            let mut held = base.len();
            let mut waiting: Vec<_> =
                children(offset, &id).into_iter().map(|child| wait(child, &base, 1)).collect();
            drop(base);
            while let Some(next) = waiting.pop() {
                cancel.check()?;
                let mut at = Reading::new(&pack.file, next.offset);
                let (_, size) = at.header(next.offset)?;
                let object = Rc::new(apply(&next.base, &at.whole(size)?)?);
                if Rc::strong_count(&next.base) == 1 {
                    held -= next.base.len();
                }
                let id = Naming::of(next.kind, &object)
                    .ok_or_else(|| bad("an object has a forged name"))?;
                pack.objects.insert(id, next.offset);
                let above = children(next.offset, &id);
                if above.is_empty() {
                    continue;
                }
                held += object.len();
                if held > MAX_HELD || next.depth >= MAX_CHAIN {
                    return Err(bad("its differences need too much memory"));
                }
                waiting.extend(above.into_iter().map(|child| wait(child, &object, next.depth + 1)));
            }
        }
        match after.is_empty() && of.is_empty() {
            true => Ok(pack),
            false => Err(bad("a difference has no base")),
        }
    }

    /// Checks what surrounds the entries, and gives their end.
    fn check(&self, size: u64, cancel: &CancelToken) -> Result<u64, GitError> {
        let end = size.checked_sub(TRAILER).filter(|end| *end >= 12);
        let end = end.ok_or_else(|| bad("it is too short"))?;
        let mut head = [0; 8];
        self.file.read_exact_at(&mut head, 0)?;
        if head != *b"PACK\0\0\0\x02" {
            return Err(bad("it is no pack of version 2"));
        }
        let mut sha1 = Sha1::new();
        let mut buffer = vec![0; 1 << 16];
        let mut offset = 0;
        while offset < end {
            cancel.check()?;
            let want = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..want).unwrap_or_default();
            self.file.read_exact_at(part, offset)?;
            sha1.update(&*part);
            offset += want as u64;
        }
        let mut trailer = [0; 20];
        self.file.read_exact_at(&mut trailer, end)?;
        let found: [u8; 20] = sha1.finalize().into();
        if found == trailer { Ok(end) } else { Err(bad("its digest is another")) }
    }

    /// A whole object in memory.
    pub(super) fn read(&self, id: &ObjectId) -> Result<Option<(Kind, Vec<u8>)>, GitError> {
        let Some(offset) = self.objects.get(id) else { return Ok(None) };
        let mut offset = *offset;
        let mut deltas: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut at = Reading::new(&self.file, offset);
            let (header, size) = at.header(offset)?;
            offset = match header {
                Header::Whole(kind) => {
                    let mut object = at.whole(size)?;
                    while let Some(delta) = deltas.pop() {
                        object = apply(&object, &delta)?;
                    }
                    return Ok(Some((kind, object)));
                }
                Header::After(base) => base,
                Header::Of(base) => {
                    *self.objects.get(&base).ok_or_else(|| bad("a difference has no base"))?
                }
            };
            deltas.push(at.whole(size)?);
            if deltas.len() > MAX_CHAIN {
                return Err(bad("its differences are too long a chain"));
            }
        }
    }

    /// Writes an object's bytes; one that stands for itself may have any size.
    pub(super) fn copy(&self, id: &ObjectId, out: &mut dyn Write) -> Result<bool, GitError> {
        let Some(offset) = self.objects.get(id) else { return Ok(false) };
        let mut at = Reading::new(&self.file, *offset);
        match at.header(*offset)? {
            (Header::Whole(_), size) => at.inflate(size, u64::MAX, |bytes| out.write_all(bytes))?,
            _ => {
                let object = self.read(id)?.map(|(_, object)| object).unwrap_or_default();
                out.write_all(&object)?;
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A pack of entries: type, what stands between header and bytes, bytes (fewer than 2048).
    fn pack(entries: &[(u8, Vec<u8>, &[u8])]) -> Vec<u8> {
        let mut bytes = b"PACK\0\0\0\x02".to_vec();
        bytes.extend((entries.len() as u32).to_be_bytes());
        for (kind, between, content) in entries {
            let size = content.len();
            bytes.extend([128 | kind << 4 | (size & 15) as u8, (size >> 4) as u8]);
            bytes.extend(between);
            bytes.extend(packed(content));
        }
        let digest = super::super::object::plain_sha1(&bytes);
        bytes.extend(digest);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<Pack, GitError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Pack::open(file, bytes.len() as u64, &CancelToken::default())
    }

    /// `base` and `base + " more"`: copies all of the base, then adds.
    const BASE: &[u8] = b"base";
    const DELTA: &[u8] = b"\x04\x09\x90\x04\x05 more";

    #[test]
    fn differences_are_followed_by_place_and_by_name() {
        let name = |bytes: &[u8]| Naming::of(Kind::Blob, bytes).unwrap();
        let distance = (2 + packed(BASE).len()) as u8;
        let by_place = pack(&[(3, vec![], BASE), (6, vec![distance], DELTA)]);
        let by_name = pack(&[(7, name(BASE).0.to_vec(), DELTA), (3, vec![], BASE)]);
        for bytes in [by_place, by_name] {
            let pack = open(&bytes).unwrap();
            let (kind, object) = pack.read(&name(b"base more")).unwrap().unwrap();
            assert_eq!((kind, object.as_slice()), (Kind::Blob, b"base more".as_slice()));
            let mut out = Vec::new();
            assert!(pack.copy(&name(BASE), &mut out).unwrap());
            assert_eq!(out, BASE);
            assert!(pack.read(&name(b"other")).unwrap().is_none());
        }
    }

    #[test]
    fn bad_packs_are_refused() {
        let name = Naming::of(Kind::Blob, b"elsewhere").unwrap();
        for (bytes, problem) in [
            (pack(&[(7, name.0.to_vec(), DELTA)]), "no base"),
            (pack(&[(6, vec![0], DELTA)]), "outside"),
            (pack(&[(6, vec![120], DELTA)]), "outside"),
            (pack(&[(5, vec![], BASE)]), "no known kind"),
            ([&pack(&[(3, vec![], BASE)])[..], b"more"].concat(), "digest"),
            (b"PACK".to_vec(), "short"),
        ] {
            let error = open(&bytes).err().unwrap().to_string();
            assert!(error.contains(problem), "{problem}: {error}");
        }
        let mut few = pack(&[(3, vec![], BASE)]);
        few[11] = 9;
        let end = few.len() - 20;
        let digest = super::super::object::plain_sha1(&few[..end]);
        few[end..].copy_from_slice(&digest);
        assert!(open(&few).is_err());
    }

    proptest! {
        #[test]
        fn any_entries_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut whole = b"PACK\0\0\0\x02\0\0\0\x02".to_vec();
            whole.extend(bytes);
            let digest = super::super::object::plain_sha1(&whole);
            whole.extend(digest);
            let _ = open(&whole);
        }
    }
}
