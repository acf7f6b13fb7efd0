//! Looking into images: what each layer does to the files, and in what two images differ.
//!
//! Nothing here makes a layer or an image, nor gives one a name. Layers are looked at as the trees that they are in the
//! store; one that is there as a compressed blob only is unpacked first, as for a container.

mod compare;
mod diff;
mod documents;
mod files;
mod layers;
mod opened;
mod path_history;
mod walk;

pub use compare::{Aspect, ContentDifference, FileDifference, FileFacts};
pub use diff::{ComparedImage, ImageDifference, LayerDifference, LayerName};
pub use documents::FieldDifference;
pub use layers::{ImageLayers, InspectedLayer};
pub use path_history::{Fate, PathVersion};

pub(crate) use compare::compare;
pub(crate) use diff::{config_differences, files as differing_files, layer_name};
pub(crate) use opened::OpenedImage;
