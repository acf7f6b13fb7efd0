//! Where builds take things from: a file per kind of source.

mod archive;
pub(crate) mod context;
pub(crate) mod dockerfile;
pub(crate) mod epoch;
pub(crate) mod git;
mod http;
pub(crate) mod ignore_file;
pub(crate) mod image;
pub(crate) mod layers;
pub(crate) mod layout;
pub(crate) mod named;
pub(crate) mod remote;
