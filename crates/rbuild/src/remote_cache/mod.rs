//! Caches elsewhere: `--cache-from` and `--cache-to`.
//!
//! A cache is an [`index`] of steps and the layers that it names; where both are kept is the
//! business of `cache_store`. [`import`] answers the scheduler's questions and brings layers that
//! somebody must see; [`export`] sends what this build made while it still runs; [`mounts`] are the cache
//! mounts that go with it.

mod document;
mod export;
mod import;
pub(crate) mod index;
pub(crate) mod inline;
mod mounts;
mod request;

use std::collections::BTreeSet;

use rbuild_solver::Imports;
use rbuild_types::{CacheTraffic, CancelToken, Ctx};

pub(crate) use self::export::Exporting;
use self::export::with_exports;
use self::import::CacheImports;
pub(crate) use self::mounts::cache_mount_ids;
pub use self::request::{
    CACHE_TIMEOUT, CacheExport, CacheImport, CacheLocation, CacheMode, CacheMounts, GhaLocation,
    S3Location,
};
use crate::{BuildError, BuildRequest, Engine};

/// The caches of one build.
#[derive(Clone, Copy)]
pub(crate) struct Caches<'a> {
    pub(crate) imports: Option<&'a dyn Imports>,
    pub(crate) exports: Option<&'a Exporting<'a>>,
}

/// Runs a build with the caches that its request names; `cache_mounts` are the ids that its steps name.
pub(crate) fn with_caches<R>(
    engine: &Engine,
    request: &BuildRequest,
    cache_mounts: &BTreeSet<String>,
    ctx: Ctx<'_>,
    build: impl FnOnce(Caches<'_>) -> Result<R, BuildError>,
) -> Result<(R, CacheTraffic), BuildError> {
    let mut sent = CacheTraffic::default();
    let to = &request.cache_to;
    if request.cache_from.is_empty() {
        let build = |exports: Option<&Exporting<'_>>| build(Caches { imports: None, exports });
        let built = with_exports(engine, None, to, cache_mounts, ctx, &mut sent, build)?;
        return Ok((built, sent));
    }
    let imports = CacheImports::new(engine, &request.cache_from, ctx.progress)?;
    // A build that finds everything in the store does not wait for indexes.
    let stop = CancelToken::default();
    let built = std::thread::scope(|scope| {
        imports.start(scope, Ctx::new(ctx.progress, &stop));
        let build =
            |exports: Option<&Exporting<'_>>| build(Caches { imports: Some(&imports), exports });
        let built = with_exports(engine, Some(&imports), to, cache_mounts, ctx, &mut sent, build);
        stop.cancel();
        built
    })?;
    let CacheTraffic { sent_layers, sent_bytes, sent_mount_bytes, .. } = sent;
    let traffic = CacheTraffic { sent_layers, sent_bytes, sent_mount_bytes, ..imports.traffic() };
    Ok((built, traffic))
}
