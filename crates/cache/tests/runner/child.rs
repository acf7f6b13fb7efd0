//! This test binary, started once more as another process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rbuild_cache::{Space, SpaceLimits, Store};
use rbuild_types::{CancelToken, Digest};

/// Starts the child; it plays `role` on the store at `root`.
pub fn start(role: &str, root: &Path) -> Child {
    start_by(&mut Command::new(std::env::current_exe().unwrap()), role, root)
}

/// [`start`] by a command that runs its arguments.
pub fn start_by(command: &mut Command, role: &str, root: &Path) -> Child {
    command
        .args(["--exact", "child::play", "--nocapture"])
        .env("RBUILD_CACHE_ROLE", role)
        .env("RBUILD_CACHE_ROOT", root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the child's line `word`; returns what stands after it.
pub fn wait_for(child: &mut Child, word: &str) -> String {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let line = lines.find_map(|line| {
        let line = line.unwrap();
        line.find(word).map(|at| line[at + word.len()..].trim().to_owned())
    });
    line.unwrap_or_else(|| panic!("the child never said {word}"))
}

/// Kills the child as `kill -9` does and waits for its end.
pub fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn say(text: &str) {
    println!("{text}");
    std::io::stdout().flush().unwrap();
}

/// The child's part; passes at once in an ordinary run.
#[test]
fn play() {
    let Some(role) = std::env::var_os("RBUILD_CACHE_ROLE") else { return };
    let store = Store::open(std::env::var_os("RBUILD_CACHE_ROOT").unwrap()).unwrap();
    let forever = || std::thread::sleep(std::time::Duration::from_secs(100));
    match role.to_str().unwrap() {
        "blob" => {
            let mut writer = store.blobs().writer(&CancelToken::default()).unwrap();
            writer.write_all(&[7; 100_000]).unwrap();
            let tree = store.snapshots().allocate("run", &CancelToken::default()).unwrap();
            fs_err::create_dir_all(tree.path().join("a/b")).unwrap();
            let _lock = store.try_step_lock(&Digest::of("held")).unwrap().unwrap();
            let _lease = store.lease().unwrap();
            say("ready");
            forever();
        }
        "build" => {
            let _lease = store.lease().unwrap();
            let used = store.records().get(&Digest::of("used")).unwrap().unwrap();
            assert!(used.snapshot.is_some());
            let new = crate::snapshot(&store, None, None);
            let blob = store.blobs().put(b"a new blob").unwrap();
            say(&format!("ready {new} {blob}"));
            forever();
        }
        "churn below a limit" => {
            // Less than what the rounds make, so that every one takes from others.
            let max_used = Some(Space::Bytes(600_000));
            store.limit(SpaceLimits { max_used, ..SpaceLimits::default() });
            crate::kill::churn(&store);
        }
        "churn" => crate::kill::churn(&store),
        "fill" => crate::full_disk::fill(&store),
        "compute" => {
            let key = Digest::of("shared step");
            let _lock = store.step_lock(&key, &CancelToken::default()).unwrap();
            if store.records().get(&key).unwrap().is_none() {
                // Whoever computes leaves a file; two would be two computations.
                std::thread::sleep(std::time::Duration::from_millis(50));
                let name = format!("ran-{}", std::process::id());
                fs_err::write(store.root().join("logs").join(name), "").unwrap();
                crate::record(&store, "shared step", None);
            }
        }
        other => panic!("unknown role {other}"),
    }
}
