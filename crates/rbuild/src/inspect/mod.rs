//! Looking into images: what each layer does to the files.
//!
//! Nothing here makes a layer or an image. Layers are looked at as the trees that they are in the
//! store; one that is there as a compressed blob only is unpacked first, as for a container.

mod layers;
mod opened;
mod path_history;
mod walk;

pub use layers::{ImageLayers, InspectedLayer};
pub use path_history::{Fate, PathVersion};
