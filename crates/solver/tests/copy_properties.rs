//! What holds of every copy: nothing outside its trees is read or written, and its digest is
//! that of the files and of nothing else.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use rbuild_parser::ignore_file::Patterns;
use rbuild_plan::op::{Copy, CopySource};
use rbuild_rooted::{Root, Time};
use rbuild_solver::copy::{OwnerRule, Ownership, Selection, SourceTree, Target, apply, select};
use rbuild_types::{CancelToken, Digest};
use tempfile::TempDir;

fn op(sources: Vec<String>, destination: &str) -> Copy {
    let sources =
        sources.into_iter().map(|path| CopySource::Context { context: None, path }).collect();
    Copy { has_root: true, into_directory: true, ..Copy::plain(sources, destination) }
}

fn pool() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap()
}

fn tree<'a>(root: &'a Root, ignore: Option<&'a Patterns>, owner: OwnerRule) -> SourceTree<'a> {
    SourceTree { root, ignore, ignore_file: "", name: "context".into(), owner, stamps: None }
}

fn selected(root: &Root, op: &Copy, owner: OwnerRule) -> Selection {
    let tree_of = |_: &CopySource| Some(tree(root, None, owner));
    select(op, &tree_of, &pool(), &CancelToken::default()).unwrap()
}

/// One file and everything about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct One {
    name: String,
    body: Body,
    mode: u32,
    owner: (u32, u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    File(Vec<u8>),
    Link(String),
    Directory,
    Pipe,
}

fn one() -> impl Strategy<Value = One> {
    let body = prop_oneof![
        prop::collection::vec(0u8..3, 0..3).prop_map(Body::File),
        "[ab]{1,2}".prop_map(Body::Link),
        Just(Body::Directory),
        Just(Body::Pipe),
    ];
    let mode = prop::sample::select(vec![0o644, 0o755, 0o4755, 0o600]);
    ("[ab]{1,2}", body, mode, (0u32..2, 0u32..2)).prop_map(|(name, body, mode, owner)| {
        // A link has no mode of its own.
        let mode = if matches!(body, Body::Link(_)) { 0o777 } else { mode };
        One { name, body, mode, owner }
    })
}

impl One {
    fn make(&self, mtime: i64) -> (TempDir, Root) {
        let temp = TempDir::new().unwrap();
        let root = Root::open(temp.path()).unwrap();
        let path = temp.path().join(&self.name);
        match &self.body {
            Body::File(bytes) => fs::write(&path, bytes).unwrap(),
            Body::Link(target) => symlink(target, &path).unwrap(),
            Body::Directory => fs::create_dir(&path).unwrap(),
            Body::Pipe => {
                root.mknod(&self.name, rbuild_rooted::FileKind::Fifo, self.mode, 0).unwrap();
            }
        }
        if rustix::process::geteuid().is_root() {
            root.set_owner(&self.name, self.owner.0, self.owner.1).unwrap();
        }
        root.set_mode(&self.name, self.mode).unwrap();
        let time = Time { sec: mtime, nsec: 0 };
        root.set_times(&self.name, time, time).unwrap();
        (temp, root)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn digests_are_equal_exactly_when_the_files_are(a in one(), b in one(), times in any::<(i32, i32)>()) {
        if !rustix::process::geteuid().is_root() && a.owner != b.owner {
            eprintln!("skipped: needs root to change owners");
            return Ok(());
        }
        let digest = |one: &One, time: i32, rule| {
            let (_temp, root) = one.make(i64::from(time));
            selected(&root, &op(vec!["/".into()], "/"), rule).digest()
        };
        let kept = |one, time| digest(one, time, OwnerRule::Keep);
        prop_assert_eq!(kept(&a, times.0), kept(&a, times.1), "times do not count");
        prop_assert_eq!(kept(&a, times.0) == kept(&b, times.1), a == b);
        // Of a context owners do not count either.
        let context = |one, time| digest(one, time, OwnerRule::Context);
        let same = One { owner: a.owner, ..b.clone() } == a;
        prop_assert_eq!(context(&a, times.0) == context(&b, times.1), same);
    }
}

#[test]
fn octal_chmod_and_chown_hide_what_they_override() {
    let temp = TempDir::new().unwrap();
    let root = Root::open(temp.path()).unwrap();
    fs::write(temp.path().join("f"), "x").unwrap();
    let plain = op(vec!["/f".into()], "/");
    let octal = Copy { chmod: Some("755".into()), ..plain.clone() };
    let digest = |op: &Copy| selected(&root, op, OwnerRule::Context).digest();
    let mut seen = Vec::new();
    for mode in [0o644, 0o600] {
        fs::set_permissions(temp.path().join("f"), PermissionsExt::from_mode(mode)).unwrap();
        seen.push((digest(&plain), digest(&octal)));
    }
    assert_ne!(seen[0].0, seen[1].0);
    assert_eq!(seen[0].1, seen[1].1);
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "c", "up", "abs", "in", ".."]).prop_map(Into::into),
        1 => "[a-c*?\\[\\]\\\\.!-]{1,4}",
        1 => Just("**".to_owned()),
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 0..4).prop_map(|names| format!("/{}", names.join("/")))
}

/// `outside/secret` beside two trees with links that would like to reach it.
fn hostile(links: &[(String, u8)]) -> TempDir {
    let temp = TempDir::new().unwrap();
    let base = temp.path();
    fs::create_dir(base.join("outside")).unwrap();
    fs::write(base.join("outside/secret"), "the secret").unwrap();
    for side in ["src", "dst"] {
        fs::create_dir_all(base.join(side).join("a/b")).unwrap();
        fs::write(base.join(side).join("a/b/c"), "inside").unwrap();
        fs::write(base.join(side).join("c"), "inside").unwrap();
        symlink("../outside", base.join(side).join("up")).unwrap();
        symlink(base.join("outside"), base.join(side).join("abs")).unwrap();
        symlink("/a", base.join(side).join("in")).unwrap();
        let root = Root::open(base.join(side)).unwrap();
        for (path, kind) in links {
            let target = match kind {
                0 => "../../../outside/secret".to_owned(),
                1 => "..".to_owned(),
                2 => base.join("outside").display().to_string(),
                _ => "/proc/self/root".to_owned(),
            };
            let _ = root.symlink(target, path);
        }
    }
    temp
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn copies_stay_in_their_trees(
        links in prop::collection::vec((path(), 0u8..4), 0..5),
        sources in prop::collection::vec(path(), 1..3),
        destination in path(),
        into_directory in any::<bool>(),
        parents in any::<bool>(),
        ignore in prop::collection::vec(path(), 0..3),
        exclude in prop::option::of("[!]?[abc*?/]{1,5}"),
    ) {
        let temp = hostile(&links);
        let (from, to) =
            (Root::open(temp.path().join("src")).unwrap(), Root::open(temp.path().join("dst")).unwrap());
        let op = Copy {
            into_directory,
            parents,
            exclude: exclude.into_iter().collect(),
            ..op(sources, &destination)
        };
        let (ignore, _) = Patterns::parse(&ignore.join("\n"));
        let (pool, cancel) = (pool(), CancelToken::default());
        let tree_of = |_: &CopySource| Some(tree(&from, Some(&ignore), OwnerRule::Context));
        if let Ok(selection) = select(&op, &tree_of, &pool, &cancel) {
            let secret = Digest::of("the secret");
            prop_assert!(selection.inputs().iter().all(|input| input.digest != Some(secret)));
            let target = Target {
                root: &to,
                lookup_owner: &|_| Ok((0, 0)),
                archives: None,
                ownership: Ownership::Leave,
                earlier: None,
            };
            if let Ok(applied) = apply(&op, &selection, &tree_of, &target, &pool, &cancel) {
                prop_assert!(!applied.changed);
                prop_assert_eq!(applied.digest, selection.digest());
            }
        }
        let outside: Vec<_> = fs::read_dir(temp.path().join("outside")).unwrap().collect();
        prop_assert_eq!(outside.len(), 1);
        prop_assert_eq!(fs::read(temp.path().join("outside/secret")).unwrap(), b"the secret");
        prop_assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 3);
    }
}

/// Row 30 of the threat register: a directory of the context is swapped for a link to the
/// outside, over and over, while it is selected and copied.
#[test]
fn a_directory_that_is_swapped_for_a_link_leaks_nothing() {
    let temp = hostile(&[]);
    let base = temp.path();
    fs::create_dir(base.join("src/spare")).unwrap();
    fs::write(base.join("src/spare/secret"), "harmless").unwrap();
    symlink("../outside", base.join("src/evil")).unwrap();
    let from = Root::open(base.join("src")).unwrap();
    let (pool, cancel, stop) = (pool(), CancelToken::default(), AtomicBool::new(false));
    let tree_of = |_: &CopySource| Some(tree(&from, None, OwnerRule::Context));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for name in ["spare", "evil"] {
                    let _ = from.rename(name, "d");
                    let _ = from.rename("d", name);
                }
            }
        });
        for round in 0..400 {
            let destination = base.join(format!("dst/{round}"));
            fs::create_dir(&destination).unwrap();
            let to = Root::open(&destination).unwrap();
            let source = ["/", "/d", "/d/secret", "/*/secret"][round % 4];
            let op = op(vec![source.into()], "/");
            let Ok(selection) = select(&op, &tree_of, &pool, &cancel) else { continue };
            let target = Target {
                root: &to,
                lookup_owner: &|_| Ok((0, 0)),
                archives: None,
                ownership: Ownership::Leave,
                earlier: None,
            };
            let _ = apply(&op, &selection, &tree_of, &target, &pool, &cancel);
            for leak in ["d/secret", "secret"] {
                let path = destination.join(leak);
                if path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
                    // While it is being written it is empty, and stays so if its source vanished.
                    assert_ne!(fs::read(path).unwrap(), b"the secret");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
