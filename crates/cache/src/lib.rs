//! Keeps blobs by digest and step records by cache key on disk, with locks and garbage collection.
//!
//! # On disk
//!
//! ```text
//! <root>/
//!   oci-layout index.json    an OCI image layout, so that other tools can read what is tagged
//!   blobs/sha256/<hex>       immutable bytes, named by their digest
//!   snapshots/<id>/          immutable trees `fs`, and of some a `listing` of what it was made of, or
//!                            the `log` of a failure;
//!                            <id>.json beside one is its sidecar (see below)
//!   index.db                 SQLite: records, snapshots, images, tags, stat cache, builds (index.rs)
//!   volumes/<name>/          volumes and cache mounts; .<name> beside one (volumes.rs)
//!   containers/              owned by another crate; containers/<id>/pins is read by gc
//!   logs/                    full output of steps
//!   events, events.1         what happened; the containers' journal
//!   tmp/<owner>/             work in progress of one process, which holds a lock on the directory
//!   locks/                   gc.lock, prune.lock, images.lock, lease-<random>, step-<hex>
//! ```
//!
//! Objects appear whole or not at all: they are made below `tmp/<owner>/` and renamed. What a dead
//! process left in `tmp/` and `locks/` is swept by the next [`Store::open`], in any process.
//!
//! # What survives what
//!
//! * `kill -9`: everything that a call has returned. Files are renamed, rows are committed.
//! * A power cut: a blob that has its name is whole, because its bytes are synced before the
//!   rename. Snapshots and records are written lazily and carry the id of the boot in which they
//!   were written; [`Store::sync`] makes all of them durable with one `syncfs` and marks them.
//!   Whatever is unmarked and from another boot is ignored and removed. So a power cut costs the
//!   work since the last sync, never truth. [`Tags::set`] syncs first, so a tagged image is
//!   complete and survives.
//! * Loss or damage of `index.db`: the cache of steps is lost, images are not. Tags are read from
//!   `index.json`, synced snapshots from their sidecars.
//!
//! # Many processes
//!
//! Any number of processes may have one store open. A build holds a [`Lease`] (lease.rs has the
//! rule that makes prune safe) and a [`StepLock`] around each step that it computes.
//!
//! The library reads no environment variables and prints nothing.

#![forbid(unsafe_code)]

mod blobs;
mod body;
mod builds;
mod error;
mod file;
mod fsck;
mod gc;
mod image_json;
mod images;
mod index;
mod lease;
mod limits;
mod lock;
mod logs;
mod measure;
mod origins;
mod plan;
mod prune;
mod records;
mod recovery;
mod remove;
mod rows;
mod scratch;
mod secrets;
mod sizes;
mod snapshots;
mod sources;
mod stat_cache;
mod store;
mod usage;
mod volumes;

pub use blobs::{BlobWriter, Blobs};
pub use builds::{BuildRecord, Builds, BuiltStep, FailedStep, Outcome};
pub use error::CacheError;
pub use fsck::{Damage, Fsck, Loss};
pub use images::{ImageRecord, Tags};
pub use lease::Lease;
pub use limits::{Space, SpaceLimits};
pub use lock::StepLock;
pub use origins::Origin;
pub use prune::{PruneOptions, Pruned};
pub use records::{Records, StepRecord};
pub use rows::{Class, Row, RowFilter};
pub use scratch::Scratch;
pub use snapshots::{NewSnapshot, Snapshot, SnapshotId, SnapshotIdError, SnapshotMeta, Snapshots};
pub use stat_cache::{FileStamp, StatCache};
pub use store::Store;
pub use usage::Usage;
pub use volumes::{HeldVolume, Hold, NamedInfo, Volume, VolumeInfo, Volumes};
