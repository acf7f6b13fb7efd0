//! The index of a remote cache: one document that says which step led to which layer.
//!
//! JSON in one fixed form, compressed as one zstd stream. A record is a layer that one step gave
//! upon one root: steps are told apart by their key, roots by their chain id, layers by their diff
//! id. So two machines whose builds gave other bytes for the same step have a record each, and what
//! was made upon either stays usable. The newest [`MAX_ALTERNATIVES`] of a step upon one root stay.
//!
//! Every write counts the *generation* up and marks the records of the build with it. What no
//! build has used for [`KEPT_GENERATIONS`] writes is forgotten, and of more than [`MAX_RECORDS`]
//! those that were used longest ago, so that an index does not grow for ever.
//!
//! An index comes from elsewhere and is not trusted: nothing in it is a path, sizes are limits and
//! never allocated, and layers are checked against their digests when they arrive.

use std::collections::BTreeMap;

use rbuild_image::manifest::{Descriptor, chain_id};
use rbuild_image::media_type::layer_compression;
use rbuild_solver::EarlierStep;
use rbuild_types::Digest;
use serde::{Deserialize, Serialize};

use super::document;
use super::mounts::{Mount, Sent};

/// What the bytes of an index are called.
pub(crate) const INDEX_TYPE: &str = "application/vnd.rbuild.cache.index.v1+json+zstd";

/// The form that this version writes and reads.
const VERSION: u32 = 1;
/// Records in an index: with 10 new ones a build, those of a thousand builds.
pub(crate) const MAX_RECORDS: usize = 10_000;
/// Writes that a record which nobody uses survives.
pub(crate) const KEPT_GENERATIONS: u64 = 50;
/// No index is written this often.
const MAX_GENERATION: u64 = 1 << 53;
/// Bytes of an index, compressed and not. Full ones have some 3 and 30 MiB.
pub(crate) const MAX_BYTES: u64 = 16 << 20;
const MAX_DOCUMENT: u64 = 64 << 20;
/// Bytes of the key's document that are kept to explain a miss; of larger ones nothing is.
const MAX_INPUTS: usize = 2 << 10;
/// Layers that one step gave upon one root.
const MAX_ALTERNATIVES: usize = 8;
/// Definition keys of one record.
const MAX_DEFINITIONS: usize = 32;
/// Cache mounts in an index.
const MAX_MOUNTS: usize = 64;
/// Bytes of a step's name.
const MAX_NAME: usize = 512;
/// More than any layer has.
const MAX_LAYER: u64 = 1 << 50;
/// The end of the year 9999, beyond which times have no usual form. Milliseconds.
const MAX_TIME: i64 = 253_402_300_799_999;

/// Why bytes are no index.
#[derive(Debug, thiserror::Error)]
#[error("its index {0}")]
pub struct IndexError(pub(crate) String);

/// What a cache knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Index {
    /// Writes so far.
    pub(crate) generation: u64,
    records: BTreeMap<Identity, Record>,
    /// By volume.
    pub(crate) mounts: BTreeMap<String, Mount>,
}

/// A step, the chain id of its root, and the layer that it gave.
pub(crate) type Identity = (Digest, Option<Digest>, Digest);

/// A layer that one step gave upon one root.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: Digest,
    /// Chain id of the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upon: Option<Digest>,
    pub(crate) op: String,
    /// As people see it: `[stage 2/5] RUN make`.
    pub(crate) name: String,
    /// Keys that need no file and lead to this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) definitions: Vec<Digest>,
    /// Digest of the uncompressed tar.
    pub(crate) diff_id: Digest,
    /// Bytes of the uncompressed tar.
    pub(crate) tar_size: u64,
    /// The layer as it is kept; an index inside an image leaves it to the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<Descriptor>,
    /// Milliseconds since 1970.
    pub(crate) created: i64,
    pub(crate) duration_ms: u64,
    /// The generation that used it last.
    #[serde(default)]
    pub(crate) used: u64,
    /// The document that the key is made of, as a text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) inputs: String,
}

/// The document.
#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    generation: u64,
    records: Vec<Record>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<Mount>,
}

impl Record {
    pub(crate) fn identity(&self) -> Identity {
        (self.key, self.upon, self.diff_id)
    }

    /// Lets a definition key lead to it.
    pub(super) fn define(&mut self, definition: Option<Digest>) {
        self.definitions.extend(definition);
        self.definitions.sort();
        self.definitions.dedup();
        self.definitions.truncate(MAX_DEFINITIONS);
    }

    /// Puts the key's document in, unless it is large.
    pub(crate) fn explain(&mut self, mut inputs: serde_json::Value) {
        if let serde_json::Value::Object(document) = &mut inputs {
            document.remove("files");
        }
        let text = if inputs.is_null() { String::new() } else { inputs.to_string() };
        self.inputs = if text.len() <= MAX_INPUTS { text } else { String::new() };
    }

    /// What a miss is explained by.
    pub(super) fn earlier(&self) -> EarlierStep {
        EarlierStep {
            key: self.key,
            op: self.op.clone(),
            name: self.name.clone(),
            inputs: serde_json::from_str(&self.inputs).unwrap_or_default(),
        }
    }

    /// The chain id of the layer with all below it.
    pub(super) fn chain_id(&self) -> Digest {
        chain_id(self.upon.as_ref(), &self.diff_id)
    }

    /// What of it cannot be.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let blob = self.blob.as_ref();
        if self.op.len() > MAX_NAME || self.name.len() > MAX_NAME {
            Some("has a step with a name that is too long")
        } else if self.definitions.len() > MAX_DEFINITIONS || self.inputs.len() > MAX_INPUTS {
            Some("has a record that is too large")
        } else if self.tar_size > MAX_LAYER || blob.is_some_and(|blob| blob.size > MAX_LAYER) {
            Some("has a layer of an absurd size")
        } else if blob.is_some_and(|blob| layer_compression(&blob.media_type).is_none()) {
            Some("has a layer of unknown media type")
        } else if !(0..=MAX_TIME).contains(&self.created) {
            Some("has a step that was made outside of time")
        } else {
            None
        }
    }

    /// Takes in what else is known of the same layer.
    fn join(&mut self, other: Self) {
        let (newer, older) = if other.created >= self.created {
            (other, self.clone())
        } else {
            (self.clone(), other)
        };
        let mut definitions = newer.definitions.clone();
        let further = older.definitions.iter().filter(|one| !newer.definitions.contains(one));
        definitions.extend(further);
        definitions.truncate(MAX_DEFINITIONS);
        definitions.sort();
        let used = newer.used.max(older.used);
        *self = Self { definitions, used, ..newer };
    }
}

/// A name that fits into a record.
pub(crate) fn shortened(name: &str) -> String {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().to_owned()
}

impl Index {
    /// Reads an index.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        let error = |problem: &str| IndexError(problem.to_owned());
        if bytes.len() as u64 > MAX_BYTES {
            return Err(error("is too large"));
        }
        let document: Document =
            document::read(bytes, MAX_DOCUMENT, VERSION).map_err(IndexError)?;
        if document.records.len() > MAX_RECORDS {
            return Err(error("has too many records"));
        }
        if document.generation > MAX_GENERATION {
            return Err(error("was written more often than anybody can"));
        }
        if document.mounts.len() > MAX_MOUNTS {
            return Err(error("has too many cache mounts"));
        }
        let mut index = Self { generation: document.generation, ..Self::default() };
        for mount in document.mounts {
            if let Some(problem) = mount.problem() {
                return Err(error(problem));
            }
            index.mounts.insert(mount.volume.clone(), mount);
        }
        for record in document.records {
            if let Some(problem) = record.problem() {
                return Err(error(problem));
            }
            index.insert(record);
        }
        Ok(index)
    }

    /// The bytes of the index.
    pub(crate) fn to_bytes(&self, pool: &rayon::ThreadPool) -> std::io::Result<Vec<u8>> {
        let records = self.records.values().cloned().collect();
        let mounts = self.mounts.values().cloned().collect();
        let document = Document { version: VERSION, generation: self.generation, records, mounts };
        document::compressed(&serde_json::to_vec(&document)?, pool)
    }

    #[cfg(test)]
    fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    pub(crate) fn into_records(self) -> impl Iterator<Item = Record> {
        self.records.into_values()
    }

    pub(crate) fn insert(&mut self, record: Record) {
        match self.records.entry(record.identity()) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(record);
            }
            std::collections::btree_map::Entry::Occupied(mut old) => old.get_mut().join(record),
        }
    }

    /// Whether nothing of `records` would be new here, and none is about to be forgotten.
    pub(crate) fn covers(&self, records: &BTreeMap<Identity, Record>) -> bool {
        records.values().all(|record| {
            self.records.get(&record.identity()).is_some_and(|known| {
                let definitions = &known.definitions;
                known.created >= record.created
                    && known.used.saturating_add(KEPT_GENERATIONS / 2) >= self.generation
                    && (definitions.len() >= MAX_DEFINITIONS
                        || record.definitions.iter().all(|one| definitions.contains(one)))
            })
        })
    }

    /// The index after a build with these records.
    pub(crate) fn with(mut self, records: &BTreeMap<Identity, Record>) -> Self {
        self.generation = self.generation.saturating_add(1);
        let generation = self.generation;
        for record in records.values() {
            self.insert(Record { used: generation, ..record.clone() });
        }
        self.records.retain(|_, record| {
            // A record of the future comes from an index that was made anew meanwhile.
            record.used = record.used.min(generation);
            record.used.saturating_add(KEPT_GENERATIONS) >= generation
        });
        let mut alternatives = BTreeMap::<_, Vec<_>>::new();
        for (identity, record) in &self.records {
            let same = alternatives.entry((record.key, record.upon)).or_default();
            same.push((record.created, *identity));
        }
        for mut same in alternatives.into_values() {
            same.sort_unstable();
            let surplus = same.len().saturating_sub(MAX_ALTERNATIVES);
            for (_, identity) in same.into_iter().take(surplus) {
                self.records.remove(&identity);
            }
        }
        if let Some(surplus) = self.records.len().checked_sub(MAX_RECORDS) {
            let mut by_use: Vec<_> =
                self.records.values().map(|one| (one.used, one.created, one.identity())).collect();
            by_use.sort_unstable();
            for (_, _, identity) in by_use.into_iter().take(surplus) {
                self.records.remove(&identity);
            }
        }
        self
    }

    /// Whether nothing of what was sent would be new here, and none is about to be forgotten.
    /// `replaced` are the mounts that the caller's own write found, if it has written: what others
    /// have written since then stays.
    pub(crate) fn covers_mounts(
        &self,
        sent: &Sent,
        replaced: Option<&BTreeMap<String, Mount>>,
    ) -> bool {
        let is_fresh =
            |mount: &Mount| mount.used.saturating_add(KEPT_GENERATIONS / 2) >= self.generation;
        let list = |mount: &Mount| mount.list.digest;
        sent.mounts.iter().all(|mount| {
            let known = self.mounts.get(&mount.volume).filter(|known| is_fresh(known));
            known.is_some_and(|known| match replaced {
                None => list(known) == list(mount) && known.packs == mount.packs,
                Some(replaced) => replaced.get(&mount.volume).map(list) != Some(list(known)),
            })
        }) && sent.unchanged.iter().all(|volume| self.mounts.get(volume).is_none_or(is_fresh))
    }

    /// The index of [`Index::with`] with what was sent in the same build.
    pub(crate) fn with_mounts(mut self, sent: &Sent) -> Self {
        let used = self.generation;
        for mount in &sent.mounts {
            self.mounts.insert(mount.volume.clone(), Mount { used, ..mount.clone() });
        }
        for volume in &sent.unchanged {
            self.mounts.entry(volume.clone()).and_modify(|mount| mount.used = used);
        }
        self.mounts.retain(|_, mount| {
            mount.used = mount.used.min(used);
            mount.used.saturating_add(KEPT_GENERATIONS) >= used
        });
        while self.mounts.len() > MAX_MOUNTS {
            let oldest = self.mounts.values().min_by_key(|mount| mount.used);
            let Some(oldest) = oldest.map(|mount| mount.volume.clone()) else { break };
            self.mounts.remove(&oldest);
        }
        self
    }

    /// All that the index names, each once: the layers of steps, lists and packs of cache mounts.
    pub(crate) fn layers(&self) -> Vec<Descriptor> {
        let mounts = self.mounts.values().flat_map(Mount::blobs);
        let blobs = self.records.values().filter_map(|record| record.blob.as_ref()).chain(mounts);
        let by_digest: BTreeMap<Digest, &Descriptor> =
            blobs.map(|blob| (blob.digest, blob)).collect();
        by_digest.into_values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rbuild_image::media_type::OCI_LAYER;

    use super::*;
    use crate::remote_cache::mounts::PACK_TYPE;
    use crate::remote_cache::mounts::list::LIST_TYPE;

    fn pool() -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap()
    }

    fn record(step: &str, upon: Option<&str>, created: i64) -> Record {
        let diff_id = Digest::of(format!("{step} {created}"));
        Record {
            key: Digest::of(step),
            upon: upon.map(Digest::of),
            op: "run".to_owned(),
            name: step.to_owned(),
            definitions: Vec::new(),
            diff_id,
            tar_size: 1024,
            blob: Some(Descriptor::new(OCI_LAYER, diff_id, 1024)),
            created,
            duration_ms: 5,
            used: 0,
            inputs: String::new(),
        }
    }

    fn map(records: &[Record]) -> BTreeMap<Identity, Record> {
        records.iter().map(|record| (record.identity(), record.clone())).collect()
    }

    fn compressed(text: &[u8]) -> Vec<u8> {
        document::compressed(text, &pool()).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut one = record("a", None, 1);
        one.explain(serde_json::json!({ "step": "a", "files": ["x"] }));
        assert_eq!(one.inputs, r#"{"step":"a"}"#);
        let index = Index::default().with(&map(&[one, record("b", Some("root"), 2)]));
        let bytes = index.to_bytes(&pool()).unwrap();
        assert_eq!(Index::parse(&bytes).unwrap(), index);
        // The same records give the same bytes.
        assert_eq!(Index::parse(&bytes).unwrap().to_bytes(&pool()).unwrap(), bytes);
    }

    #[test]
    fn other_results_of_the_same_step_stay() {
        let old = Index::default().with(&map(&[record("a", None, 1), record("b", Some("x"), 3)]));
        let mut newer = record("a", None, 2);
        newer.definitions = vec![Digest::of("definition")];
        let new = map(&[newer.clone(), record("b", Some("y"), 2)]);
        assert!(!old.covers(&new));
        let both = old.with(&new);
        assert!(both.covers(&new));
        assert_eq!(both.records().count(), 4);
        // An older one adds what it knows besides.
        let definitions = vec![Digest::of("other")];
        let older = Record { definitions, created: 0, ..newer.clone() };
        let again = both.with(&map(&[older]));
        let found = again.records.get(&newer.identity()).unwrap();
        assert_eq!((found.created, found.used, found.definitions.len()), (2, 3, 2));
        // But not without end.
        let many: Vec<_> = (0..20).map(|created| record("a", None, created)).collect();
        assert_eq!(again.with(&map(&many)).records().count(), MAX_ALTERNATIVES + 2);
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let used = map(&[record("used", None, 1)]);
        let mut index = Index::default().with(&map(&[record("unused", None, 1)])).with(&used);
        for _ in 0..KEPT_GENERATIONS - 1 {
            index = index.with(&used);
            assert_eq!(index.records().count(), 2);
        }
        index = index.with(&used);
        assert_eq!(index.records().count(), 1);
        // What a build uses is written again before it would be forgotten.
        let fresh = map(&[record("other", None, 1)]);
        assert!(index.covers(&used));
        for _ in 0..=KEPT_GENERATIONS / 2 {
            index = index.with(&fresh);
        }
        assert!(!index.covers(&used));
    }

    fn mount(volume: &str, list: &str) -> Mount {
        Mount {
            volume: volume.to_owned(),
            id: volume.to_owned(),
            list: Descriptor::of(LIST_TYPE, list.as_bytes()),
            packs: vec![Descriptor::of(PACK_TYPE, b"pack")],
            files: 1,
            bytes: 1,
            used: 0,
        }
    }

    fn sent(mounts: &[Mount], unchanged: &[&str]) -> Sent {
        let unchanged = unchanged.iter().map(ToString::to_string).collect();
        Sent { mounts: mounts.to_vec(), unchanged, ..Sent::default() }
    }

    #[test]
    fn cache_mounts_are_kept_as_layers_are() {
        let (one, two) = (sent(&[mount("one", "1")], &[]), sent(&[mount("two", "2")], &[]));
        let next = |index: Index, sent: &Sent| index.with(&map(&[])).with_mounts(sent);
        let mut index = next(next(Index::default(), &one), &two);
        assert_eq!(Index::parse(&index.to_bytes(&pool()).unwrap()).unwrap(), index);
        // Two lists and the pack of both.
        assert_eq!(index.layers().len(), 3);
        assert!(index.covers_mounts(&one, None) && index.covers_mounts(&two, None));
        // What nobody names is forgotten in the end; who names it keeps it.
        let unchanged = sent(&[], &["one"]);
        for _ in 0..KEPT_GENERATIONS {
            assert!(index.mounts.contains_key("two"));
            if !index.covers_mounts(&unchanged, None) {
                index = next(index, &unchanged);
            }
            index = next(index, &Sent::default());
        }
        assert_eq!(index.mounts.keys().collect::<Vec<_>>(), ["one"]);
        let many: Vec<_> = (0..100).map(|n| mount(&n.to_string(), "")).collect();
        assert_eq!(next(index, &sent(&many, &[])).mounts.len(), MAX_MOUNTS);
    }

    #[test]
    fn of_two_who_write_a_cache_mount_the_last_one_counts() {
        let (mine, theirs) = (sent(&[mount("one", "1")], &[]), sent(&[mount("one", "2")], &[]));
        let with = |sent: &Sent| Index::default().with(&map(&[])).with_mounts(sent);
        let before = BTreeMap::new();
        // Before the own write that must be done, after it what came later stays.
        assert!(!with(&theirs).covers_mounts(&mine, None));
        assert!(with(&theirs).covers_mounts(&mine, Some(&before)));
        // But not what was there before, or a write of somebody who did not know of it.
        assert!(!Index::default().covers_mounts(&mine, Some(&before)));
        assert!(!with(&theirs).covers_mounts(&mine, Some(&with(&theirs).mounts)));
    }

    #[test]
    fn an_index_has_a_bound() {
        let many: Vec<_> =
            (0..MAX_RECORDS + 7).map(|n| record(&n.to_string(), None, n as i64)).collect();
        let index = Index::default().with(&map(&many));
        assert_eq!(index.records().count(), MAX_RECORDS);
        assert!(index.records().all(|record| record.created >= 7));
        assert!(Index::parse(&index.to_bytes(&pool()).unwrap()).is_ok());
    }

    #[test]
    fn nonsense_is_refused() {
        type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
        let good = Index::default()
            .with(&map(&[record("a", None, 1)]))
            .with_mounts(&sent(&[mount("one", "1")], &[]));
        let text = |change: Change<'_>| {
            let records: Vec<_> = good.records().cloned().collect();
            let mounts = good.mounts.values().cloned().collect();
            let document = Document { version: VERSION, generation: 1, records, mounts };
            let mut value = serde_json::to_value(document).unwrap();
            change(&mut value);
            compressed(value.to_string().as_bytes())
        };
        assert!(Index::parse(&text(&|_| {})).is_ok());
        let problems: [(&str, Change<'_>); 10] = [
            ("newer rbuild", &|value| value["version"] = 2.into()),
            ("absurd size", &|value| value["records"][0]["tar_size"] = u64::MAX.into()),
            ("absurd size", &|value| value["records"][0]["blob"]["size"] = u64::MAX.into()),
            ("media type", &|value| value["records"][0]["blob"]["mediaType"] = "x".into()),
            ("outside of time", &|value| value["records"][0]["created"] = i64::MAX.into()),
            ("too long", &|value| value["records"][0]["name"] = "x".repeat(600).into()),
            ("digest", &|value| value["records"][0]["key"] = "../../x".into()),
            ("too long", &|value| value["mounts"][0]["id"] = "x".repeat(5000).into()),
            ("without a list", &|value| value["mounts"][0]["list"]["mediaType"] = "x".into()),
            ("cannot be", &|value| value["mounts"][0]["packs"][0]["size"] = u64::MAX.into()),
        ];
        for (problem, change) in problems {
            let error = Index::parse(&text(change)).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        // A small stream that would fill the memory.
        let bomb = compressed(&vec![b' '; MAX_DOCUMENT as usize + 1]);
        assert!(Index::parse(&bomb).unwrap_err().to_string().contains("too large"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Index::parse(&bytes);
            let _ = Index::parse(&compressed(&bytes));
        }

        #[test]
        fn no_json_panics(text in r#"\{"version":1,"generation":[0-9]{1,20},"records":\[(\{("(key|upon|blob|created)":("[a-z0-9:]{0,80}"|-?[0-9]{1,20}|null),?){0,4}\},?){0,3}\]\}"#) {
            let _ = Index::parse(&compressed(text.as_bytes()));
        }

        #[test]
        fn a_damaged_index_gives_an_error_or_a_bounded_index(
            position in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let index = Index::default().with(&map(&[record("a", None, 1)]));
            let mut bytes = index.to_bytes(&pool()).unwrap();
            let position = position.index(bytes.len());
            bytes[position] = byte;
            if let Ok(index) = Index::parse(&bytes) {
                prop_assert!(index.records().all(|record| record.problem().is_none()));
            }
        }

        #[test]
        fn no_order_of_writers_loses_a_record(order in Just((0..6).collect::<Vec<_>>()).prop_shuffle()) {
            let mut index = Index::default();
            for number in &order {
                index = index.with(&map(&[record(&format!("{number}"), None, *number)]));
            }
            prop_assert_eq!(index.records().count(), order.len());
        }
    }
}
