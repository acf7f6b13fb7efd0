//! Contexts that are checkouts: whoever made them, and with whatever umask, they are the same.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rbuild::{BuildRequest, Built, ContextMode, Engine, EngineOptions, NamedContextInput};

use crate::support::{Place, build, ran};
use crate::tests;

tests![
    clones_with_other_umasks_share_the_cache,
    clones_with_other_umasks_give_the_same_image,
    what_a_process_makes_of_a_clone_is_the_same_too,
    mounts_of_a_clone_show_the_modes_of_its_key,
    a_directory_in_a_work_tree_has_its_own_modes_when_asked_for,
];

/// Time of the images, before that of any file of a clone.
const EPOCH: u64 = 1_000_000_000;

/// A clone of one repository as git makes it with this umask, `age` seconds ago.
fn clone(place: &Place, name: &str, umask: u32, age: u64) -> PathBuf {
    let root = place.path().join(name);
    for directory in ["", "app", "app/lib"] {
        fs_err::create_dir(root.join(directory)).unwrap();
    }
    let busybox = fs_err::read("/bin/busybox").unwrap();
    let files: [(&str, &[u8], u32); 5] = [
        (".dockerignore", b".git\n", 0o666),
        ("busybox", &busybox, 0o777),
        ("app/run", b"#!/bin/sh\necho hello\n", 0o777),
        ("app/lib/data", b"data", 0o666),
        ("Readme", b"text", 0o666),
    ];
    for (name, content, mode) in files {
        let path = root.join(name);
        fs_err::write(&path, content).unwrap();
        fs_err::set_permissions(&path, PermissionsExt::from_mode(mode & !umask)).unwrap();
    }
    std::os::unix::fs::symlink("run", root.join("app/start")).unwrap();
    let time = SystemTime::now() - Duration::from_secs(age);
    for name in files.map(|(name, ..)| name).into_iter().chain(["app/lib", "app", ""]) {
        let path = root.join(name);
        if path.is_dir() {
            fs_err::set_permissions(&path, PermissionsExt::from_mode(0o777 & !umask)).unwrap();
        }
        fs_err::File::open(path).unwrap().file().set_modified(time).unwrap();
    }
    fs_err::create_dir(root.join(".git")).unwrap();
    fs_err::write(root.join(".git/HEAD"), format!("a clone of {age} seconds")).unwrap();
    root
}

fn clones(place: &Place) -> [PathBuf; 2] {
    [clone(place, "laptop", 0o022, 86_400), clone(place, "ci", 0o077, 10)]
}

const COPIES: &str = "FROM scratch\n\
    COPY . /all\n\
    COPY --chmod=g+w app /app\n\
    COPY --parents app/lib/data /above/\n\
    ADD --link app/run /run\n";

fn request(context: &Path, text: &str) -> BuildRequest {
    BuildRequest::new(context).dockerfile_text(text).arg("SOURCE_DATE_EPOCH", EPOCH.to_string())
}

fn clones_with_other_umasks_share_the_cache() {
    let place = Place::new();
    let engine = place.engine();
    let [laptop, ci] = clones(&place);
    // Also without a fixed time, and by a part of the checkout.
    for (below, text) in [("", COPIES), ("app", "FROM scratch\nCOPY . /\n")] {
        let request = |clone: &Path| BuildRequest::new(clone.join(below)).dockerfile_text(text);
        assert_ne!(build(&engine, &request(&laptop)).executed, 0);
        assert_eq!(ran(&build(&engine, &request(&ci))), [""; 0]);
    }
}

/// What a store of its own makes of each clone.
fn in_two_stores(place: &Place, request: impl Fn(&Path) -> BuildRequest) -> [Built; 2] {
    let [laptop, ci] = clones(place);
    [(laptop, "first"), (ci, "second")].map(|(clone, store)| {
        let root = place.path().join(store);
        let engine = Engine::with_options(EngineOptions { root, ..place.options() }).unwrap();
        build(&engine, &request(&clone))
    })
}

fn clones_with_other_umasks_give_the_same_image() {
    let place = Place::new();
    let [one, other] = in_two_stores(&place, |clone| request(clone, COPIES));
    assert_eq!(other.executed, one.executed);
    assert_eq!(other.image, one.image);
}

fn what_a_process_makes_of_a_clone_is_the_same_too() {
    let place = Place::new();
    let text = "FROM scratch\nCOPY busybox /bin/\n\
        RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
        COPY app /app\n\
        RUN --mount=target=/context cp -rp /context/app /kept && stat -c %a /kept/* > /list\n\
        RUN /app/start > /said\n";
    let [one, other] = in_two_stores(&place, |clone| {
        let mut request = request(clone, text);
        request.options.rewrite_timestamps = Some(true);
        request
    });
    assert_eq!(other.executed, one.executed);
    assert_eq!(other.image, one.image);
}

/// Steps that have a shell, and the context at `/m`.
fn shown(script: &str) -> String {
    format!(
        "FROM scratch\nCOPY --chmod=755 busybox /bin/\n\
         RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         USER 1000\n\
         RUN --mount=target=/m {script}\n"
    )
}

fn mounts_of_a_clone_show_the_modes_of_its_key() {
    let place = Place::new();
    let engine = place.engine();
    let [laptop, ci] = clones(&place);
    let modes = "test \"$(stat -c %a /m /m/app /m/app/run /m/Readme | tr '\\n' ' ')\" = \
                 '755 755 755 644 ' && cat /m/Readme && /m/app/start";
    let request = |clone: &Path| BuildRequest::new(clone).dockerfile_text(shown(modes));
    build(&engine, &request(&ci));
    assert_eq!(ran(&build(&engine, &request(&laptop))), [""; 0]);
}

fn a_directory_in_a_work_tree_has_its_own_modes_when_asked_for() {
    let place = Place::new();
    let engine = place.engine();
    let [_, ci] = clones(&place);
    let modes = |of: &str, expected: &str| {
        shown("true")
            + &format!("RUN --mount={of}target=/n [ $(stat -c %a /n/Readme) = {expected} ]\n")
    };
    let mut request = BuildRequest::new(&ci).dockerfile_text(modes("", "600"));
    request.context_mode = Some(ContextMode::Plain);
    build(&engine, &request);
    // Each directory is asked by itself whether it lies in a work tree.
    fs_err::remove_dir_all(ci.join(".git")).unwrap();
    build(&engine, &BuildRequest::new(&ci).dockerfile_text(modes("", "600")));
    let named = NamedContextInput::Directory(clone(&place, "named", 0o077, 5));
    let text = modes("from=named,", "644");
    build(&engine, &BuildRequest::new(&ci).dockerfile_text(text).build_context("named", named));
    let mut request = BuildRequest::new(&ci).dockerfile_text(modes("", "644"));
    request.context_mode = Some(ContextMode::Git);
    build(&engine, &request);
}
