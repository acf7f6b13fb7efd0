//! Build contexts: directories of the host, archives that are unpacked into the store, and what
//! is fetched from elsewhere.
//!
//! A context may be a stranger's: links in it lead nowhere but inside it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_cache::{Scratch, Store};
use rbuild_plan::git_ref::CheckoutTime;
use rbuild_plan::op::Source;
use rbuild_plan::{CONTEXT_FILE, ContextOptions, RemoteContext};
use rbuild_rooted::{Follow, Root};
use rbuild_solver::copy::OwnerRule;
use rbuild_solver::{Context, RememberedDigests};
use rbuild_types::Ctx;

use super::archive::{self, unpack_stream};
use super::dockerfile::{MAX_TEXT, Text};
use super::ignore_file::{self, IgnoreFile};
use super::remote::RemoteSources;
use crate::{BuildError, BuildRequest, ContextArchive, ContextInput, ContextMode, Sniffed};

/// What the context of a request turned out to be.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// Its files, if there are any.
    pub(crate) main: Option<Main>,
    /// The Dockerfile that a URL gave in the place of files.
    pub(super) lone: Option<Text>,
    /// Where it lies, if elsewhere.
    pub(crate) source: Option<Source>,
    /// The time of the newest file of an archive, seconds since 1970.
    pub(super) newest: Option<i64>,
}

/// The build context, opened.
#[derive(Debug)]
pub(crate) struct Main {
    pub(super) root: Root,
    pub(super) origin: Origin,
    /// Its directory on the host: as it was given, or in the store.
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
    /// They were fetched into the store, and stay there.
    Remote,
}

/// All contexts of a build.
#[derive(Debug)]
pub(crate) struct Contexts {
    pub(crate) main: Option<Context>,
    pub(crate) named: BTreeMap<String, Context>,
    /// By real path: two names of one directory share what is known of it.
    stamps: HashMap<PathBuf, Arc<RememberedDigests>>,
}

/// Opens the build context, if there is one; fetches or unpacks it first where it is no directory.
pub(crate) fn open_main(
    remotes: &RemoteSources<'_>,
    request: &BuildRequest,
    ctx: Ctx<'_>,
) -> Result<Opened, BuildError> {
    match &request.context {
        ContextInput::None => Ok(Opened::default()),
        ContextInput::Directory(directory) => Opened::of_directory(directory),
        ContextInput::Archive(archive) => Opened::of_archive(remotes.store(), archive, ctx),
        ContextInput::Git(url) | ContextInput::Http(url) => open_remote(remotes, url, request, ctx),
    }
}

/// Fetches a context from elsewhere. A URL gives a tar with the files, or a Dockerfile that needs
/// none.
fn open_remote(
    remotes: &RemoteSources<'_>,
    url: &str,
    request: &BuildRequest,
    ctx: Ctx<'_>,
) -> Result<Opened, BuildError> {
    let bad = |message: String| BuildError::Request { message };
    let parsed = RemoteContext::parse(url, options(request)).map_err(bad)?;
    let Some(RemoteContext { source, shown }) = parsed else {
        return Err(bad(format!("{url} is neither a git repository nor a URL")));
    };
    let fetched = remotes.tree(&source, &format!("the build context {shown}"), ctx)?;
    let opened = Opened { source: Some(source.clone()), ..Opened::default() };
    let path = match source {
        Source::Git(_) | Source::Image { .. } => fetched.path,
        Source::Http(_) => {
            let file = Root::open(&fetched.path)?.open_file(CONTEXT_FILE, Follow::No)?;
            let sniffed = ContextArchive::sniff(file, MAX_TEXT)
                .map_err(failed("cannot read the build context", &fetched.path))?;
            match sniffed {
                Sniffed::Archive(archive) => {
                    remotes.unpacked(&archive, &fetched.identity, &shown, ctx)?
                }
                Sniffed::Bytes(_) if request.ignore_file.is_some() => {
                    return Err(bad(format!(
                        "{shown} is a Dockerfile by itself: there is no context that an ignore \
                         file could hold for"
                    )));
                }
                Sniffed::Bytes(bytes) => {
                    return Ok(Opened { lone: Some(Text::alone(shown, &bytes)?), ..opened });
                }
            }
        }
    };
    let main = Main {
        root: Root::open(&path)?,
        origin: Origin::Remote,
        path: Some(path),
        shown,
        _scratch: None,
    };
    Ok(Opened { main: Some(main), ..opened })
}

/// What build arguments say about a context that is a repository.
fn options(request: &BuildRequest) -> ContextOptions {
    let argument = |name: &str| request.options.build_args.get(name).map(String::as_str);
    let keep_git_dir = argument("BUILDKIT_CONTEXT_KEEP_GIT_DIR")
        .is_some_and(|value| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"));
    // Whoever wants times that can be repeated gets those of the files too.
    let mtime = match argument("SOURCE_DATE_EPOCH") {
        None | Some("") => CheckoutTime::Checkout,
        Some(_) => CheckoutTime::Commit,
    };
    ContextOptions { keep_git_dir, mtime }
}

impl Opened {
    /// A directory of the host, which takes no store.
    pub(crate) fn of_directory(directory: &Path) -> Result<Self, BuildError> {
        let main = Main {
            root: open_directory(directory)?,
            origin: Origin::Directory,
            path: Some(directory.to_owned()),
            shown: directory.display().to_string(),
            _scratch: None,
        };
        Ok(Self { main: Some(main), ..Self::default() })
    }

    fn of_archive(
        store: &Store,
        archive: &ContextArchive,
        ctx: Ctx<'_>,
    ) -> Result<Self, BuildError> {
        let archive::Unpacked { root, scratch, newest } = unpack_stream(store, archive, ctx)?;
        let main = Main {
            root,
            origin: Origin::Archive,
            path: None,
            shown: "the archive that is the context".to_owned(),
            _scratch: Some(scratch),
        };
        Ok(Self { main: Some(main), newest, ..Self::default() })
    }
}

impl Main {
    /// Whether a path on the command line means a file in it. An absolute one is the host's, but
    /// for an archive, which has always been all that there is: docker's rules.
    pub(super) fn holds(&self, path: &Path) -> bool {
        match self.origin {
            Origin::Directory => false,
            Origin::Archive => true,
            Origin::Remote => path.is_relative(),
        }
    }

    /// The rules that hold in it. Only a directory's own file counts, as in BuildKit.
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
            (None, Origin::Archive | Origin::Remote) => Ok(IgnoreFile::default()),
        }
    }
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
        // Of files that were unpacked for this build nobody will ask again.
        let stamps = match &main.path {
            Some(path) => contexts.stamps(store, path)?,
            None => None,
        };
        let owner = match (main.origin, &main.path) {
            (Origin::Directory, Some(path)) => owner_rule(request, path),
            // Whose they are is in the archive; a checkout is root's.
            _ => OwnerRule::Keep,
        };
        let opened = context("context".to_owned(), root, ignore, owner, stamps);
        // Whoever enters a step later may be in another directory.
        let path = main.path.as_deref().filter(|_| main.origin == Origin::Directory);
        contexts.main = Some(Context { path: path.map(ignore_file::lasting), ..opened });
    }
    for (name, path) in named {
        let root = open_directory(path)?;
        let ignore = ignore_file::of_directory(&root, ctx)?;
        let stamps = contexts.stamps(store, path)?;
        let owner = owner_rule(request, path);
        let opened = context(format!("context {name}"), root, ignore, owner, stamps);
        contexts.named.insert(name.clone(), opened);
    }
    Ok(contexts)
}

fn context(
    name: String,
    root: Root,
    ignore: IgnoreFile,
    owner: OwnerRule,
    stamps: Option<Arc<RememberedDigests>>,
) -> Context {
    let IgnoreFile { name: ignore_file, path: ignore_path, patterns } = ignore;
    Context { name, path: None, root, ignore: patterns, ignore_file, ignore_path, owner, stamps }
}

/// The directory that was the context of an earlier build, as it is now, with the rules of the
/// ignore file that held then, or else of its own. Without that file there is no context: it would
/// show what was hidden.
pub(crate) fn of_past(
    path: &Path,
    ignore_file: Option<&Path>,
    ctx: Ctx<'_>,
) -> Result<Context, BuildError> {
    let root = open_directory(path)?;
    let ignore = match ignore_file {
        Some(file) => ignore_file::of_user(file, ctx)?,
        None => ignore_file::of_directory(&root, ctx)?,
    };
    let owner = match context_mode(None, path) {
        ContextMode::Git => OwnerRule::WorkTree,
        ContextMode::Plain => OwnerRule::Context,
    };
    Ok(context("context".to_owned(), root, ignore, owner, None))
}

/// What becomes of owners and modes in a directory of the host.
fn owner_rule(request: &BuildRequest, directory: &Path) -> OwnerRule {
    match context_mode(request.context_mode, directory) {
        ContextMode::Git => OwnerRule::WorkTree,
        ContextMode::Plain => OwnerRule::Context,
    }
}

/// Which modes the files of a directory have, where `asked` may say another than the usual.
pub(crate) fn context_mode(asked: Option<ContextMode>, directory: &Path) -> ContextMode {
    asked.unwrap_or_else(|| match is_in_work_tree(directory) {
        true => ContextMode::Git,
        false => ContextMode::Plain,
    })
}

/// Whether there is a `.git` in the directory or above it: a directory, or the file of a submodule
/// or of another work tree.
fn is_in_work_tree(directory: &Path) -> bool {
    let real = fs_err::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    real.ancestors().any(|above| above.join(".git").exists())
}

impl Contexts {
    fn stamps(
        &mut self,
        store: Option<&Store>,
        path: &Path,
    ) -> Result<Option<Arc<RememberedDigests>>, BuildError> {
        let Some(store) = store.filter(|store| !store.is_in_progress(path)) else {
            return Ok(None);
        };
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
