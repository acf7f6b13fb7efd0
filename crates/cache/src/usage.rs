//! How much room everything takes, found out by walking the store.

use std::collections::{HashMap, HashSet};

use crate::error::CacheError;
use crate::file;
use crate::gc::{Nameless, Reach};
use crate::lease::Protected;
use crate::measure::Measure;
use crate::rows::{Inventory, Row};
use crate::sizes;
use crate::store::Store;
use crate::volumes::is_cache;

/// Bytes on disk by class: blocks times 512, a file with several names counted once, in the first
/// class that has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blobs that images use.
    pub image_blobs: u64,
    /// Blobs that no image uses.
    pub other_blobs: u64,
    /// Snapshots that images use.
    pub image_snapshots: u64,
    /// Snapshots that only the cache, containers or running builds use.
    pub other_snapshots: u64,
    /// Cache mounts.
    pub caches: u64,
    /// The index with its log, and damaged ones that were set aside.
    pub index: u64,
    /// Full output of steps.
    pub logs: u64,
    /// Volumes that are no cache mounts.
    pub volumes: u64,
    /// Containers.
    pub containers: u64,
    /// Work in progress and what died processes left.
    pub temporary: u64,
    /// Directories, locks, and what describes the rest.
    pub other: u64,
    /// All of the store.
    pub total: u64,
    /// What the build cache holds: snapshots, records without one, blobs that no image uses, and
    /// cache mounts. Their sizes are what was found, each without files that others have too.
    pub rows: Vec<Row>,
}

impl Store {
    /// Measures the store by walking it. Meant for people: takes a second per million files.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn usage(&self) -> Result<Usage, CacheError> {
        let reach = Reach::find(self, &Protected::read(&self.locks())?, Nameless::Images)?;
        let inventory = Inventory::take(self)?;
        let mut rows = inventory.rows(&reach);
        let known: HashSet<_> = inventory.snapshots.iter().map(|it| it.id.as_str()).collect();
        let (root, mut disk, mut usage) = (self.root(), Measure::default(), Usage::default());
        // By the number of the object measured.
        let mut ids = Vec::new();
        let mut in_snapshots = 0;
        for name in file::names(&root.join("snapshots"))? {
            let path = root.join("snapshots").join(&name);
            if name
                .strip_suffix(".json")
                .is_some_and(|tree| file::exists(&path.with_file_name(tree)))
            {
                // Measured with the tree that it describes.
                continue;
            }
            let bytes = disk.add([&path, &path.with_extension("json")]);
            let of_image = name.parse().is_ok_and(|id| reach.image_snapshots.contains(&id));
            *usage.snapshots(of_image) += bytes;
            if known.contains(name.as_str()) {
                in_snapshots += bytes;
            }
            ids.push(name);
        }
        for digest in self.blobs().list()? {
            let bytes = disk.add([self.blobs().path(&digest)]);
            *usage.blobs(reach.image_blobs.contains(&digest)) += bytes;
            ids.push(digest.to_string());
        }
        for name in file::names(&root.join("volumes"))? {
            let bytes = disk.add([root.join("volumes").join(&name)]);
            *(if is_cache(&name) { &mut usage.caches } else { &mut usage.volumes }) += bytes;
            ids.push(name);
        }
        for name in file::names(root)? {
            let path = root.join(&name);
            *usage.class(&name) += match name.as_str() {
                "snapshots" | "volumes" => disk.add_alone(&path),
                "blobs" => disk.add_alone(&path) + disk.add_alone(&path.join("sha256")),
                _ => disk.add([path]),
            };
        }
        usage.other += disk.add_alone(root);
        usage.total = disk.bytes();
        let own: HashMap<String, u64> = ids.into_iter().zip(disk.own()).collect();
        for row in &mut rows {
            row.size = own.get(&row.id).copied().unwrap_or(row.size);
        }
        usage.rows = rows;
        if !self.is_read_only() {
            sizes::reconcile(self, in_snapshots)?;
        }
        Ok(usage)
    }

    /// Bytes of all snapshots.
    pub(crate) fn measure_snapshots(&self) -> Result<u64, CacheError> {
        let snapshots = self.snapshots();
        let known = snapshots.list()?;
        let paths = known.iter().map(|it| [snapshots.path(&it.id), snapshots.sidecar(&it.id)]);
        Ok(Measure::default().add(paths.flatten()))
    }

    /// Bytes that the store takes but for work in progress, as far as they are known without
    /// walking it; see [`Store::limit`].
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn used(&self) -> Result<u64, CacheError> {
        sizes::measure_volumes(self)?;
        sizes::used(self)
    }

    /// [`Usage::rows`] with sizes as they were recorded: nothing is walked.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn rows(&self) -> Result<Vec<Row>, CacheError> {
        let reach = Reach::find(self, &Protected::read(&self.locks())?, Nameless::Images)?;
        Ok(Inventory::take(self)?.rows(&reach))
    }
}

impl Usage {
    fn snapshots(&mut self, of_image: bool) -> &mut u64 {
        if of_image { &mut self.image_snapshots } else { &mut self.other_snapshots }
    }

    fn blobs(&mut self, of_image: bool) -> &mut u64 {
        if of_image { &mut self.image_blobs } else { &mut self.other_blobs }
    }

    /// The class of something in the store's directory.
    fn class(&mut self, name: &str) -> &mut u64 {
        match name {
            "logs" => &mut self.logs,
            "containers" => &mut self.containers,
            "tmp" => &mut self.temporary,
            name if name.starts_with("index.db") => &mut self.index,
            _ => &mut self.other,
        }
    }
}
