//! Packs and unpacks layers and assembles OCI configs, manifests, layouts and archives.
//!
//! Nothing here talks to a network or mounts anything. What comes from strangers (archives,
//! documents, compressed streams) goes through readers that never panic and hold no more memory
//! than [`limits`] says; paths from them go through `rbuild-rooted`.

#![forbid(unsafe_code)]

pub mod compress;
mod error;
pub mod layer;
pub mod limits;
pub mod tarball;

pub use error::ImageError;
