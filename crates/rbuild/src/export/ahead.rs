//! Layers that leave while later steps still run.
//!
//! The coordinator says which layers of the target are finished. One thread compresses them in the
//! codecs that outputs want; a second one sends them to the first repository of each registry that
//! is pushed to. Compression stands back behind the steps until they are done. What both made is found by the
//! export, which does nothing twice and makes the same bytes by itself where they did nothing. They
//! stop when the build is cancelled or fails; an error of theirs is one of the build, after its
//! steps.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rbuild_image::manifest::Descriptor;
use rbuild_registry::{Registry, Upload};
use rbuild_solver::{FinishedLayers, Layer};
use rbuild_types::{CancelToken, Ctx, Reference};

use crate::export::layers::{Leaving, own};
use crate::export::package::skip;
use crate::export::push::{self, PARALLEL_BLOBS};
use crate::export::{names, needs_bytes};
use crate::{BuildError, BuildRequest, Encoding, Engine, LayerForm, Output, Packaging};

/// How often a wait for the threads looks at the caller's cancel token.
const CANCEL_TICK: Duration = Duration::from_millis(50);

/// A form that an output wants, and where the layers in it are sent.
struct Wanted {
    form: LayerForm,
    registry: Option<Registry>,
    /// The first repository of each registry; others take the layers from there.
    repositories: Vec<Reference>,
}

/// A layer to be sent.
struct Ready<'w> {
    wanted: &'w Wanted,
    layer: Leaving,
}

/// Where the coordinator says what is finished.
struct Finished(Sender<Layer>);

impl FinishedLayers for Finished {
    fn finished(&self, layer: &Layer) {
        // Nobody listens where an earlier layer could not leave.
        let _ = self.0.send(layer.clone());
    }
}

/// Solves, and lets finished layers leave meanwhile where an output of the request wants that.
pub(crate) fn ahead<T>(
    engine: &Engine,
    request: &BuildRequest,
    tags: &[Reference],
    ctx: Ctx<'_>,
    solve: impl FnOnce(Option<&dyn FinishedLayers>) -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    let wanted = wanted(engine, request, tags)?;
    if wanted.is_empty() {
        return solve(None);
    }
    let pool = engine.quiet_pool()?;
    pool.stand_back();
    let stop = CancelToken::default();
    let inner = Ctx::new(ctx.progress, &stop);
    let (finished, layers) = channel();
    let (compressed, ready) = channel();
    let (done, outcomes) = channel();
    let ready = Mutex::new(ready);
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_BLOBS {
            let (done, ready) = (done.clone(), &ready);
            scope.spawn(move || done.send(send(engine, ready, inner)));
        }
        let (cancel, wanted) = (inner.cancel, &wanted);
        scope.spawn(move || {
            done.send(compress(engine, pool.pool(), wanted, &layers, &compressed, cancel))
        });
        let finished = Finished(finished);
        let solved = solve(Some(&finished));
        drop(finished);
        pool.hurry();
        if solved.is_err() {
            stop.cancel();
        }
        let mut left = Ok(());
        loop {
            match outcomes.recv_timeout(CANCEL_TICK) {
                Ok(Ok(())) => {}
                Ok(error) => {
                    stop.cancel();
                    // Those that follow are of its making.
                    left = left.and(error);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if ctx.cancel.is_cancelled() => stop.cancel(),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        let solved = solved?;
        left.map(|()| solved)
    })
}

/// What outputs want of layers before all of them are there.
fn wanted(
    engine: &Engine,
    request: &BuildRequest,
    tags: &[Reference],
) -> Result<Vec<Wanted>, BuildError> {
    let mut all = Vec::new();
    if request.packaging != Packaging::Each {
        // What steps make is not what leaves.
        return Ok(all);
    }
    for export in &request.outputs {
        let form = export.layers;
        match &export.output {
            output if !needs_bytes(output) => {}
            Output::Registry { insecure, .. } => {
                let names = names(engine, export, tags)?;
                let registry = Some(push::registry(engine, &names, *insecure)?);
                let mut repositories: Vec<Reference> = Vec::new();
                for tag in &names {
                    if repositories.iter().all(|known| known.host() != tag.host()) {
                        repositories.push(tag.clone());
                    }
                }
                all.push(Wanted { form, registry, repositories });
            }
            // It is packed while it is written.
            _ if form.encoding == Encoding::Uncompressed => {}
            _ => all.push(Wanted { form, registry: None, repositories: Vec::new() }),
        }
    }
    Ok(all)
}

fn compress<'w>(
    engine: &Engine,
    pool: &rayon::ThreadPool,
    wanted: &'w [Wanted],
    layers: &Receiver<Layer>,
    compressed: &Sender<Ready<'w>>,
    cancel: &CancelToken,
) -> Result<(), BuildError> {
    for layer in layers {
        for wanted in wanted {
            cancel.check()?;
            // Not on the pool: who holds a layer's lock there could be made to wait for itself.
            let layer = own(engine, pool, &layer, &wanted.form, cancel)?;
            if wanted.registry.is_some() && compressed.send(Ready { wanted, layer }).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn send(
    engine: &Engine,
    ready: &Mutex<Receiver<Ready<'_>>>,
    ctx: Ctx<'_>,
) -> Result<(), BuildError> {
    loop {
        let next = ready.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Ready { wanted, layer }) = next else { return Ok(()) };
        for repository in &wanted.repositories {
            let open = |offset| skip(layer.open(engine, ctx.cancel)?, offset);
            let Descriptor { digest, size, .. } = layer.descriptor;
            let upload = Upload { digest, size, mount_from: None, open: &open };
            let failed = |error| BuildError::of_push(repository.familiar_name(), error);
            if let Some(registry) = &wanted.registry {
                registry.push_blob(repository, &upload, ctx).map_err(failed)?;
            }
        }
    }
}
