//! A copy that takes unchanged files from an earlier one gives the tree that it would give alone.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rbuild_image::layer::{PackOptions, pack};
use rbuild_plan::op::{Copy, CopySource};
use rbuild_rooted::{Root, Time};
use rbuild_solver::copy::{
    CopyError, Earlier, Listing, OwnerRule, Ownership, SourceTree, Target, apply, select,
};
use rbuild_types::{CancelToken, Digest};
use tempfile::TempDir;

const PATHS: [&str; 6] = ["a", "b", "d/a", "d/b", "d/e/c", "e/a"];

/// A file of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Made {
    content: u8,
    mode: u32,
    mtime: i64,
    /// Files of one group are one file with several names.
    group: Option<u8>,
}

type Tree = BTreeMap<&'static str, Made>;

fn tree() -> impl Strategy<Value = Tree> {
    let mode = prop::sample::select(vec![0o644, 0o755]);
    let group = prop_oneof![3 => Just(None), 1 => (0u8..2).prop_map(Some)];
    let made = (0u8..2, mode, 1i64..3, group);
    let made = made.prop_map(|(content, mode, mtime, group)| Made { content, mode, mtime, group });
    prop::collection::btree_map(prop::sample::select(PATHS.to_vec()), made, 0..6)
}

/// What is in the destination before.
fn lower() -> impl Strategy<Value = &'static [&'static str]> {
    prop::sample::select(vec![
        &[] as &[&str],
        &["app/a", "app/d/x"],
        &["app/a -> b", "app/d/b -> ../a"],
        &["app/b/"],
        &["srv/", "app -> srv"],
    ])
}

struct World {
    temp: TempDir,
    pool: rayon::ThreadPool,
    op: Copy,
}

impl World {
    fn new() -> Self {
        let temp = TempDir::new().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let sources = vec![CopySource::Context { context: None, path: "/".to_owned() }];
        let op = Copy { has_root: true, created: Some(5), ..Copy::plain(sources, "/app") };
        Self { temp, pool, op }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Makes the context `name`.
    fn context(&self, name: &str, tree: &Tree) {
        let top = self.path(name);
        fs::create_dir(&top).unwrap();
        let mut groups = BTreeMap::new();
        for (path, made) in tree {
            let file = top.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            if let Some(first) = made.group.and_then(|group| groups.get(&group)) {
                fs::hard_link(first, &file).unwrap();
                continue;
            }
            fs::write(&file, [made.content; 3]).unwrap();
            fs::set_permissions(&file, PermissionsExt::from_mode(made.mode)).unwrap();
            let time = Time { sec: made.mtime, nsec: 7 };
            Root::open(&top).unwrap().set_times(path, time, time).unwrap();
            made.group.map(|group| groups.insert(group, file));
        }
        for dir in ["d/e", "d", "e"].iter().filter(|dir| top.join(dir).is_dir()) {
            let time = Time { sec: 9, nsec: 0 };
            Root::open(&top).unwrap().set_times(dir, time, time).unwrap();
        }
    }

    /// Makes a destination.
    fn destination(&self, name: &str, lower: &[&str]) -> Root {
        let top = self.path(name);
        fs::create_dir(&top).unwrap();
        for file in lower {
            let name = file.split(" -> ").next().unwrap();
            let parent = top.join(name.trim_end_matches('/'));
            fs::create_dir_all(parent.parent().unwrap()).unwrap();
            match file.split_once(" -> ") {
                Some((link, target)) => symlink(target, top.join(link)).unwrap(),
                None if file.ends_with('/') => fs::create_dir(top.join(file)).unwrap(),
                None => fs::write(top.join(file), "lower").unwrap(),
            }
        }
        let root = Root::open(top).unwrap();
        let time = Time { sec: 3, nsec: 0 };
        for path in lower.iter().map(|file| Path::new(file.split(" -> ").next().unwrap())) {
            for path in path.ancestors().filter(|path| path.parent().is_some()) {
                root.set_times(path, time, time).unwrap();
            }
        }
        root
    }

    /// Copies a context, with what an earlier copy left.
    fn copy(
        &self,
        context: &str,
        into: &Root,
        earlier: Option<(&Root, &Listing)>,
    ) -> Result<Listing, CopyError> {
        let from = Root::open(self.path(context)).unwrap();
        let tree_of = |_: &CopySource| {
            let (ignore, owner) = (None, OwnerRule::Context);
            let name = "context".to_owned();
            Some(SourceTree { root: &from, ignore, ignore_file: "", name, owner, stamps: None })
        };
        let cancel = CancelToken::default();
        let selection = select(&self.op, &tree_of, &self.pool, &cancel)?;
        let earlier = earlier.and_then(|(tree, listing)| Earlier::new(tree, listing));
        let target = Target {
            root: into,
            lookup_owner: &|_| Ok((0, 0)),
            archives: None,
            ownership: Ownership::Set,
            earlier: earlier.as_ref(),
        };
        let applied = apply(&self.op, &selection, &tree_of, &target, &self.pool, &cancel)?;
        assert_eq!(applied.digest, selection.digest());
        if let Some(earlier) = &earlier {
            applied.left.lay(into, earlier, &self.pool, &cancel)?;
        }
        Ok(Listing::new(&selection, &applied).unwrap())
    }
}

fn packed(tree: &Root) -> Digest {
    let cancel = CancelToken::default();
    pack(tree, &PackOptions::default(), &mut std::io::sink(), &cancel).unwrap().diff_id
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: needs root to set owners");
    }
    is_root
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_tree_does_not_show_what_it_shares(
        trees in prop::collection::vec(tree(), 2..4),
        lowers in prop::collection::vec(lower(), 4),
        chmod in prop::option::of(prop::sample::select(vec!["600", "u+x"])),
    ) {
        if !is_root() {
            return Ok(());
        }
        let mut world = World::new();
        let mut earlier: Vec<(Root, Listing, Digest)> = Vec::new();
        for (round, tree) in trees.iter().enumerate() {
            world.op.chmod = chmod.filter(|_| round > 0).map(str::to_owned);
            let (context, lower) = (format!("context{round}"), lowers[round]);
            world.context(&context, tree);
            let alone = world.destination(&format!("alone{round}"), lower);
            let sharing = world.destination(&format!("sharing{round}"), lower);
            let known = earlier.last().map(|(tree, listing, _)| (tree, listing));
            match (world.copy(&context, &alone, None), world.copy(&context, &sharing, known)) {
                (Err(one), Err(other)) => prop_assert_eq!(one.to_string(), other.to_string()),
                (Ok(one), Ok(other)) => {
                    prop_assert_eq!(&one, &other);
                    prop_assert_eq!(packed(&alone), packed(&sharing));
                    let digest = packed(&sharing);
                    earlier.push((sharing, other, digest));
                }
                (one, other) => prop_assert!(false, "{one:?} but {other:?}"),
            }
        }
        for (tree, _, digest) in &earlier {
            prop_assert_eq!(packed(tree), *digest, "an earlier tree has changed");
        }
    }
}

/// Three copies: of a tree, of it with what `change` does, and what the second shares.
fn shared_after(change: impl FnOnce(&mut Tree)) -> Vec<&'static str> {
    let world = World::new();
    let made = Made { content: 1, mode: 0o644, mtime: 1, group: None };
    let mut tree: Tree = PATHS.map(|path| (path, made)).into();
    world.context("one", &tree);
    let first = world.destination("first", &[]);
    let listing = world.copy("one", &first, None).unwrap();
    change(&mut tree);
    world.context("two", &tree);
    let second = world.destination("second", &[]);
    world.copy("two", &second, Some((&first, &listing))).unwrap();
    let same = |path: &&str| {
        let (one, two) = (world.path("first/app").join(path), world.path("second/app").join(path));
        two.exists() && inode(&one) == inode(&two)
    };
    PATHS.into_iter().filter(same).collect()
}

#[test]
fn only_what_is_the_same_in_all_respects_is_shared() {
    if !is_root() || can_clone() {
        return;
    }
    let all = |without: &[&str]| -> Vec<_> {
        PATHS.into_iter().filter(|path| !without.contains(path)).collect()
    };
    assert_eq!(shared_after(|_| {}), PATHS);
    assert_eq!(shared_after(|tree| tree.get_mut("d/a").unwrap().content = 2), all(&["d/a"]));
    assert_eq!(shared_after(|tree| tree.get_mut("d/a").unwrap().mode = 0o755), all(&["d/a"]));
    assert_eq!(shared_after(|tree| tree.get_mut("d/a").unwrap().mtime = 2), all(&["d/a"]));
    assert_eq!(shared_after(|tree| tree.retain(|path, _| *path != "d/a")), all(&["d/a"]));
    let link = |tree: &mut Tree| {
        for path in ["a", "d/a"] {
            tree.get_mut(path).unwrap().group = Some(1);
        }
    };
    assert_eq!(shared_after(link), all(&["a", "d/a"]));
}

/// Where the file system shares blocks, inodes stay apart.
fn can_clone() -> bool {
    let temp = TempDir::new().unwrap();
    let (one, two) = (temp.path().join("one"), temp.path().join("two"));
    fs::write(&one, "x").unwrap();
    let clones =
        rustix::fs::ioctl_ficlone(fs::File::create(two).unwrap(), fs::File::open(one).unwrap());
    clones.is_ok()
}

#[test]
fn an_earlier_tree_that_was_tampered_with_is_not_believed() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let made = Made { content: 1, mode: 0o644, mtime: 1, group: None };
    world.context("context", &PATHS.map(|path| (path, made)).into());
    let first = world.destination("first", &[]);
    let listing = world.copy("context", &first, None).unwrap();
    let alone = packed(&first);
    let tampered = |path: &str| world.path("first/app").join(path);
    fs::write(tampered("a"), "longer than it was").unwrap();
    fs::set_permissions(tampered("b"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::remove_file(tampered("d/a")).unwrap();
    fs::remove_file(tampered("d/b")).unwrap();
    symlink("/etc/passwd", tampered("d/b")).unwrap();
    fs::remove_dir_all(tampered("d/e")).unwrap();
    symlink("/etc", tampered("d/e")).unwrap();
    let second = world.destination("second", &[]);
    world.copy("context", &second, Some((&first, &listing))).unwrap();
    assert_eq!(packed(&second), alone);
}
