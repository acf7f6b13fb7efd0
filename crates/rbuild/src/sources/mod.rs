//! Where builds take things from: a file per kind of source.

pub(crate) mod context;
pub(crate) mod image;
mod layers;
