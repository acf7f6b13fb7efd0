//! What a build makes besides the image in the store.

mod ahead;
pub(crate) mod archive;
mod attached;
pub(crate) mod estargz;
pub(crate) mod layers;
pub(crate) mod package;
pub(crate) mod push;
pub(crate) mod stored;

use std::io::Write;
use std::path::{Path, PathBuf};

use rbuild_cache::Scratch;
use rbuild_image::rootfs::{Others, RootfsPart, export_dir, export_tar};
use rbuild_plan::Plan;
use rbuild_rooted::Root;
use rbuild_types::{Ctx, Event, Reference};

use crate::assemble::{Assembled, Product};
pub(crate) use crate::export::ahead::ahead;
use crate::export::archive::Parcel;
use crate::export::package::Package;
use crate::sources::image::ImageSource;
use crate::{
    BuildError, BuildRequest, Destination, Engine, Export, ExportedImage, Family, Output,
    annotation, attest,
};

/// Whether an output is made of files, not of layers.
pub(crate) fn needs_root(output: &Output) -> bool {
    matches!(output, Output::Tar(_) | Output::Directory(_) | Output::ExactDirectory(_))
}

/// Whether an output is made of layers.
pub(crate) fn needs_bytes(output: &Output) -> bool {
    !needs_root(output) && !matches!(output, Output::CacheOnly)
}

/// Refuses before the first step what could not be written after the last.
pub(crate) fn check(request: &BuildRequest, plan: &Plan, ctx: Ctx<'_>) -> Result<(), BuildError> {
    let is_index = plan.is_index;
    let is_docker = |wanted: &Export| matches!(wanted.output, Output::DockerArchive(_));
    if is_index && request.outputs.iter().any(is_docker) {
        let message = "the docker exporter does not support manifest lists: an archive for \
                       `docker load` holds the image of one platform (build that one alone, or \
                       take type=oci)";
        return Err(BuildError::Request { message: message.to_owned() });
    }
    estargz::check(request)?;
    let own = request.outputs.iter().flat_map(|wanted| &wanted.annotations);
    let is_attested = request.attestations.are_attached();
    let platforms: Vec<_> = plan.targets.iter().map(|target| target.platform.clone()).collect();
    let all = request.annotations.iter().chain(own);
    annotation::check(all, &platforms, is_index || is_attested)?;
    if is_attested { check_attestations(request, ctx) } else { Ok(()) }
}

/// The same, for attestations.
fn check_attestations(request: &BuildRequest, ctx: Ctx<'_>) -> Result<(), BuildError> {
    if request.outputs.iter().any(|wanted| wanted.layers.family == Family::Docker) {
        let message = "attestations are attached to images with the media types of OCI: they do \
                       not go with oci-mediatypes=false";
        return Err(BuildError::Request { message: message.to_owned() });
    }
    let provenance = request.attestations.provenance.as_ref();
    let filename = provenance.map_or("", |provenance| &provenance.filename);
    if filename.contains('/') || matches!(filename, "." | "..") {
        let message = format!("the file of the provenance is a name, not a path: {filename}");
        return Err(BuildError::Request { message });
    }
    let is_docker = |wanted: &Export| matches!(wanted.output, Output::DockerArchive(_));
    if request.outputs.iter().any(is_docker) {
        let message = "an archive for `docker load` has no place for attestations: the one that is \
                       written is without them";
        ctx.report(Event::Notice { message: message.to_owned() });
    }
    Ok(())
}

/// What the image is called in an output.
pub(crate) fn names(
    engine: &Engine,
    wanted: &Export,
    tags: &[Reference],
) -> Result<Vec<Reference>, BuildError> {
    match wanted.names.as_slice() {
        [] => Ok(tags.to_vec()),
        names => names.iter().map(|name| engine.tag(name)).collect(),
    }
}

/// Writes one output; what an image is that left.
pub(crate) fn write(
    engine: &Engine,
    wanted: &Export,
    request: &BuildRequest,
    product: &Product,
    tags: &[Reference],
    images: &ImageSource<'_>,
    ctx: Ctx<'_>,
) -> Result<Option<ExportedImage>, BuildError> {
    let split = request.platform_split.unwrap_or(product.is_index);
    match &wanted.output {
        Output::Tar(destination) => {
            let parts = Parts::of(engine, product, split, ctx)?;
            to(destination, &mut |sink| {
                export_tar(&parts.all, sink, ctx.cancel)?;
                Ok(())
            })?;
            return Ok(None);
        }
        Output::CacheOnly => return Ok(None),
        Output::Directory(path) | Output::ExactDirectory(path) => {
            let others = match wanted.output {
                Output::ExactDirectory(_) => Others::Removed,
                _ => Others::Kept,
            };
            export_dir(&Parts::of(engine, product, split, ctx)?.all, path, others, ctx.cancel)?;
            return Ok(None);
        }
        _ => {}
    }
    let names = names(engine, wanted, tags)?;
    let package = Package::new(engine, product, wanted, &names, images, ctx)?;
    let parcel = Parcel(vec![(&package, names.clone())]);
    match &wanted.output {
        Output::OciArchive(destination) => parcel.to_oci(destination, ctx)?,
        Output::OciLayout(path) => parcel.to_layout(path, ctx)?,
        Output::DockerArchive(destination) => parcel.to_docker(destination, ctx)?,
        Output::Registry { insecure, by_digest } => {
            let to = push::To { names: &names, by_digest: *by_digest, insecure: *insecure };
            push::push(&package, &to, None, ctx)?;
        }
        _ => {}
    }
    Ok(Some(package.exported()))
}

/// The root filesystems of images, as they are written together.
struct Parts {
    all: Vec<RootfsPart>,
    /// Where files lie that are in no image.
    _beside: Vec<Scratch>,
}

impl Parts {
    /// Each in a directory of its platform's name if they are `split`.
    fn of(
        engine: &Engine,
        product: &Product,
        split: bool,
        ctx: Ctx<'_>,
    ) -> Result<Self, BuildError> {
        let (mut all, mut beside) = (Vec::new(), Vec::new());
        for image in &product.images {
            let name = image.platform.to_string();
            let word = name.replace('/', "_");
            let several = product.images.len() > 1;
            let suffix = (several && !split).then_some(word.as_str());
            let mut root = merged(engine, image)?;
            if let Some(files) = attest::write_files(engine, image, &root, suffix, ctx.cancel)? {
                root = with_files(engine, image, &[files.path().to_owned()])?;
                beside.push(files);
            }
            let (directory, times) = (split.then_some(word), image.times());
            all.push(RootfsPart { name, directory, merged: root, times });
        }
        Ok(Self { all, _beside: beside })
    }
}

/// The root filesystem of an image.
pub(crate) fn merged(engine: &Engine, image: &Assembled) -> Result<Root, BuildError> {
    with_files(engine, image, &[])
}

/// The root filesystem of an image with further files upon it.
fn with_files(engine: &Engine, image: &Assembled, files: &[PathBuf]) -> Result<Root, BuildError> {
    let empty = engine.empty_directory()?;
    let snapshots = engine.store.snapshots();
    let mut layers = vec![empty];
    layers.extend(image.root.iter().map(|id| snapshots.path(id).join("fs")));
    layers.extend_from_slice(files);
    Ok(Root::from_fd(rbuild_snapshot::view(&layers)?))
}

/// Writes to a file that appears whole or not at all, or to standard output.
pub(crate) fn to(
    destination: &Destination,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    match destination {
        Destination::Stdout => {
            let mut sink = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
            write(&mut sink)?;
            let failed =
                |source| BuildError::Io { what: "write to standard output".to_owned(), source };
            sink.flush().map_err(failed)
        }
        Destination::File(path) => to_file(path, write),
    }
}

fn to_file(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let failed = |source| BuildError::Io { what: format!("write {}", path.display()), source };
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    if name.is_empty() {
        return Err(failed(std::io::Error::other("it names no file")));
    }
    // A device or a pipe is written to as it is.
    if fs_err::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let mut sink = fs_err::OpenOptions::new().write(true).open(path).map_err(failed)?;
        return write(&mut sink);
    }
    name.push(format!(".rbuild-{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let file = fs_err::File::create(&temporary).map_err(failed)?;
    let mut sink = std::io::BufWriter::with_capacity(1 << 18, file);
    let written = write(&mut sink)
        .and_then(|()| sink.flush().map_err(failed))
        .and_then(|()| fs_err::rename(&temporary, path).map_err(failed));
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs_err::remove_file(&temporary);
    }
    written
}
