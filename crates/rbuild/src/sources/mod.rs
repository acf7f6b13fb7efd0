//! Where builds take things from: a file per kind of source.

pub(crate) mod context;
mod git;
mod http;
pub(crate) mod image;
mod layers;
pub(crate) mod remote;
