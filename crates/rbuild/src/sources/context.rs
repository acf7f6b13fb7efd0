//! Build contexts: directories of the host, and archives that are unpacked into the store.
//!
//! A context may be a stranger's: links in it lead nowhere but inside it, and an archive is
//! unpacked by the rules of a layer, below a directory that goes with the build.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_cache::{Scratch, Store};
use rbuild_image::layer::{UnpackOptions, unpack_archive};
use rbuild_rooted::Root;
use rbuild_solver::copy::OwnerRule;
use rbuild_solver::{Context, RememberedDigests};
use rbuild_types::Ctx;

use super::dockerfile::Text;
use super::ignore_file::{self, IgnoreFile};
use crate::{BuildError, BuildRequest, ContextArchive, ContextInput};

/// The build context, opened.
#[derive(Debug)]
pub(crate) struct Main {
    pub(super) root: Root,
    pub(super) origin: Origin,
    /// Its directory on the host, as it was given.
    pub(super) path: Option<PathBuf>,
    /// Its name for people.
    pub(super) shown: String,
    _scratch: Option<Scratch>,
}

/// Where the files of a context are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// They are the caller's.
    Directory,
    /// They were unpacked for this build.
    Archive,
}

/// All contexts of a build.
#[derive(Debug)]
pub(crate) struct Contexts {
    pub(crate) main: Option<Context>,
    pub(crate) named: BTreeMap<String, Context>,
    /// By real path: two names of one directory share what is known of it.
    stamps: HashMap<PathBuf, Arc<RememberedDigests>>,
}

/// Opens the build context, if there is one; unpacks it if it is an archive.
pub(crate) fn open_main(
    store: &Store,
    request: &BuildRequest,
    ctx: Ctx<'_>,
) -> Result<Option<Main>, BuildError> {
    match &request.context {
        ContextInput::None => Ok(None),
        ContextInput::Directory(directory) => Ok(Some(Main::of_directory(directory)?)),
        ContextInput::Archive(archive) => unpack(store, archive, ctx).map(Some),
        ContextInput::Git(url) => Err(not_yet("a git repository as the context", url)),
        ContextInput::Http(url) => Err(not_yet("a URL as the context", url)),
    }
}

pub(super) fn not_yet(what: &str, url: &str) -> BuildError {
    let message = format!("{what} is not supported yet: {url}; fetch it, then give the directory");
    BuildError::Request { message }
}

impl Main {
    pub(crate) fn of_directory(directory: &Path) -> Result<Self, BuildError> {
        Ok(Self {
            root: open_directory(directory)?,
            origin: Origin::Directory,
            path: Some(directory.to_owned()),
            shown: directory.display().to_string(),
            _scratch: None,
        })
    }

    /// The rules that hold in it. Those of an archive's own file do not, as in BuildKit.
    pub(crate) fn ignore_file(
        &self,
        request: &BuildRequest,
        text: &Text,
        ctx: Ctx<'_>,
    ) -> Result<IgnoreFile, BuildError> {
        match (&request.ignore_file, self.origin) {
            (Some(path), _) => ignore_file::of_user(path, ctx),
            (None, Origin::Directory) => {
                ignore_file::of_build(&self.root, text.path.as_deref(), ctx)
            }
            (None, Origin::Archive) => Ok(IgnoreFile::default()),
        }
    }
}

fn unpack(store: &Store, archive: &ContextArchive, ctx: Ctx<'_>) -> Result<Main, BuildError> {
    let Some(mut reader) = archive.take() else {
        let message = "the archive that is the context was read by an earlier build";
        return Err(BuildError::Request { message: message.to_owned() });
    };
    let scratch = store.scratch("context")?;
    let files = scratch.path().join("fs");
    let failed = |source| BuildError::Io { what: "unpack the context".to_owned(), source };
    fs_err::create_dir(&files).map_err(failed)?;
    let root = Root::open(&files)?;
    unpack_archive(&mut reader, &root, &UnpackOptions::default(), ctx.cancel)?;
    Ok(Main {
        root,
        origin: Origin::Archive,
        path: None,
        shown: "the archive that is the context".to_owned(),
        _scratch: Some(scratch),
    })
}

/// Opens everything that the solver takes files from. Without a store nothing is remembered of
/// files.
pub(crate) fn open(
    store: Option<&Store>,
    request: &BuildRequest,
    main: Option<&Main>,
    named: &BTreeMap<String, PathBuf>,
    text: &Text,
    ctx: Ctx<'_>,
) -> Result<Contexts, BuildError> {
    let mut contexts = Contexts { main: None, named: BTreeMap::new(), stamps: HashMap::new() };
    if let Some(main) = main {
        let ignore = main.ignore_file(request, text, ctx)?;
        let root = main.root.try_clone()?;
        contexts.main = Some(match (main.origin, &main.path) {
            (Origin::Directory, Some(path)) => {
                let stamps = contexts.stamps(store, path)?;
                context("context".to_owned(), root, ignore, stamps)
            }
            // Files that this build unpacked do not change, and whose they are is in the archive.
            _ => Context {
                owner: OwnerRule::Keep,
                ..context("context".to_owned(), root, ignore, None)
            },
        });
    }
    for (name, path) in named {
        let root = open_directory(path)?;
        let ignore = ignore_file::of_directory(&root, ctx)?;
        let stamps = contexts.stamps(store, path)?;
        let opened = context(format!("context {name}"), root, ignore, stamps);
        contexts.named.insert(name.clone(), opened);
    }
    Ok(contexts)
}

fn context(
    name: String,
    root: Root,
    ignore: IgnoreFile,
    stamps: Option<Arc<RememberedDigests>>,
) -> Context {
    let IgnoreFile { name: ignore_file, patterns, .. } = ignore;
    Context { name, root, ignore: patterns, ignore_file, owner: OwnerRule::Context, stamps }
}

impl Contexts {
    fn stamps(
        &mut self,
        store: Option<&Store>,
        path: &Path,
    ) -> Result<Option<Arc<RememberedDigests>>, BuildError> {
        let Some(store) = store else { return Ok(None) };
        let path =
            fs_err::canonicalize(path).map_err(failed("cannot open the build context", path))?;
        if let Some(stamps) = self.stamps.get(&path) {
            return Ok(Some(stamps.clone()));
        }
        let stamps = Arc::new(RememberedDigests::new(store.stat_cache(&path.to_string_lossy())?));
        self.stamps.insert(path, stamps.clone());
        Ok(Some(stamps))
    }

    /// Writes what was learnt of files.
    pub(crate) fn save(&self) -> Result<(), BuildError> {
        for stamps in self.stamps.values() {
            stamps.save()?;
        }
        Ok(())
    }
}

fn open_directory(directory: &Path) -> Result<Root, BuildError> {
    let failed = failed("cannot open the build context", directory);
    let metadata = fs_err::metadata(directory).map_err(&failed)?;
    if !metadata.is_dir() {
        return Err(failed(std::io::Error::other("it is not a directory")));
    }
    Ok(Root::open(directory)?)
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> BuildError {
    move |source| BuildError::Input { what, path: path.to_owned(), source }
}
