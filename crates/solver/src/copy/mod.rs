//! COPY and ADD: which files an instruction names, what they are, and writing them.
//!
//! The work is split in two. [`select`] only reads: it resolves patterns and links, applies the
//! ignore rules, and hashes, and its digest is what a step's key holds. [`apply`] writes the
//! selection into a tree; bytes of a context are hashed again on the way, because somebody may
//! edit files while they are built, and the result says when they were not those of the key.
//!
//! What an earlier copy by the same instruction has written just so is not written again: see
//! `reuse.rs`.
//!
//! Every path of a source or destination goes through [`rbuild_rooted::Root`]: a link or `..`
//! leads nowhere but inside the tree it is in. Files are opened as one name below a held
//! directory, and looked at again after they are opened.
//!
//! Both use the caller's thread pool, one task per directory or per thousand files, and look at
//! the cancel token between tasks and between large blocks.

mod apply;
mod chmod;
mod content;
mod digest;
mod divide;
mod error;
mod level;
mod listing;
mod missing;
mod pattern;
mod place;
mod preview;
mod reuse;
mod select;
mod tree;
mod walk;

pub use apply::{Applied, ArchiveOptions, Archives, Ownership, Target, apply};
pub use digest::{Input, InputKind};
pub use error::{Absence, CopyError, IgnoredBy};
pub use listing::Listing;
pub use preview::{Decided, Decisions, decisions, literal, preview, shown_by_mount};
pub use reuse::{Earlier, Left};
pub use select::{Selection, select};
pub use tree::{DigestCache, OwnerRule, SourceTree};
pub use walk::{Visible, list};
