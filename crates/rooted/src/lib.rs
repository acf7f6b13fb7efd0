//! Opens, makes and removes paths that strangers wrote, always below a held directory.
//!
//! A Dockerfile, an archive, an image and a build context may all be hostile. A path from one of
//! them reaches the kernel only through a [`Root`], in one of two forms: by `openat2` with
//! `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS` on the held descriptor, or as a single name in an
//! `*at` call that does not follow links. No joined path string is ever used.
//!
//! What that means for every method:
//!
//! * A leading `/` is the root; `..` stops at the root; NUL is refused.
//! * Links among the *directories* of a path are followed, inside the root: `/etc` in a link's
//!   target is the root's `etc`.
//! * The *last* name is never followed unless the method says so. `a/`, `a/.` and `a` name the
//!   same thing.
//! * Files are made with `O_EXCL | O_NOFOLLOW` after the old name is unlinked; a directory in the
//!   way is an error, and so is a mount point, but that a mounted file is written where it is.
//!
//! Modes are given exactly, whatever the process' umask. A path of more than 4095 bytes is refused
//! by the kernel; open a directory on the way and go on from there.

#![deny(unsafe_code)]

mod attributes;
mod create;
mod error;
mod metadata;
mod remove;
mod resolve;
mod root;
mod sys;

pub use error::RootedError;
pub use metadata::{DirEntry, FileKind, Metadata, Time};
pub use resolve::{CreatedDirs, NewDirs, Resolved};
pub use root::{Follow, Root, openat2};
/// The kernel's error numbers, as [`RootedError::errno`] gives them.
pub use rustix::io::Errno;
pub use sys::begin_write_back;
