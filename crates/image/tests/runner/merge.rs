//! Layers that are made one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rbuild_image::layer::{Below, TreeForm, list, merge_layers};
use rbuild_rooted::{FileKind, Follow, NewDirs, Root, Time};
use rbuild_types::CancelToken;

use crate::support::temp;

/// What a layer says of a path.
#[derive(Debug, Clone)]
enum Says {
    File(u8),
    Directory { mode: u32, is_opaque: bool },
    Gone,
}

/// Paths of up to three names out of three, so that layers meet.
fn path() -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..=3)
        .prop_map(|names| names.iter().collect())
}

fn says() -> impl Strategy<Value = Says> {
    prop_oneof![
        3 => any::<u8>().prop_map(Says::File),
        3 => (prop::sample::select(vec![0o755, 0o711, 0o700]), prop::bool::weighted(0.3))
            .prop_map(|(mode, is_opaque)| Says::Directory { mode, is_opaque }),
        2 => Just(Says::Gone),
    ]
}

fn layer() -> impl Strategy<Value = BTreeMap<PathBuf, Says>> {
    prop::collection::btree_map(path(), says(), 0..8)
}

/// Writes a layer, but for what lies below something that is no directory.
fn write(layer: &BTreeMap<PathBuf, Says>, root: &Root) {
    for (path, says) in layer {
        let parent = path.parent().unwrap();
        let new = NewDirs { mode: 0o755, owner: None };
        if root.create_dir_all(parent, new).is_err() {
            continue;
        }
        match says {
            Says::File(content) => {
                let mut file = root.create_file(path, 0o640).unwrap();
                std::io::Write::write_all(&mut file, &[*content]).unwrap();
            }
            Says::Directory { mode, is_opaque } => {
                root.create_dir(path, NewDirs { mode: *mode, owner: None }).unwrap();
                if *is_opaque {
                    root.set_xattr(path, "user.overlay.opaque", b"y").unwrap();
                }
                let time = Time { sec: i64::from(*mode), nsec: 0 };
                root.set_times(path, time, time).unwrap();
            }
            Says::Gone => root.mknod(path, FileKind::CharDevice, 0, 0).unwrap(),
        }
    }
}

/// What layers show together, the bottom one first: of a file its content, of a directory its mode.
fn shown(layers: &[&Root]) -> BTreeMap<PathBuf, String> {
    let mut shown = BTreeMap::new();
    for layer in layers {
        lay(layer, Path::new(""), &mut shown);
    }
    shown
}

fn lay(layer: &Root, path: &Path, shown: &mut BTreeMap<PathBuf, String>) {
    let dir = if path == Path::new("") { layer.try_clone() } else { layer.enter(path) };
    let listing = list(&dir.unwrap(), TreeForm::Overlay).unwrap();
    if listing.is_opaque {
        shown.retain(|other, _| other == path || !other.starts_with(path));
    }
    for entry in listing.names {
        let path = path.join(&entry.name);
        let remove_all = |shown: &mut BTreeMap<PathBuf, String>| {
            shown.retain(|other, _| !other.starts_with(&path));
        };
        match entry.file {
            None => remove_all(shown),
            Some(found) if found.is_dir() => {
                if shown.get(&path).is_some_and(|what| !what.starts_with("directory")) {
                    remove_all(shown);
                }
                shown.insert(path.clone(), format!("directory {:o}", found.mode));
                lay(layer, &path, shown);
            }
            Some(found) => {
                remove_all(shown);
                let content = layer.read_small(&path, 10).unwrap();
                shown.insert(path, format!("file {content:?} {:o}", found.mode));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn one_layer_shows_what_many_did(layers in prop::collection::vec(layer(), 1..5), base in layer()) {
        let (bottom, merged, whole) = (temp(), temp(), temp());
        write(&base, &bottom.root);
        let trees: Vec<_> = layers.iter().map(|layer| {
            let tree = temp();
            write(layer, &tree.root);
            tree
        }).collect();
        let roots = || trees.iter().map(|tree| tree.root.try_clone().unwrap()).collect::<Vec<_>>();
        let cancel = CancelToken::default();
        merge_layers(&roots(), Below::Layers, &merged.root, &cancel).unwrap();
        let many: Vec<_> = std::iter::once(&bottom).chain(&trees).map(|tree| &tree.root).collect();
        prop_assert_eq!(shown(&[&bottom.root, &merged.root]), shown(&many));
        // Without anything below nothing need be said of what is gone.
        merge_layers(&roots(), Below::Nothing, &whole.root, &cancel).unwrap();
        prop_assert_eq!(shown(&[&whole.root]), shown(&many[1..]));
        let mut waiting = vec![PathBuf::new()];
        while let Some(path) = waiting.pop() {
            for entry in whole.root.read_dir(&path).unwrap() {
                let path = path.join(&entry.name);
                let found = whole.root.stat(&path, Follow::No).unwrap().unwrap();
                prop_assert!(found.kind != FileKind::CharDevice, "{:?}", path);
                if found.is_dir() {
                    waiting.push(path);
                }
            }
        }
    }
}
