//! Rows, names and descriptions.

use std::collections::HashSet;

use rbuild_types::Digest;

use super::{Damage, Fsck, Loss, Object, image_name};
use crate::error::CacheError;
use crate::gc::{Holding, parsed};
use crate::image_json::chain_ids;
use crate::lease::Protected;
use crate::records::{self, StepRecord};
use crate::recovery::read_json;
use crate::snapshots::{self, Snapshot};
use crate::{body, file};

impl Fsck<'_> {
    /// All of it. The caller holds the exclusive gc lock.
    pub(super) fn look(&self) -> Result<Vec<Damage>, CacheError> {
        let mut damage = Vec::new();
        self.snapshot_rows(&mut damage)?;
        self.record_rows(&mut damage)?;
        for holding in &self.holdings {
            self.image(holding, &mut damage);
        }
        Ok(damage)
    }

    fn snapshot_rows(&self, damage: &mut Vec<Damage>) -> Result<(), CacheError> {
        let store = self.store;
        let rows: Vec<(i64, String, bool, Option<Snapshot>)> = store.index().read(|index| {
            let sql = "SELECT body, seq, id, synced FROM snapshots WHERE synced = 1 OR boot = ?1";
            let row = |row: &rusqlite::Row<'_>| {
                Ok((row.get(1)?, row.get(2)?, row.get(3)?, snapshots::decode(row)?))
            };
            index.prepare_cached(sql)?.query_map([store.boot()], row)?.collect()
        })?;
        let protected = Protected::read(&store.locks())?;
        let there: HashSet<&str> = rows.iter().map(|(_, id, ..)| id.as_str()).collect();
        for (seq, id, synced, snapshot) in &rows {
            let Some(snapshot) = snapshot.as_ref().filter(|it| it.id.as_str() == id) else {
                let object = Object::SnapshotRow(*seq, id.clone());
                damage.push(self.found(object, "its row is damaged"));
                continue;
            };
            let mut wrong = |problem: String| {
                damage.push(self.found(Object::Snapshot(snapshot.id.clone()), problem));
            };
            if !file::exists(&store.snapshots().path(&snapshot.id)) {
                wrong("its tree is gone".to_owned());
            }
            for needed in snapshot.meta.needs().filter(|id| !there.contains(id.as_str())) {
                wrong(format!("snapshot {needed}, which it needs, is gone"));
            }
            if !*synced {
                continue;
            }
            let beside = Object::Sidecar(snapshot.id.clone());
            let described = read_json(&store.snapshots().sidecar(&snapshot.id), None);
            match described.and_then(|it| body::decode::<Snapshot>(&it)) {
                Some(described) if described == *snapshot => {}
                // Two processes wrote at once: one of them had not heard of the layer's digest.
                Some(_) => damage.push(Damage {
                    loss: Loss::Leftover,
                    ..self.found(beside, "its description beside it is an old one")
                }),
                None => damage.push(self.found(beside, "its description beside it is damaged")),
            }
        }
        for name in file::names(&store.root().join("snapshots"))? {
            let id = name.strip_suffix(".json").unwrap_or(&name);
            let leased = id.parse().is_ok_and(|id| protected.snapshots.contains(&id));
            if !there.contains(id) && !leased {
                damage.push(Damage {
                    subject: format!("snapshots/{name}"),
                    ..self.found(Object::Orphan, "no row knows it")
                });
            }
        }
        Ok(())
    }

    fn record_rows(&self, damage: &mut Vec<Damage>) -> Result<(), CacheError> {
        let store = self.store;
        let rows: Vec<(i64, Option<StepRecord>)> = store.index().read(|index| {
            let sql = "SELECT body, last_used, seq FROM records WHERE synced = 1 OR boot = ?1";
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(2)?, records::decode(row)?));
            index.prepare_cached(sql)?.query_map([store.boot()], row)?.collect()
        })?;
        let there: HashSet<_> = self.snapshots.iter().map(|snapshot| &snapshot.id).collect();
        let mut keys = HashSet::new();
        for (seq, record) in rows {
            let Some(record) = record else {
                damage.push(self.found(Object::RecordRow(seq), "its row is damaged"));
                continue;
            };
            keys.insert(record.key);
            if record.snapshot.is_some_and(|id| !there.contains(&id)) {
                damage.push(self.found(Object::Record(record.key), "it leads to no tree"));
            }
        }
        let aliases: Vec<(Digest, Digest)> = store.index().read(|index| {
            let row = |row: &rusqlite::Row<'_>| {
                Ok((Digest::from_bytes(row.get(0)?), Digest::from_bytes(row.get(1)?)))
            };
            index.prepare("SELECT fast, key FROM aliases")?.query_map([], row)?.collect()
        })?;
        let leads = |key: &Digest| keys.contains(key) || file::exists(&store.blobs().path(key));
        for (fast, _) in aliases.iter().filter(|(_, key)| !leads(key)) {
            damage.push(self.found(Object::Alias(*fast), "it leads nowhere"));
        }
        Ok(())
    }

    /// Whether all that an image needs is there, whatever is in it.
    fn image(&self, holding: &Holding, damage: &mut Vec<Damage>) {
        let chains: HashSet<_> =
            self.snapshots.iter().filter_map(|snapshot| snapshot.meta.chain_id).collect();
        let name = image_name(holding);
        let mut wrong = |problem: String| {
            let (subject, images) = (format!("image {name}"), vec![name.clone()]);
            let loss = Loss::Image;
            damage.push(Damage { subject, problem, loss, images, object: Object::Image });
        };
        let Some(manifest) = parsed(self.store, &holding.image.manifest_digest) else {
            return wrong("its manifest is damaged or gone".to_owned());
        };
        let mut manifests = vec![manifest];
        // Of a pulled index only what was asked for is here.
        let children: Vec<_> = std::mem::take(&mut manifests[0].manifests);
        manifests.extend(children.iter().filter_map(|child| parsed(self.store, &child.digest)));
        for manifest in &manifests {
            let Some(config) = &manifest.config else { continue };
            let path = self.store.blobs().path(&config.digest);
            let Some(json) = read_json(&path, Some(&config.digest)) else {
                wrong("its config is damaged or gone".to_owned());
                continue;
            };
            for (chain, layer) in chain_ids(&json).iter().zip(&manifest.layers) {
                let blob = self.store.blobs().path(&layer.digest);
                if !chains.contains(chain) && !file::exists(&blob) {
                    wrong(format!("layer {} is gone", layer.digest.short()));
                }
            }
        }
    }
}
