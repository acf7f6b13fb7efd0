//! Mounts stacks of layer trees as one root filesystem, without a mount point.
//!
//! A snapshot is a directory that holds what one step changed, in the form of an overlay upper
//! directory: a deleted name is a character device 0:0, a directory that hides what is below it
//! has the xattr `trusted.overlay.opaque`. A root filesystem is a list of such directories.
//!
//! **Nothing is ever mounted in the host's mount namespace.** [`view`] and [`Active::mount`]
//! return the descriptor of a *detached* mount (fsmount(2)): files are reached through it, a
//! sandbox may attach it in a namespace of its own, and the kernel takes it away with the last
//! descriptor, however the process ends.

#![forbid(unsafe_code)]

mod error;
mod overlay;

pub use error::SnapshotError;
pub use overlay::{Active, MAX_LAYERS, bind, view};
