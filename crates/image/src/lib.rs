//! Packs and unpacks layers and assembles OCI configs, manifests, layouts and archives.
//!
//! Nothing here talks to a network or mounts anything. What comes from strangers (archives,
//! documents, compressed streams) goes through readers that never panic and hold no more memory
//! than [`limits`] says; paths from them go through `rbuild-rooted`.
//!
//! * [`layer`]: trees to layers and back; [`tarball`] is the archive format below it.
//! * [`compress`]: gzip and zstd in parallel, readers for what images and `ADD` need.
//! * [`estargz`]: layers whose files can be fetched one by one.
//! * [`manifest`], [`index`], [`config`], [`media_type`]: the documents.
//! * [`blob`], [`layout`] and the archives: images as files.
//! * [`rootfs`]: a finished tree as plain files.

#![forbid(unsafe_code)]

mod archive_reader;
pub mod blob;
mod blob_dir;
pub mod compress;
pub mod config;
mod docker_archive;
mod error;
pub mod estargz;
pub mod index;
mod json;
pub mod layer;
pub mod layout;
pub mod limits;
pub mod manifest;
pub mod media_type;
mod oci_archive;
pub mod rootfs;
pub mod tarball;

pub use archive_reader::ImageArchive;
pub use blob_dir::BlobDir;
pub use docker_archive::{SavedImage, write_docker_archive};
pub use error::ImageError;
pub use oci_archive::write_oci_archive;
