//! COPY and ADD in temporary directories: one test per behaviour of the language.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rbuild_cache::FileStamp;
use rbuild_parser::ignore_file::Patterns;
use rbuild_plan::op::{Copy, CopySource, Unpack};
use rbuild_rooted::{FileKind, Root, Time};
use rbuild_solver::copy::{
    Absence, Applied, ArchiveOptions, Archives, CopyError, DigestCache, OwnerRule, Ownership,
    Selection, SourceTree, Target, apply, decisions, list, preview, select,
};
use rbuild_types::{CancelToken, Digest};
use tempfile::TempDir;

/// A source tree and a destination beside it, and a file that neither may reach.
struct World {
    temp: TempDir,
    pool: rayon::ThreadPool,
    ignore: Patterns,
    rule: OwnerRule,
    archives: bool,
}

/// Everything below a directory: path, and content, link target or mode of a directory.
type Listing = Vec<(String, String)>;

impl World {
    fn new() -> Self {
        let temp = TempDir::new().unwrap();
        fs::create_dir(temp.path().join("src")).unwrap();
        fs::create_dir(temp.path().join("dst")).unwrap();
        fs::write(temp.path().join("secret"), "secret").unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let (ignore, rule) = (Patterns::default(), OwnerRule::Context);
        Self { temp, pool, ignore, rule, archives: false }
    }

    /// Files by path; a name ending in `/` is a directory, `a -> b` a link.
    fn with(files: &[&str]) -> Self {
        let world = Self::new();
        files.iter().for_each(|file| world.put("src", file));
        world
    }

    fn with_destination(self, files: &[&str]) -> Self {
        files.iter().for_each(|file| self.put("dst", file));
        self
    }

    fn ignoring(mut self, text: &str) -> Self {
        let (patterns, problems) = Patterns::parse(text);
        assert!(problems.is_empty());
        self.ignore = patterns;
        self
    }

    fn put(&self, tree: &str, file: &str) {
        let base = self.temp.path().join(tree);
        if let Some((link, target)) = file.split_once(" -> ") {
            fs::create_dir_all(base.join(link).parent().unwrap()).unwrap();
            symlink(target, base.join(link)).unwrap();
        } else if let Some(directory) = file.strip_suffix('/') {
            fs::create_dir_all(base.join(directory)).unwrap();
        } else {
            fs::create_dir_all(base.join(file).parent().unwrap()).unwrap();
            let name = base.join(file).file_name().unwrap().to_str().unwrap().to_owned();
            fs::write(base.join(file), name).unwrap();
        }
    }

    fn src(&self, path: &str) -> PathBuf {
        self.temp.path().join("src").join(path)
    }

    fn dst(&self, path: &str) -> PathBuf {
        self.temp.path().join("dst").join(path)
    }

    fn select_with(
        &self,
        op: &Copy,
        stamps: Option<&dyn DigestCache>,
    ) -> Result<Selection, CopyError> {
        let root = Root::open(self.src("")).unwrap();
        select(op, &|_| Some(self.tree(&root, stamps)), &self.pool, &CancelToken::default())
    }

    fn select(&self, op: &Copy) -> Result<Selection, CopyError> {
        self.select_with(op, None)
    }

    fn tree<'a>(&'a self, root: &'a Root, stamps: Option<&'a dyn DigestCache>) -> SourceTree<'a> {
        let context = self.rule == OwnerRule::Context;
        SourceTree {
            root,
            ignore: context.then_some(&self.ignore),
            ignore_file: ".dockerignore",
            name: if context { "context".into() } else { "stage build".into() },
            owner: self.rule,
            stamps,
        }
    }

    fn apply(&self, op: &Copy, selection: &Selection) -> Result<Applied, CopyError> {
        let (from, to) = (Root::open(self.src("")).unwrap(), Root::open(self.dst("")).unwrap());
        let ownership = if is_root() { Ownership::Set } else { Ownership::Leave };
        let archives = FakeArchives;
        let target = Target {
            root: &to,
            lookup_owner: &|spec| match spec {
                "app" => Ok((1000, 1000)),
                "55:66" => Ok((55, 66)),
                other => Err(format!("no user {other}")),
            },
            archives: self.archives.then_some(&archives as &dyn Archives),
            ownership,
            earlier: None,
        };
        let tree_of = |_: &CopySource| Some(self.tree(&from, None));
        apply(op, selection, &tree_of, &target, &self.pool, &CancelToken::default())
    }

    fn copy(&self, op: &Copy) -> Result<Applied, CopyError> {
        let selection = self.select(op)?;
        let applied = self.apply(op, &selection)?;
        assert_eq!(applied.digest, selection.digest());
        assert!(!applied.changed);
        Ok(applied)
    }

    /// Copies and gives what is in the destination tree then.
    fn result(&self, op: &Copy) -> Listing {
        self.copy(op).unwrap();
        self.found("")
    }

    fn found(&self, path: &str) -> Listing {
        let mut found = Vec::new();
        walk(&self.dst(path), "", &mut found);
        found.sort();
        found
    }

    fn error(&self, op: &Copy) -> String {
        self.copy(op).unwrap_err().to_string()
    }
}

fn walk(directory: &Path, prefix: &str, found: &mut Listing) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_string_lossy());
        if metadata.is_dir() {
            found.push((name.clone(), format!("dir {:o}", metadata.mode() & 0o7777)));
            walk(&path, &format!("{name}/"), found);
        } else if metadata.is_symlink() {
            found.push((name, format!("-> {}", fs::read_link(&path).unwrap().display())));
        } else if metadata.is_file() {
            found.push((name, fs::read_to_string(&path).unwrap_or_default()));
        } else {
            found.push((name, "special".into()));
        }
    }
}

/// `COPY`'s words: sources, then the destination, `/` at its end for a directory.
fn copy(words: &[&str]) -> Copy {
    let (destination, sources) = words.split_last().unwrap();
    let sources = sources
        .iter()
        .map(|path| CopySource::Context { context: None, path: format!("/{path}") })
        .collect();
    Copy {
        has_root: true,
        into_directory: destination.ends_with('/'),
        ..Copy::plain(sources, format!("/{}", destination.trim_matches('/')))
    }
}

fn with_parents(words: &[&str]) -> Copy {
    Copy { parents: true, ..copy(words) }
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.iter().map(|(name, _)| name.as_str()).collect()
}

fn assert_found(found: &Listing, expected: &[(&str, &str)]) {
    for (name, content) in expected {
        assert!(found.contains(&((*name).into(), (*content).into())), "{name} in {found:?}");
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Takes what begins with `archive` for an archive, and makes one file of it.
struct FakeArchives;

impl Archives for FakeArchives {
    fn is_archive(&self, mut file: &fs::File) -> std::io::Result<bool> {
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text.starts_with("archive"))
    }

    fn unpack(
        &self,
        mut file: fs::File,
        root: &Root,
        destination: &Path,
        options: &ArchiveOptions,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let into = root.open_real_dir(destination)?;
        into.create_file(&text, 0o644)?.write_all(format!("{:?}", options.owner).as_bytes())?;
        Ok(())
    }
}

#[test]
fn a_file_gets_the_destinations_name_or_goes_into_it() {
    let world = World::with(&["a.txt"]).with_destination(&["there/"]);
    world.copy(&copy(&["a.txt", "f1"])).unwrap();
    world.copy(&copy(&["a.txt", "new/"])).unwrap();
    world.copy(&copy(&["a.txt", "there"])).unwrap();
    world.copy(&copy(&["../../a.txt", "deep/er/name"])).unwrap();
    world.copy(&copy(&["a.txt", "/"])).unwrap();
    let expected = "a.txt deep deep/er deep/er/name f1 new new/a.txt there there/a.txt";
    assert_eq!(names(&world.found("")).join(" "), expected);
    assert_eq!(fs::read_to_string(world.dst("f1")).unwrap(), "a.txt");
}

#[test]
fn a_directory_gives_its_contents_and_merges() {
    let world = World::with(&["d/1", "d/.hid", "d/sub/3", "e/sub/4", "e/1"])
        .with_destination(&["t/old", "t/sub/3"]);
    fs::write(world.src("e/1"), "later").unwrap();
    fs::set_permissions(world.dst("t"), PermissionsExt::from_mode(0o750)).unwrap();
    fs::set_permissions(world.dst("t/sub"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::set_permissions(world.src("d/sub"), PermissionsExt::from_mode(0o711)).unwrap();
    let found = world.result(&copy(&["d", "e/", "t"]));
    assert_eq!(names(&found).join(" "), "t t/.hid t/1 t/old t/sub t/sub/3 t/sub/4");
    // The directory that is named keeps what it is; below it the last source counts.
    assert_found(&found, &[("t", "dir 750"), ("t/1", "later"), ("t/sub", "dir 755")]);
    let found = world.result(&copy(&["d", "t"]));
    assert_found(&found, &[("t", "dir 750"), ("t/sub", "dir 711")]);
    // The directory that is named is 0755 at a new place, deeper ones keep their mode.
    fs::set_permissions(world.src("d"), PermissionsExt::from_mode(0o700)).unwrap();
    let found = world.result(&copy(&["d/.", "new"]));
    assert_found(&found, &[("new", "dir 755"), ("new/sub", "dir 711")]);
}

#[test]
fn an_empty_directory_makes_the_destination_and_an_empty_match_makes_nothing() {
    let world = World::with(&["empty/"]);
    assert_eq!(names(&world.result(&copy(&["empty", "e1"]))), ["e1"]);
    let op = copy(&["*.nothing", "x/"]);
    assert!(world.select(&op).unwrap().is_empty());
    assert_eq!(names(&world.result(&op)), ["e1"]);
    assert!(!world.select(&copy(&["empty", "x/"])).unwrap().is_empty());
}

#[test]
fn wildcards_match_names_and_a_matched_directory_loses_its_own() {
    let world = World::with(&["a.txt", "b.txt", ".dot", "d/1", "d/sub/2", "e/sub/3", "[x]"]);
    let found = world.result(&copy(&["*", "t/"]));
    let expected = "t t/.dot t/1 t/[x] t/a.txt t/b.txt t/sub t/sub/2 t/sub/3";
    assert_eq!(names(&found).join(" "), expected);
    let count = |pattern: &str| world.select(&copy(&[pattern, "t/"])).unwrap().inputs().len();
    assert_eq!(count("*.txt"), 2);
    assert_eq!(count("[^a].txt"), 1);
    assert_eq!(count("*/sub"), 2);
    assert_eq!(count("*/1"), 1);
    assert_eq!(count("\\[x\\]"), 1);
    assert_eq!(count("**/1"), 1);
    world.copy(&copy(&["a*", "single"])).unwrap();
    assert_found(&world.found(""), &[("single", "a.txt")]);
    assert!(matches!(world.copy(&copy(&["[", "t/"])), Err(CopyError::BadPattern { .. })));
}

#[test]
fn links_are_gone_through_before_the_first_wildcard_only() {
    let world = World::with(&["d/1", "d/sub/1", "ld -> d", "e/ls -> ../d/sub"]);
    let found = |pattern: &str| {
        let selected = world.select(&copy(&[pattern, "t/"])).unwrap();
        selected.inputs().into_iter().map(|input| input.path).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found("ld/*"), found("d/*"));
    assert_eq!(found("e/ls/?"), "/d/sub/1");
    assert_eq!(found("*/1"), "/d/1");
    assert_eq!(found("*/ls/1"), "");
    assert_eq!(found("l*/1"), "");
}

#[test]
fn a_missing_source_is_told_in_buildkits_words() {
    let world = World::with(&["a", "link -> nowhere", "loop -> loop", "a.d/x"]);
    for missing in ["nope.txt", "../../etc/passwd", "a/x", "link", "loop", "loop/x"] {
        let error = world.error(&copy(&[missing, "x"]));
        let path = missing.trim_start_matches("../");
        assert!(error.contains(&format!("\"/{path}\": not found")), "{error}");
    }
    let error = world.error(&copy(&["nope*", "nope", "x/"]));
    assert!(error.contains("\"/nope\": not found"), "{error}");
    let error = world.error(&with_parents(&["no/such/f", "x/"]));
    assert!(error.contains("\"/no/such/f\": not found"), "{error}");
    // A pattern may match nothing; with `--parents` the destination is made all the same.
    assert_eq!(names(&world.result(&with_parents(&["no/*/f", "x/"]))), ["x"]);
}

#[test]
fn links_that_are_named_are_followed_and_deeper_ones_copied() {
    let world = World::with(&[
        "real",
        "dir/f",
        "lf -> real",
        "ld -> dir",
        "wl/l -> ../real",
        "wl/abs -> /etc/passwd",
        "wl/up -> ../../secret",
        "in -> /dir",
    ]);
    for (source, destination) in [
        ("lf", "f"),
        ("ld", "d"),
        ("ld/f", "through"),
        ("in/f", "absolute"),
        ("l*", "glob/"),
        ("wl", "wl"),
    ] {
        world.copy(&copy(&[source, destination])).unwrap();
    }
    assert_found(
        &world.found(""),
        &[
            ("f", "real"),
            ("d/f", "f"),
            ("through", "f"),
            ("absolute", "f"),
            ("glob/f", "f"),
            ("glob/lf", "real"),
            ("wl/l", "-> ../real"),
            ("wl/abs", "-> /etc/passwd"),
            ("wl/up", "-> ../../secret"),
        ],
    );
    // Named, a link that leads out leads nowhere.
    assert!(world.error(&copy(&["wl/up", "x"])).contains("not found"));
    assert!(world.error(&copy(&["wl/abs", "x"])).contains("not found"));
}

#[test]
fn links_in_the_destination_are_followed_inside_it() {
    let world = World::with(&["a.txt", "b.txt", "d/1"]).with_destination(&[
        "real/",
        "link -> /real",
        "rel -> real",
        "target",
        "flink -> /target",
        "dangling -> /missing/dir",
        "x/up -> ../../../../real",
        "out -> ../secret",
        "real/a.txt -> /target",
    ]);
    for (source, destination) in [
        ("d", "link"),
        ("b.txt", "flink"),
        ("a.txt", "link/deep/er/"),
        ("b.txt", "x/up/"),
        // Into a directory, a link of that name is replaced; by full name it is written through.
        ("a.txt", "rel/"),
        ("a.txt", "dangling"),
        ("a.txt", "out"),
    ] {
        world.copy(&copy(&[source, destination])).unwrap();
    }
    assert_found(
        &world.found(""),
        &[
            ("link", "-> /real"),
            ("real/1", "1"),
            ("target", "b.txt"),
            ("flink", "-> /target"),
            ("real/deep/er/a.txt", "a.txt"),
            ("real/b.txt", "b.txt"),
            ("real/a.txt", "a.txt"),
            ("dangling", "-> /missing/dir"),
            ("missing/dir", "a.txt"),
            ("secret", "a.txt"),
        ],
    );
    assert_eq!(fs::read_to_string(world.temp.path().join("secret")).unwrap(), "secret");
}

#[test]
fn a_matched_link_that_leads_nowhere_is_an_error() {
    let world = World::with(&["a.txt", "d.txt -> nowhere", "own/l -> l", "own/x"]);
    let not_found =
        |path: &str| format!("failed to calculate checksum of ref context: \"{path}\": not found");
    assert!(world.error(&copy(&["*.txt", "/x/"])).starts_with(&not_found("/d.txt")));
    assert!(world.error(&copy(&["d.txt", "/x/"])).starts_with(&not_found("/d.txt")));
    assert!(world.error(&copy(&["own/*", "/x/"])).starts_with(&not_found("/own/l")));
    let said = world.error(&copy(&["d.txt", "/x/"]));
    assert!(
        said.ends_with("not found: it is a link to \"nowhere\", which leads nowhere"),
        "{said}"
    );
    // In a directory that is copied links stay what they are.
    world.copy(&copy(&["own", "/x/"])).unwrap();
    assert_eq!(fs::read_link(world.dst("x/l")).unwrap(), Path::new("l"));
}

#[test]
fn kinds_that_do_not_fit_are_errors() {
    let world = World::with(&["a", "b", "d/t/x", "f/n", "g/y"])
        .with_destination(&["t", "sub/a/", "n/x", "l -> t", "deep/t", "here/"]);
    assert_eq!(world.error(&copy(&["d", "t"])), "cannot copy to non-directory: /t");
    assert_eq!(world.error(&copy(&["d", "l"])), "cannot copy to non-directory: /t");
    assert_eq!(world.error(&copy(&["d", "deep"])), "cannot copy to non-directory: /deep/t");
    assert_eq!(world.error(&copy(&["a", "sub/"])), "cannot replace directory /sub/a with a file");
    assert_eq!(world.error(&copy(&["a", "t/x"])), "cannot copy to non-directory: /t/x");
    assert!(world.error(&copy(&["f", "/"])).contains("cannot replace directory /n"));
    for op in [copy(&["a", "b", "dst"]), copy(&["?", "a", "dst"])] {
        let error = world.error(&op);
        assert!(error.contains("destination must be a directory"), "{error}");
    }
    // A directory that is there needs no slash; neither does one that an earlier source makes.
    world.copy(&copy(&["a", "b", "here"])).unwrap();
    world.copy(&copy(&["g", "a", "b", "fresh"])).unwrap();
    assert!(world.dst("fresh/b").exists());
}

#[test]
fn modes_and_times_are_kept() {
    let world = World::with(&["d/suid", "d/zero", "d/sticky/", "d/private/", "top"]);
    for (name, mode) in [("suid", 0o4755), ("zero", 0), ("sticky", 0o1777), ("private", 0o700)] {
        let permissions = PermissionsExt::from_mode(mode);
        fs::set_permissions(world.src(&format!("d/{name}")), permissions).unwrap();
    }
    let stamp = Time { sec: 1_234_567_890, nsec: 123_456_789 };
    let root = Root::open(world.src("")).unwrap();
    for name in ["d/suid", "d/private", "top"] {
        root.set_times(name, stamp, stamp).unwrap();
    }
    if !is_root() {
        eprintln!("skipped: needs root to read a file without permissions");
        fs::set_permissions(world.src("d/zero"), PermissionsExt::from_mode(0o400)).unwrap();
    }
    world.copy(&copy(&["d", "m"])).unwrap();
    world.copy(&copy(&["top", "top"])).unwrap();
    let mode = |name: &str| world.dst(name).symlink_metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("m/suid"), mode("m/sticky"), mode("m/private")), (0o4755, 0o1777, 0o700));
    for name in ["m/suid", "m/private", "top"] {
        let metadata = world.dst(name).metadata().unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (stamp.sec, 123_456_789), "{name}");
    }
}

#[test]
fn owners_follow_the_rule_of_the_tree_and_chown() {
    if !is_root() {
        eprintln!("skipped: needs root to change owners");
        return;
    }
    let mut world = World::with(&["d/sub/f", "f", "d/l -> f"]).with_destination(&["old/"]);
    for path in ["d/sub/f", "d/sub", "d", "f"] {
        std::os::unix::fs::chown(world.src(path), Some(1234), Some(5678)).unwrap();
    }
    std::os::unix::fs::chown(world.dst("old"), Some(7), Some(8)).unwrap();
    let owner = |world: &World, path: &str| {
        let metadata = world.dst(path).symlink_metadata().unwrap();
        (metadata.uid(), metadata.gid())
    };
    world.copy(&copy(&["d", "context"])).unwrap();
    assert_eq!(owner(&world, "context/sub/f"), (0, 0));
    world.copy(&Copy { chown: Some("55:66".into()), ..copy(&["d", "old/p/d"]) }).unwrap();
    assert_eq!(owner(&world, "old"), (7, 8), "what was there keeps its owner");
    for path in ["old/p", "old/p/d", "old/p/d/sub", "old/p/d/sub/f", "old/p/d/l"] {
        assert_eq!(owner(&world, path), (55, 66), "{path}");
    }
    world.rule = OwnerRule::Keep;
    world.copy(&copy(&["d", "kept"])).unwrap();
    assert_eq!(owner(&world, "kept"), (0, 0), "the named directory itself is root's");
    assert_eq!(owner(&world, "kept/sub"), (1234, 5678));
    assert_eq!(owner(&world, "kept/sub/f"), (1234, 5678));
    // With `--parents` a directory above the match that was there changes its mode only.
    fs::set_permissions(world.src("d"), PermissionsExt::from_mode(0o711)).unwrap();
    fs::create_dir(world.dst("old/d")).unwrap();
    std::os::unix::fs::chown(world.dst("old/d"), Some(9), Some(9)).unwrap();
    world.copy(&with_parents(&["d/sub", "old"])).unwrap();
    assert_eq!(owner(&world, "old/d"), (9, 9));
    assert_eq!(world.dst("old/d").metadata().unwrap().mode() & 0o777, 0o711);
    assert_eq!(owner(&world, "old/d/sub"), (1234, 5678));
    let error = world.error(&Copy { chown: Some("ghost".into()), ..copy(&["f", "g"]) });
    assert!(error.contains("ghost"), "{error}");
}

#[test]
fn a_work_tree_has_the_modes_that_git_keeps() {
    let files = ["d/script", "d/private", "d/open/setuid", "d/open/group", "d/l -> script"];
    let mut world = World::with(&files);
    world.rule = OwnerRule::WorkTree;
    let set = |modes: [u32; 6]| {
        let names = ["d/script", "d/private", "d/open/setuid", "d/open/group", "d/open", "d"];
        for (name, mode) in names.into_iter().zip(modes) {
            fs::set_permissions(world.src(name), PermissionsExt::from_mode(mode)).unwrap();
        }
    };
    let op = copy(&["d", "to"]);
    set([0o755, 0o644, 0o755, 0o644, 0o755, 0o755]);
    let first = world.select(&op).unwrap().digest();
    // Nobody but root reads these, which does not count; of execute bits the owner's does.
    set([0o700, 0o600, 0o4711, 0o654, 0o2700, 0o700]);
    assert_eq!(world.select(&op).unwrap().digest(), first);
    world.copy(&op).unwrap();
    world.copy(&Copy { chmod: Some("g+w".into()), ..copy(&["d", "symbolic"]) }).unwrap();
    world.copy(&with_parents(&["d/open/group", "above"])).unwrap();
    let mode = |name: &str| world.dst(name).symlink_metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("to/script"), mode("to/private"), mode("to/open")), (0o755, 0o644, 0o755));
    assert_eq!((mode("to/open/setuid"), mode("to/open/group")), (0o755, 0o644));
    assert_eq!((mode("symbolic/script"), mode("symbolic/private")), (0o775, 0o664));
    assert_eq!((mode("above/d"), mode("above/d/open")), (0o755, 0o755));
    set([0o600, 0o600, 0o4711, 0o654, 0o2700, 0o700]);
    assert_ne!(world.select(&op).unwrap().digest(), first, "a script that is none any more");
}

#[test]
fn chmod_applies_to_files_directories_and_new_parents() {
    let world = World::with(&["f", "d/sub/g", "d/l -> sub"]).with_destination(&["old/"]);
    let chmod = |mode: &str, op: Copy| Copy { chmod: Some(mode.into()), ..op };
    world.copy(&chmod("777", copy(&["f", "old/parent/foo"]))).unwrap();
    world.copy(&chmod("u=rwX,go=rX", copy(&["d", "s"]))).unwrap();
    world.copy(&chmod("0", copy(&["f", "none"]))).unwrap();
    world.copy(&chmod("", copy(&["f", "as-is"]))).unwrap();
    let mode = |name: &str| world.dst(name).symlink_metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("old"), mode("old/parent"), mode("old/parent/foo")), (0o755, 0o777, 0o777));
    assert_eq!((mode("s/sub"), mode("s/sub/g"), mode("none")), (0o755, 0o644, 0));
    assert_eq!(mode("as-is"), 0o644);
    // Directories made for the destination know numbers only, without special bits.
    world.copy(&chmod("4711", copy(&["f", "n/o"]))).unwrap();
    world.copy(&chmod("u=rwx,go=", copy(&["f", "s2/f"]))).unwrap();
    assert_eq!((mode("n"), mode("n/o"), mode("s2"), mode("s2/f")), (0o711, 0o4711, 0o755, 0o700));
    let words = "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777";
    assert_eq!(world.error(&chmod("64a", copy(&["f", "x"]))), words);
}

#[test]
fn parents_keeps_the_directories_from_the_pivot_on() {
    let files = ["d/sub/3", "d/1", "x/y/a.txt", "x/y/b.txt", "x/a.txt", "q", "ld -> d"];
    let found = |words: &[&str]| {
        let world = World::with(&files);
        fs::set_permissions(world.src("d"), PermissionsExt::from_mode(0o700)).unwrap();
        let found = world.result(&with_parents(words));
        if let Some((_, kind)) = found.iter().find(|(name, _)| name == "p/d") {
            assert_eq!(kind, "dir 700", "parents keep their mode");
        }
        names(&found).join(" ")
    };
    assert_eq!(found(&["d/sub/3", "d/1", "p"]), "p p/d p/d/1 p/d/sub p/d/sub/3");
    assert_eq!(found(&["d/*/3", "p/"]), "p p/d p/d/sub p/d/sub/3");
    assert_eq!(found(&["d/./sub/3", "p/"]), "p p/sub p/sub/3");
    assert_eq!(found(&["d", "p/"]), "p p/d p/d/1 p/d/sub p/d/sub/3");
    assert_eq!(found(&["**/3", "p/"]), "p p/d p/d/sub p/d/sub/3");
    assert_eq!(found(&["x/./y/*.txt", "p/"]), "p p/y p/y/a.txt p/y/b.txt");
    assert_eq!(found(&["x/y/./*.txt", "p/"]), "p p/a.txt p/b.txt");
    assert_eq!(found(&["x/./*", "p/"]), "p p/a.txt p/y p/y/a.txt p/y/b.txt");
    let expected = "p p/d p/d/1 p/x p/x/y p/x/y/a.txt";
    assert_eq!(found(&["x/*/a.txt", "*/1", "p/"]), expected);
    assert_eq!(found(&["x/**/a.txt", "p/"]), "p p/x p/x/a.txt p/x/y p/x/y/a.txt");
    assert_eq!(found(&["**/**/**/3", "p/"]), "p p/d p/d/sub p/d/sub/3");
    assert_eq!(found(&["q", "p"]), "p p/q");
    assert_eq!(found(&["ld/1", "p"]), "p p/ld p/ld/1");
    assert_eq!(found(&["x/y/", "p"]), "p p/x p/x/y p/x/y/a.txt p/x/y/b.txt");
}

#[test]
fn exclude_is_relative_to_what_is_copied_and_leaves_the_key() {
    let files = ["app/storage/cache/c", "app/storage/views/t", "app/storage/views/e", "a.md", "b"];
    let world = World::with(&files);
    let exclude = |patterns: &[&str], op: Copy| Copy {
        exclude: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
        ..op
    };
    let op = exclude(&["storage/views"], copy(&["app", "app"]));
    let before = world.select(&op).unwrap().digest();
    fs::write(world.src("app/storage/views/t"), "changed").unwrap();
    assert_eq!(world.select(&op).unwrap().digest(), before);
    let expected = "app app/storage app/storage/cache app/storage/cache/c";
    assert_eq!(names(&world.result(&op)).join(" "), expected);
    let kept = exclude(&["storage/views/*", "!storage/views/e"], copy(&["app", "k"]));
    world.copy(&kept).unwrap();
    assert_eq!(names(&world.found("k/storage/views")), ["e"]);
    world.copy(&exclude(&["*.md", "**/views", "app"], copy(&["*", "s/"]))).unwrap();
    // What the source names itself is not left out.
    assert_eq!(names(&world.found("s")).join(" "), "a.md b storage storage/cache storage/cache/c");
    assert!(!world.select(&exclude(&["*.md"], copy(&["a.md", "x"]))).unwrap().is_empty());
    world.copy(&exclude(&["app/storage/views"], with_parents(&["app/**", "p/"]))).unwrap();
    assert_eq!(names(&world.found("p")).last(), Some(&"app/storage/cache/c"));
    world.copy(&exclude(&["*"], with_parents(&["a.*", "p2/"]))).unwrap();
    assert!(names(&world.found("p2")).is_empty());
    let said = world.error(&exclude(&["*"], with_parents(&["a.md", "p/"])));
    assert!(said.ends_with("not found: it is there, but --exclude leaves it out"), "{said}");
    let bad = exclude(&["[a"], copy(&["b", "x"]));
    assert!(matches!(world.copy(&bad), Err(CopyError::BadExclude { .. })));
}

/// What the rules do to each path: `-` or `+`, the path, the rule's line, files, bytes.
fn decided(files: &[&str], rules: &str) -> (Vec<String>, Vec<usize>) {
    let world = World::with(files).ignoring(rules);
    let root = Root::open(world.src("")).unwrap();
    let found = decisions(&world.tree(&root, None), &CancelToken::default()).unwrap();
    let lines = found
        .paths
        .iter()
        .map(|one| {
            let sign = if one.ignored { '-' } else { '+' };
            let slash = if one.directory { "/" } else { "" };
            format!("{sign}{}{slash} {} {}", one.path, one.by.line, one.files)
        })
        .collect();
    (lines, found.idle.iter().map(|rule| rule.line).collect())
}

#[test]
fn rules_are_told_with_what_they_do() {
    let files = ["a.o", "m/a/x", "m/b/y", "m/keep", "src/a.o", "src/main.c", "deep/er/z"];
    let (lines, idle) = decided(&files, "# rules\n\nm\n!m/keep\n*.o\nnothing\n!nor/this\ndeep\n");
    let expected = ["-a.o 5 1", "-deep/ 8 1", "-m/a/ 3 1", "-m/b/ 3 1", "+m/keep 4 1"];
    assert_eq!(lines, expected);
    assert_eq!(idle, [6, 7]);
    let (lines, idle) = decided(&files, "*\n!src\nsrc/*.o\n");
    let expected = ["-a.o 1 1", "-deep/ 1 1", "-m/ 1 3", "-src/a.o 3 1", "+src/main.c 2 1"];
    assert_eq!(lines, expected);
    assert!(idle.is_empty());
    assert_eq!(decided(&files, ""), (Vec::new(), Vec::new()));
    let (lines, _) = decided(&["d/", "d/e/"], "d\n");
    assert_eq!(lines, ["-d/ 1 0"]);
}

#[test]
fn what_is_decided_is_what_is_hidden() {
    let files = ["a/b/c", "a/b/d", "a/e", "f", "g/h/i/j", "g/h/k", "g/l.o", "m.o"];
    for rules in ["a\n!a/b/d", "**/*.o\ng/h", "*\n!g", "*\n!**/*.o\ng/l.o", "a/b\n!a/b\na/b/c"] {
        let world = World::with(&files).ignoring(rules);
        let root = Root::open(world.src("")).unwrap();
        let tree = world.tree(&root, None);
        let cancel = CancelToken::default();
        let visible = list(&tree, &world.pool, &cancel).unwrap();
        let visible = visible.iter().filter(|one| one.kind == FileKind::Regular).count();
        let found = decisions(&tree, &cancel).unwrap();
        let hidden: u64 = found.paths.iter().filter(|one| one.ignored).map(|one| one.files).sum();
        assert_eq!(visible + hidden as usize, files.len(), "{rules:?} {found:?}");
    }
}

#[test]
fn a_preview_reads_no_file() {
    let world = World::with(&["src/a", "src/b/c", ".hidden"]).ignoring("src/a");
    let root = Root::open(world.src("")).unwrap();
    let tree_of = |_: &CopySource| Some(world.tree(&root, None));
    let cancel = CancelToken::default();
    let found = preview(&copy(&["src", "x/"]), &tree_of, &world.pool, &cancel).unwrap();
    let paths: Vec<_> = found.iter().map(|input| (input.path.as_str(), input.digest)).collect();
    assert_eq!(paths, [("/src/b", None), ("/src/b/c", None)]);
    let error = preview(&copy(&["nope", "x/"]), &tree_of, &world.pool, &cancel);
    assert!(matches!(error, Err(CopyError::NotFound { .. })));
}

#[test]
fn a_near_name_is_suggested() {
    let files = ["src/main.rs", "src/README.md", "docs/guide/one.txt", "secret.txt"];
    let world = World::with(&files).ignoring("secret.txt\n");
    for (source, near) in [
        ("src/mian.rs", Some("/src/main.rs")),
        ("src/readme.md", Some("/src/README.md")),
        ("dosc/guide/one.txt", Some("/docs/guide/one.txt")),
        ("dosc/guide/nothing", Some("/docs")),
        ("Src/../docs/guied", Some("/docs/guide")),
        ("src/main.rs/x", None),
        ("secrets.txt", None),
        ("nothing", None),
    ] {
        match world.select(&copy(&[source, "x"])) {
            Err(CopyError::NotFound { why, .. }) => {
                assert_eq!(*why, Absence::Unknown { near: near.map(str::to_owned) }, "{source}");
            }
            other => panic!("{source}: {other:?}"),
        }
    }
    let said = world.error(&copy(&["src/mian.rs", "x"]));
    assert!(said.ends_with("not found (did you mean \"/src/main.rs\"?)"), "{said}");
}

#[test]
fn ignore_rules_hide_files_from_copies_and_lists() {
    let files = ["a.txt", "d/a.txt", "d/e/a.txt", "d/e/c", "keep/me", "keep/not", "obj/sub/a.o"];
    let copied = |rules: &str| {
        let world = World::with(&files).ignoring(rules);
        world.copy(&copy(&["", "c"])).unwrap();
        names(&world.found("c")).join(" ")
    };
    assert_eq!(copied("d\n!d/e/a.txt\nkeep\nobj\n"), "a.txt d d/e d/e/a.txt");
    assert_eq!(copied("*\n!d/e\n!keep/me\n"), "d d/e d/e/a.txt d/e/c keep keep/me");
    assert_eq!(copied("**/*.o\nd\nkeep\n"), "a.txt obj obj/sub");
    assert_eq!(copied("d/**\nkeep\nobj"), "a.txt d");
    // At d/e all is excluded already, so its rule is not asked, and nothing below hears of it.
    assert_eq!(copied("**\n!**/*.txt\nd/e\n"), "a.txt d d/a.txt d/e d/e/a.txt");

    let world = World::with(&files).ignoring("d\n!d/e/a.txt\nkeep\n*.o\n");
    for (source, hidden) in
        [("d/a.txt", true), ("keep", true), ("keep/me", true), ("d/e/a.txt", false), ("d", false)]
    {
        let result = world.select(&copy(&[source, "x"]));
        let ignored = match result {
            Err(CopyError::NotFound { why, .. }) => matches!(*why, Absence::Ignored(Some(_))),
            _ => false,
        };
        assert_eq!(ignored, hidden, "{source}");
    }
    assert!(world.error(&with_parents(&["keep/me", "x"])).contains("\"/keep/me\": not found"));
    for copy in [copy(&["keep/me", "x"]), with_parents(&["keep/me", "x"])] {
        let said = world.error(&copy);
        assert!(said.ends_with("left out by .dockerignore line 3: keep"), "{said}");
    }
    assert!(world.select(&copy(&["keep/*", "x/"])).unwrap().is_empty());
    assert_eq!(world.select(&copy(&["*/*/*.txt", "x/"])).unwrap().inputs().len(), 1);
    let root = Root::open(world.src("")).unwrap();
    let visible = list(&world.tree(&root, None), &world.pool, &CancelToken::default()).unwrap();
    let paths: Vec<_> = visible.iter().map(|visible| visible.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/a.txt", "/d", "/obj", "/d/e", "/d/e/a.txt", "/obj/sub", "/obj/sub/a.o"]);
}

#[test]
fn a_link_to_something_hidden_is_hidden() {
    let world =
        World::with(&["secret", "link -> secret", "dir/x", "dl -> dir"]).ignoring("secret\ndl\n");
    assert!(world.error(&copy(&["link", "x"])).contains("\"/link\": not found"));
    assert!(world.error(&copy(&["dl/x", "x"])).contains("\"/dl/x\": not found"));
    assert!(world.copy(&copy(&["dir/x", "x"])).is_ok());
}

#[test]
fn files_from_the_dockerfile_need_no_context() {
    let world = World::new().ignoring("*");
    let inline = |name: &str| CopySource::Inline { name: name.into(), content: name.into() };
    let one = Copy { sources: vec![inline("EOF")], ..copy(&["f"]) };
    world.copy(&one).unwrap();
    let two = Copy {
        sources: vec![inline("EOF"), inline("EOF2")],
        chmod: Some("755".into()),
        ..copy(&["double/"])
    };
    world.copy(&two).unwrap();
    assert_eq!(names(&world.found("")), ["double", "double/EOF", "double/EOF2", "f"]);
    assert_eq!(fs::metadata(world.dst("f")).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(fs::metadata(world.dst("double/EOF2")).unwrap().mode() & 0o7777, 0o755);
    let clash = Copy { into_directory: false, destination: "/none".into(), ..two };
    assert!(matches!(world.copy(&clash), Err(CopyError::SeveralToOne { .. })));
}

#[test]
fn an_empty_root_has_only_itself() {
    let world = World::new();
    let from_empty = |path: &str| Copy {
        sources: vec![CopySource::Empty { path: path.into() }],
        ..copy(&["x/"])
    };
    assert!(world.select(&from_empty("/")).unwrap().is_empty());
    assert!(world.select(&from_empty("/a*")).unwrap().is_empty());
    assert!(world.select(&from_empty("/a")).unwrap_err().to_string().contains("\"/a\": not found"));
}

#[test]
fn sockets_become_files_and_pipes_stay_pipes() {
    let world = World::with(&["d/f"]);
    let _listener = UnixListener::bind(world.src("d/socket")).unwrap();
    let root = Root::open(world.src("d")).unwrap();
    root.mknod("pipe", FileKind::Fifo, 0o622, 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    if is_root() && root.mknod("null", FileKind::CharDevice, 0o666, null).is_ok() {
        world.copy(&copy(&["d/null", "null"])).unwrap();
        let metadata = world.dst("null").symlink_metadata().unwrap();
        assert!(metadata.file_type().is_char_device());
        assert_eq!(metadata.rdev(), null);
    } else {
        eprintln!("skipped: needs root to make device nodes");
    }
    world.copy(&copy(&["d", "t"])).unwrap();
    assert!(world.dst("t/socket").symlink_metadata().unwrap().is_file());
    let pipe = world.dst("t/pipe").symlink_metadata().unwrap();
    assert!(pipe.file_type().is_fifo());
    assert_eq!(pipe.mode() & 0o7777, 0o622);
}

#[test]
fn hard_links_stay_hard_links_and_holes_stay_holes() {
    for rule in [OwnerRule::Context, OwnerRule::Keep] {
        let mut world = World::with(&["x/y/b.txt", "x/z/"]);
        world.rule = rule;
        fs::hard_link(world.src("x/y/b.txt"), world.src("x/z/second")).unwrap();
        fs::hard_link(world.src("x/y/b.txt"), world.src("x/a-first")).unwrap();
        let file = fs::File::create(world.src("x/sparse")).unwrap();
        file.set_len(20 << 20).unwrap();
        (&file).write_all(b"start").unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"end", (20 << 20) - 3).unwrap();
        fs::write(world.src("x/big"), vec![7; 300_000]).unwrap();
        world.copy(&with_parents(&["x", "p"])).unwrap();
        world.copy(&copy(&["x/z", "alone"])).unwrap();
        let inode = |path: &str| world.dst(path).metadata().unwrap().ino();
        assert_eq!(inode("p/x/y/b.txt"), inode("p/x/z/second"));
        assert_eq!(inode("p/x/y/b.txt"), inode("p/x/a-first"));
        assert_eq!(fs::metadata(world.dst("alone/second")).unwrap().nlink(), 1);
        assert_eq!(fs::read(world.dst("p/x/big")).unwrap(), vec![7; 300_000]);
        assert_eq!(
            Digest::of(fs::read(world.dst("p/x/sparse")).unwrap()),
            Digest::of(fs::read(world.src("x/sparse")).unwrap())
        );
        let blocks = fs::metadata(world.dst("p/x/sparse")).unwrap().blocks();
        assert!(blocks * 512 < 10 << 20, "{rule:?}: {blocks} blocks");
    }
}

#[test]
fn only_file_capabilities_of_stages_are_kept() {
    let mut world = World::with(&["f", "d/f"]);
    let root = Root::open(world.src("")).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if root.set_xattr("d/f", "security.capability", &capability).is_err() {
        eprintln!("skipped: needs root to set file capabilities");
        return;
    }
    let _ = root.set_xattr("d/f", "user.note", b"x");
    let xattrs =
        |world: &World, path: &str| Root::open(world.dst("")).unwrap().list_xattrs(path).unwrap();
    let plain = world.select(&copy(&["d/f", "x"])).unwrap().digest();
    world.copy(&copy(&["d/f", "context"])).unwrap();
    assert_eq!(xattrs(&world, "context"), Vec::<OsString>::new());
    world.rule = OwnerRule::Keep;
    assert_ne!(world.select(&copy(&["d/f", "x"])).unwrap().digest(), plain);
    world.copy(&Copy { chown: Some("55:66".into()), ..copy(&["d", "stage"]) }).unwrap();
    assert_eq!(xattrs(&world, "stage/f"), ["security.capability"]);
}

#[test]
fn archives_are_unpacked_by_add_only() {
    let mut world = World::with(&["one", "two", "plain"]);
    world.archives = true;
    fs::write(world.src("one"), "archive1").unwrap();
    fs::write(world.src("two"), "archive2").unwrap();
    let add = |words: &[&str]| Copy { unpack: Unpack::Local, ..copy(words) };
    world.copy(&add(&["one", "two", "noslash"])).unwrap();
    world.copy(&add(&["*", "all/"])).unwrap();
    world.copy(&Copy { chown: Some("app".into()), ..add(&["one", "owned"]) }).unwrap();
    world.copy(&copy(&["one", "copied"])).unwrap();
    let found = world.found("");
    assert_eq!(
        names(&found).join(" "),
        "all all/archive1 all/archive2 all/plain copied noslash noslash/archive1 \
         noslash/archive2 owned owned/archive1"
    );
    assert_found(&found, &[("owned/archive1", "Some((1000, 1000))"), ("copied", "archive1")]);
}

#[test]
fn files_that_change_after_the_selection_are_told() {
    let world = World::with(&["d/a", "d/b", "f"]);
    let op = copy(&["d", "f", "t/"]);
    let selection = world.select(&op).unwrap();
    fs::write(world.src("d/b"), "edited meanwhile").unwrap();
    let applied = world.apply(&op, &selection).unwrap();
    assert!(applied.changed);
    assert_ne!(applied.digest, selection.digest());
    assert_eq!(applied.digest, world.select(&op).unwrap().digest());
    fs::remove_file(world.src("d/b")).unwrap();
    symlink("../../secret", world.src("d/b")).unwrap();
    assert!(matches!(world.apply(&op, &selection), Err(CopyError::Changed { .. })));
    fs::remove_file(world.src("d/b")).unwrap();
    assert!(matches!(world.apply(&op, &selection), Err(CopyError::Changed { .. })));
    fs::rename(world.src("d"), world.src("e")).unwrap();
    symlink("e", world.src("d")).unwrap();
    assert!(world.apply(&op, &selection).is_err(), "a directory became a link");
}

#[derive(Default)]
struct Remembered {
    digests: Mutex<std::collections::HashMap<FileStamp, Digest>>,
    hits: std::sync::atomic::AtomicUsize,
}

impl DigestCache for Remembered {
    fn get(&self, stamp: &FileStamp) -> Option<Digest> {
        let found = self.digests.lock().unwrap().get(stamp).copied();
        self.hits.fetch_add(usize::from(found.is_some()), std::sync::atomic::Ordering::Relaxed);
        found
    }

    fn insert(&self, stamp: FileStamp, digest: Digest) {
        self.digests.lock().unwrap().insert(stamp, digest);
    }
}

#[test]
fn known_digests_are_not_computed_again() {
    let world = World::with(&["d/a", "d/b", "d/c/d", "d/l -> a"]);
    let stamps = Remembered::default();
    let op = copy(&["d", "t"]);
    let first = world.select_with(&op, Some(&stamps)).unwrap();
    assert_eq!(stamps.digests.lock().unwrap().len(), 3);
    let second = world.select_with(&op, Some(&stamps)).unwrap();
    assert_eq!(stamps.hits.load(std::sync::atomic::Ordering::Relaxed), 3);
    assert_eq!(first.digest(), second.digest());
}

#[test]
fn names_of_any_bytes_are_copied() {
    let world = World::with(&["odd/"]);
    let strange: [&[u8]; 6] = [b"a\xff\xfeb", b"nl\nx", b"q'\"q", b"*", b"\\", b"-d "];
    for name in strange {
        fs::write(world.src("odd").join(OsString::from_vec(name.to_vec())), name).unwrap();
    }
    world.copy(&copy(&["odd", "all"])).unwrap();
    assert_eq!(fs::read_dir(world.dst("all")).unwrap().count(), strange.len());
    world.copy(&copy(&["odd/*", "some/"])).unwrap();
    assert_eq!(fs::read_dir(world.dst("some")).unwrap().count(), strange.len());
}

#[test]
fn a_cancelled_token_stops_both_halves() {
    let world = World::with(&["d/a"]);
    let op = copy(&["d", "t"]);
    let selection = world.select(&op).unwrap();
    let (root, cancel) = (Root::open(world.src("")).unwrap(), CancelToken::default());
    cancel.cancel();
    let tree_of = |_: &CopySource| Some(world.tree(&root, None));
    let selected = select(&op, &tree_of, &world.pool, &cancel);
    assert!(matches!(selected, Err(CopyError::Cancelled)));
    let to = Root::open(world.dst("")).unwrap();
    let target = Target {
        root: &to,
        lookup_owner: &|_| Ok((0, 0)),
        archives: None,
        ownership: Ownership::Leave,
        earlier: None,
    };
    let applied = apply(&op, &selection, &tree_of, &target, &world.pool, &cancel);
    assert!(matches!(applied, Err(CopyError::Cancelled)));
}
