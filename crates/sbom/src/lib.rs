//! Finds the packages in a root filesystem and lists them as an SPDX document.
//!
//! Nothing of the image is executed, and nothing outside of it is asked: [`scan`] opens files below
//! a held root only, and [`document()`] is a pure function of what was found. Databases of dpkg, apk
//! and rpm, what Python and npm install, the module lists in Go programs, and lock files of ten
//! kinds are known. What looks like a list of packages and cannot be read becomes a note in the
//! document: a list that says nothing of a gap would be worse than none.
//!
//! The image may be hostile. Each reader takes bytes and gives packages one by one, until it is told
//! to stop; what they may cost is in [`limits`].

#![forbid(unsafe_code)]

mod alpine;
mod bytes_at;
mod databases;
mod debian;
mod distro;
mod found;
mod go;
mod java_script;
mod licence;
pub mod limits;
mod lists;
mod package;
mod php;
mod python;
mod rpm;
mod ruby;
mod rust;
mod spdx;
mod walk;

pub use distro::Distro;
pub use found::Found;
pub use package::{Kind, Package, Purl, Take};
pub use spdx::{Subject, document};
pub use walk::scan;

/// The readers of the databases and lists, for tests that give them anything.
#[doc(hidden)]
pub mod readers {
    pub use crate::alpine::installed as apk;
    pub use crate::bytes_at::BytesAt;
    pub use crate::debian::{copyright, status as dpkg};
    pub use crate::go::{build_info, go_mod};
    pub use crate::java_script::{package_json, package_lock, pnpm_lock, yarn_lock};
    pub use crate::php::composer;
    pub use crate::python::{metadata, pipfile_lock};
    pub use crate::rpm::{header as rpm_header, packages as rpm};
    pub use crate::ruby::gemfile_lock;
    pub use crate::rust::toml_lock;
}
