//! What a prune takes: a pure decision over rows.
//!
//! Unit of removal is a snapshot with its records. It can go when nobody uses it and none that needs
//! it stays: no child, none that shows its files, no image. Of all that can go, what was used
//! longest ago goes first, and what it held may go after it. So a young child keeps its old parents,
//! and both go before anything younger than the child.

use std::collections::{BTreeSet, HashMap, HashSet};

use rbuild_types::Digest;

use crate::gc::Reach;
use crate::prune::PruneOptions;
use crate::rows::{Class, Inventory, Row, image_row};
use crate::snapshots::SnapshotId;

/// What was decided.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) rows: Vec<Row>,
    pub(crate) snapshots: Vec<SnapshotId>,
    pub(crate) records: Vec<Digest>,
    pub(crate) blobs: Vec<Digest>,
    /// Names of cache mounts.
    pub(crate) caches: Vec<String>,
    /// Manifests of images.
    pub(crate) images: Vec<Digest>,
}

/// Chooses victims: all that `options` take, or the oldest until `excess` bytes are gone.
pub(crate) fn decide(
    inventory: &Inventory,
    reach: &Reach,
    options: &PruneOptions,
    excess: Option<u64>,
) -> Plan {
    let mut rows = inventory.rows(reach);
    let mut needs: Vec<Vec<usize>> = Vec::new();
    let places: HashMap<String, usize> =
        rows.iter().enumerate().map(|(place, row)| (row.id.clone(), place)).collect();
    let places_of = |ids: &mut dyn Iterator<Item = String>| -> Vec<usize> {
        ids.filter_map(|id| places.get(&id).copied()).collect()
    };
    needs.extend(rows.iter().map(|row| places_of(&mut row.parents.iter().cloned())));
    let blob_times: HashMap<_, _> =
        inventory.blobs.iter().map(|(digest, _, changed)| (digest, *changed)).collect();
    for loose in &reach.loose {
        let manifest = &loose.image.manifest_digest;
        // An image was used last when it was made; its config may name any time.
        let made = blob_times.get(manifest).copied().unwrap_or(loose.image.created);
        rows.push(image_row(&loose.image, made));
        let snapshots = loose.snapshots.iter().map(ToString::to_string);
        let blobs = loose.blobs.iter().map(ToString::to_string);
        needs.push(places_of(&mut snapshots.chain(blobs)));
    }
    let first_image = rows.len() - reach.loose.len();
    let mut users = vec![0usize; rows.len()];
    for needed in needs.iter().flatten() {
        users[*needed] += 1;
    }
    let is_victim = |place: usize| {
        let row = &rows[place];
        let wanted = match row.class {
            Class::Snapshot | Class::Blob => true,
            Class::Record | Class::Image => options.all,
            Class::Cache => options.all || options.filter.names(row),
        };
        wanted && !row.in_use && options.filter.takes(row)
    };
    // The order of creation breaks ties, which a stopped clock makes of everything.
    let mut free: BTreeSet<(i64, usize)> = (0..rows.len())
        .filter(|place| users[*place] == 0 && is_victim(*place))
        .map(|place| (rows[place].last_used, place))
        .collect();
    let records_of = records_by_snapshot(inventory);
    let mut plan = Plan::default();
    let mut gone = 0u64;
    while excess.is_none_or(|excess| gone < excess)
        && let Some((_, place)) = free.pop_first()
    {
        let row = &rows[place];
        gone = gone.saturating_add(row.size);
        match row.class {
            Class::Record => plan.records.extend(row.id.parse::<Digest>()),
            Class::Blob => plan.blobs.extend(row.id.parse::<Digest>()),
            Class::Cache => plan.caches.push(row.id.clone()),
            Class::Image => {
                plan.images.push(reach.loose[place - first_image].image.manifest_digest)
            }
            Class::Snapshot => {
                plan.snapshots.extend(row.id.parse::<SnapshotId>());
                plan.records.extend(records_of.get(row.id.as_str()).into_iter().flatten());
            }
        }
        plan.rows.push(row.clone());
        for needed in &needs[place] {
            users[*needed] -= 1;
            if users[*needed] == 0 && is_victim(*needed) {
                free.insert((rows[*needed].last_used, *needed));
            }
        }
    }
    if options.all && excess.is_none() {
        forget_records(inventory, reach, options, &rows, &mut plan);
    }
    forget_broken(inventory, &mut plan);
    plan
}

fn records_by_snapshot(inventory: &Inventory) -> HashMap<&str, Vec<Digest>> {
    let mut records: HashMap<&str, Vec<Digest>> = HashMap::new();
    for record in &inventory.records {
        if let Some(snapshot) = &record.snapshot {
            records.entry(snapshot.as_str()).or_default().push(record.key);
        }
    }
    records
}

/// `all`: the records of snapshots that stay go too, except for running builds.
fn forget_records(
    inventory: &Inventory,
    reach: &Reach,
    options: &PruneOptions,
    rows: &[Row],
    plan: &mut Plan,
) {
    let taken: HashSet<&str> = rows
        .iter()
        .filter(|row| row.class == Class::Snapshot && options.filter.takes(row))
        .map(|row| row.id.as_str())
        .collect();
    let is_ours = |id: &SnapshotId| {
        taken.contains(id.as_str()) && reach.snapshots.contains(id) && !reach.leased.contains(id)
    };
    let records = inventory.records.iter();
    let ours = records.filter(|record| record.snapshot.as_ref().is_some_and(is_ours));
    plan.records.extend(ours.map(|record| record.key));
}

/// Records whose snapshot is gone lead nowhere.
fn forget_broken(inventory: &Inventory, plan: &mut Plan) {
    let there: HashSet<_> = inventory.snapshots.iter().map(|snapshot| &snapshot.id).collect();
    let broken = inventory
        .records
        .iter()
        .filter(|record| record.snapshot.as_ref().is_some_and(|id| !there.contains(id)));
    plan.records.extend(broken.map(|record| record.key));
}
