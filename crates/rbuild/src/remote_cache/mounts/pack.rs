//! Cutting files into chunks, and chunks in packs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt as _;

use fastcdc::v2020::StreamCDC;
use rbuild_cache::BlobWriter;
use rbuild_image::blob::Verified;
use rbuild_image::compress::{CompressedWriter, Compression, Encoding, reader};
use rbuild_image::manifest::Descriptor;
use rbuild_types::{CancelToken, Digest, Hasher};

use super::list::{Chunk, Run};
use super::{MAX_CHUNK, MountError, PACK_TYPE};
use crate::{BuildError, Engine};

/// Least and usual bytes of a chunk of a larger file.
const MIN_CHUNK: usize = 32 << 10;
const USUAL_CHUNK: usize = 128 << 10;
/// Bytes of a pack before it is compressed, but for mounts so large that there would be too many.
const PACK: u64 = 16 << 20;
/// Full packs that the largest mounts have.
const FULL_PACKS: u64 = 256;
/// Packs that there may be beside twice as many as the files need.
const SPARE_PACKS: u64 = 16;

/// The chunks of a file, and the digest of the whole.
pub(super) fn cut(
    mut file: File,
    cancel: &CancelToken,
) -> Result<(Vec<Chunk>, Digest), BuildError> {
    let failed = |source| BuildError::Io { what: "read a file".to_owned(), source };
    let chunk = |bytes: &[u8]| Chunk(Digest::of(bytes), bytes.len() as u32);
    let mut small = Vec::new();
    (&mut file).take(MAX_CHUNK as u64 + 1).read_to_end(&mut small).map_err(failed)?;
    if small.len() <= MAX_CHUNK {
        let whole = chunk(&small);
        let chunks = if small.is_empty() { Vec::new() } else { vec![whole] };
        return Ok((chunks, whole.0));
    }
    let (mut chunks, mut hasher) = (Vec::new(), Hasher::new());
    for part in StreamCDC::new(small.as_slice().chain(file), MIN_CHUNK, USUAL_CHUNK, MAX_CHUNK) {
        cancel.check()?;
        let bytes = part.map_err(|error| failed(error.into()))?.data;
        hasher.update(&bytes);
        chunks.push(chunk(&bytes));
    }
    Ok((chunks, hasher.finish()))
}

/// Packs that a cache has, with the chunks in them.
pub(super) type KnownPacks = Vec<(Descriptor, Vec<Chunk>)>;

/// The packs of a mount, and where in them a chunk lies.
#[derive(Default)]
pub(super) struct Packs {
    pub(super) blobs: Vec<Descriptor>,
    pub(super) chunks: Vec<Vec<Chunk>>,
    places: HashMap<Digest, (u32, u32)>,
}

impl Packs {
    /// Those of the packs that a cache has which are worth keeping for a mount of `wanted` chunks:
    /// at least half of each is in use, and there are not many more than needed. What is in the
    /// others is sent anew.
    pub(super) fn keep(old: KnownPacks, wanted: &BTreeMap<Digest, u32>) -> Self {
        let mut claimed = HashSet::new();
        let mut kept: Vec<_> = old
            .into_iter()
            .filter(|(_, chunks)| {
                let bytes = |chunks: &mut dyn Iterator<Item = &Chunk>| {
                    chunks.map(|chunk| u64::from(chunk.1)).sum::<u64>()
                };
                let is_live = |chunk: &&Chunk| {
                    wanted.get(&chunk.0) == Some(&chunk.1) && !claimed.contains(&chunk.0)
                };
                let live = bytes(&mut chunks.iter().filter(is_live));
                let is_kept = live * 2 >= bytes(&mut chunks.iter());
                if is_kept {
                    claimed.extend(chunks.iter().map(|chunk| chunk.0));
                }
                is_kept
            })
            .collect();
        let needed = total(wanted).div_ceil(pack_size(wanted));
        let allowed = usize::try_from(2 * needed + SPARE_PACKS).unwrap_or(usize::MAX);
        if kept.len() > allowed {
            // The smaller half becomes a few large ones.
            let mut sizes: Vec<_> = kept.iter().map(|(pack, _)| (pack.size, pack.digest)).collect();
            sizes.sort_unstable();
            let small: HashSet<_> = sizes.iter().take(sizes.len() / 2).collect();
            kept.retain(|(pack, _)| !small.contains(&(pack.size, pack.digest)));
        }
        let mut packs = Self::default();
        for (blob, chunks) in kept {
            packs.add(blob, chunks);
        }
        packs
    }

    fn add(&mut self, blob: Descriptor, chunks: Vec<Chunk>) {
        let pack = self.blobs.len() as u32;
        for (number, chunk) in chunks.iter().enumerate() {
            self.places.entry(chunk.0).or_insert((pack, number as u32));
        }
        self.blobs.push(blob);
        self.chunks.push(chunks);
    }

    pub(super) fn has(&self, chunk: &Chunk) -> bool {
        self.places.contains_key(&chunk.0)
    }

    /// Where the chunks of a file lie.
    pub(super) fn runs(&self, chunks: &[Chunk]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for chunk in chunks {
            let Some((pack, number)) = self.places.get(&chunk.0) else { continue };
            match runs.last_mut() {
                Some(Run(last, first, count)) if last == pack && *first + *count == *number => {
                    *count += 1;
                }
                _ => runs.push(Run(*pack, *number, 1)),
            }
        }
        runs
    }
}

fn total(wanted: &BTreeMap<Digest, u32>) -> u64 {
    wanted.values().map(|length| u64::from(*length)).sum()
}

/// Bytes of a pack of such a mount.
fn pack_size(wanted: &BTreeMap<Digest, u32>) -> u64 {
    PACK.max(total(wanted).div_ceil(FULL_PACKS))
}

/// Puts chunks into new packs, which are blobs of the store.
pub(super) struct Packer<'a> {
    engine: &'a Engine,
    cancel: &'a CancelToken,
    size: u64,
    open: Option<(CompressedWriter<'a, BlobWriter>, Vec<Chunk>, u64)>,
    /// Of the open one too.
    seen: HashSet<Digest>,
}

impl<'a> Packer<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        wanted: &BTreeMap<Digest, u32>,
        cancel: &'a CancelToken,
    ) -> Self {
        Self { engine, cancel, size: pack_size(wanted), open: None, seen: HashSet::new() }
    }

    /// Whether a chunk is in a new pack, or on its way into one.
    pub(super) fn has(&self, chunk: &Chunk) -> bool {
        self.seen.contains(&chunk.0)
    }

    pub(super) fn add(
        &mut self,
        chunk: Chunk,
        bytes: &[u8],
        packs: &mut Packs,
    ) -> Result<(), BuildError> {
        let (writer, chunks, size) = match &mut self.open {
            Some(open) => open,
            none => {
                let blob = self.engine.store.blobs().writer(self.cancel)?;
                let writer = CompressedWriter::new(blob, Encoding::ZSTD, self.engine.pool()?);
                none.insert((writer, Vec::new(), 0))
            }
        };
        writer.write_all(bytes).map_err(failed)?;
        chunks.push(chunk);
        *size += bytes.len() as u64;
        self.seen.insert(chunk.0);
        if *size >= self.size { self.finish(packs) } else { Ok(()) }
    }

    /// Ends the pack that is open.
    pub(super) fn finish(&mut self, packs: &mut Packs) -> Result<(), BuildError> {
        let Some((writer, chunks, _)) = self.open.take() else { return Ok(()) };
        let (digest, size) = writer.finish().map_err(failed)?.commit(None, None)?;
        packs.add(Descriptor::new(PACK_TYPE, digest, size), chunks);
        Ok(())
    }
}

fn failed(source: std::io::Error) -> BuildError {
    BuildError::Io { what: "write a pack of a cache mount".to_owned(), source }
}

/// Writes the chunks of a fetched pack one after the other to `to`; each is checked, and that there
/// is nothing else.
pub(super) fn unpack(
    blob: &Descriptor,
    bytes: File,
    chunks: &[Chunk],
    (to, mut at): (&File, u64),
    cancel: &CancelToken,
) -> Result<(), MountError> {
    let wrong = |problem: String| MountError::Pack { pack: blob.digest.short(), problem };
    let unread = |error: std::io::Error| wrong(format!("cannot be read: {error}"));
    let source = Verified::new(bytes, blob.digest, blob.size);
    let mut source = reader(Compression::Zstd, source, "the stream")?;
    let mut buffer = vec![0; MAX_CHUNK];
    for Chunk(digest, length) in chunks {
        cancel.check()?;
        let bytes = buffer.get_mut(..*length as usize).unwrap_or_default();
        source.read_exact(bytes).map_err(unread)?;
        if Digest::of(&*bytes) != *digest {
            return Err(wrong(format!("has another chunk in the place of {}", digest.short())));
        }
        to.write_all_at(bytes, at).map_err(failed)?;
        at += u64::from(*length);
    }
    match source.read(&mut buffer).map_err(unread)? {
        0 => Ok(()),
        _ => Err(wrong("has more than its list names".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use super::*;

    fn cuts(bytes: &[u8]) -> Vec<Chunk> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let (chunks, digest) = cut(file, &CancelToken::default()).unwrap();
        assert_eq!(digest, Digest::of(bytes));
        let mut rest = bytes;
        for chunk in &chunks {
            let (first, behind) = rest.split_at(chunk.1 as usize);
            assert_eq!(Digest::of(first), chunk.0);
            rest = behind;
        }
        assert!(rest.is_empty());
        chunks
    }

    /// Bytes in which no cut is like another, always the same ones.
    fn noise(length: usize) -> Vec<u8> {
        let digests = (0_u64..).flat_map(|number| *Digest::of(number.to_le_bytes()).as_bytes());
        digests.take(length).collect()
    }

    #[test]
    fn small_files_are_one_chunk_and_large_ones_are_cut_by_content() {
        let large = noise(4 << 20);
        assert_eq!(cuts(&[]), []);
        assert_eq!(cuts(&large[..MAX_CHUNK]).len(), 1);
        let before = cuts(&large);
        assert!(before.len() > 16, "{}", before.len());
        assert!(before.iter().all(|chunk| (1..=MAX_CHUNK as u32).contains(&chunk.1)));
        // The cuts of caches that are there already never move.
        assert_eq!(before.first().unwrap().0.short(), "bdcbca4536b4");
        // A byte in the middle changes the chunk that has it, and perhaps the next ones.
        let mut changed = large;
        changed.insert(2 << 20, 7);
        let after = cuts(&changed);
        let kept = before.iter().filter(|chunk| after.contains(chunk)).count();
        assert!(kept + 3 >= before.len(), "{kept} of {}", before.len());
    }

    fn blob(number: u64, size: u64) -> Descriptor {
        Descriptor::new(PACK_TYPE, Digest::of(number.to_le_bytes()), size)
    }

    fn chunk(number: u64) -> Chunk {
        Chunk(Digest::of(number.to_le_bytes()), 100_000)
    }

    fn wanted(numbers: impl Iterator<Item = u64>) -> BTreeMap<Digest, u32> {
        numbers.map(chunk).map(|Chunk(digest, length)| (digest, length)).collect()
    }

    #[test]
    fn packs_are_kept_while_half_of_them_is_used() {
        let old =
            || vec![(blob(0, 9), (0..10).map(chunk).collect()), (blob(1, 9), vec![chunk(10)])];
        let kept = |numbers: std::ops::Range<u64>| Packs::keep(old(), &wanted(numbers)).blobs.len();
        assert_eq!((kept(0..11), kept(5..10), kept(6..10), kept(6..11)), (2, 1, 0, 1));
        // What a pack before it has counts for that one alone.
        let twice = vec![(blob(0, 9), vec![chunk(0)]), (blob(1, 9), vec![chunk(0)])];
        assert_eq!(Packs::keep(twice, &wanted(0..1)).blobs, [blob(0, 9)]);
        // A chunk of another length is another chunk.
        let other = vec![(blob(0, 9), vec![Chunk(chunk(0).0, 7)])];
        assert_eq!(Packs::keep(other, &wanted(0..1)).blobs, []);
    }

    #[test]
    fn many_generations_are_few_packs() {
        // Every build replaces one chunk of a hundred.
        let mut live: Vec<u64> = (0..100).collect();
        let mut old: KnownPacks =
            vec![(blob(1000, 10_000_000), live.iter().copied().map(chunk).collect())];
        let mut sent = 0;
        for generation in 100..1000 {
            live[generation as usize % 100] = generation;
            let mut packs = Packs::keep(old, &wanted(live.iter().copied()));
            let new: Vec<_> =
                live.iter().copied().map(chunk).filter(|chunk| !packs.has(chunk)).collect();
            sent += new.len();
            packs.add(blob(generation, new.len() as u64 * 100_000), new);
            let bytes: usize = packs.chunks.iter().map(Vec::len).sum();
            assert!(bytes <= 201, "{bytes} at {generation}");
            assert!(packs.blobs.len() <= 20, "{} at {generation}", packs.blobs.len());
            old = packs.blobs.into_iter().zip(packs.chunks).collect();
        }
        // Nine hundred new ones, and not many times more.
        assert!(sent < 4 * 900, "{sent}");
    }
}
