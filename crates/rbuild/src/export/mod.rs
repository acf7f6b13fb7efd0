//! What a build makes besides the image in the store.

mod archive;
mod layers;

use std::io::Write;
use std::path::Path;

use rbuild_image::rootfs::{export_dir, export_tar};
use rbuild_rooted::Root;
use rbuild_solver::Solution;
use rbuild_types::{Ctx, Reference};

use crate::assemble::Assembled;
use crate::sources::image::ImageSource;
use crate::{BuildError, Destination, Engine, Output};

/// Whether an output is made of files, not of layers.
pub(crate) fn needs_root(output: &Output) -> bool {
    matches!(output, Output::Tar(_) | Output::Directory(_))
}

/// Writes one output.
pub(crate) fn write(
    engine: &Engine,
    output: &Output,
    image: &Assembled,
    solution: &Solution,
    tags: &[Reference],
    images: &ImageSource<'_>,
    ctx: Ctx<'_>,
) -> Result<(), BuildError> {
    match output {
        Output::OciArchive(_) | Output::OciLayout(_) | Output::DockerArchive(_) => {
            archive::write(engine, output, image, tags, images, ctx)
        }
        Output::Tar(destination) => {
            let merged = merged(engine, solution)?;
            to(destination, &mut |sink| {
                export_tar(&merged, image.times(), sink, ctx.cancel)?;
                Ok(())
            })
        }
        Output::Directory(path) => {
            export_dir(&merged(engine, solution)?, path, image.times(), ctx.cancel)?;
            Ok(())
        }
    }
}

/// The target's root filesystem.
fn merged(engine: &Engine, solution: &Solution) -> Result<Root, BuildError> {
    let empty = engine.empty_directory()?;
    let snapshots = engine.store.snapshots();
    let mut layers = vec![empty];
    layers.extend(solution.root.iter().map(|id| snapshots.path(id).join("fs")));
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
