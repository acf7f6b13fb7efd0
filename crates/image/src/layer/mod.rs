//! Layers: trees in overlay's upper-directory form to tar streams, and back.

mod archive;
mod behind;
mod content;
mod listing;
mod merge;
pub mod pack;
mod peek;
mod place;
mod read;
pub mod unpack;
pub mod whiteout;

pub use archive::{is_archive, newest_file, unpack_archive};
pub use listing::{Listed, Listing, capability, list};
pub use merge::{Below, merge_layers};
pub use pack::{FileTimes, LAYER_FORMAT, PackOptions, Packed, Part, TreeForm, pack, pack_parts};
pub use read::LayerReader;
pub use unpack::{Devices, Ownership, UnpackOptions, Unpacked, unpack_layer};
