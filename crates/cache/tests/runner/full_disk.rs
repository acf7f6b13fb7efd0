use std::process::Command;

use rbuild_cache::{CacheError, Store};
use rbuild_types::Digest;

use crate::{child, record};

/// Fills the file system of the store in several ways; the child's part.
pub fn fill(store: &Store) {
    let kept = store.blobs().put(b"from before").unwrap();
    let ballast = store.scratch("ballast").unwrap();
    for free in [0, 8, 20, 36, 60] {
        fs_err::write(ballast.path().join("spare"), vec![1; free << 10]).unwrap();
        let mut bytes = 64 << 10;
        for number in 0.. {
            let name = ballast.path().join(format!("{free}-{number}"));
            if fs_err::write(&name, vec![1; bytes]).is_err() {
                fs_err::remove_file(&name).unwrap();
                match bytes {
                    4096 => break,
                    _ => bytes /= 2,
                }
            }
        }
        fs_err::remove_file(ballast.path().join("spare")).unwrap();
        let blobs = store.blobs().list().unwrap().len();
        let error = store.blobs().put(&vec![free as u8; 100_000]).unwrap_err();
        assert_full(&error);
        assert_eq!(store.blobs().list().unwrap().len(), blobs);
        let name = "x".repeat(20_000);
        let inputs = serde_json::Value::Null;
        let failed = (0..).find_map(|number| {
            let key = format!("{free} {number}");
            let mut record =
                rbuild_cache::StepRecord::new(Digest::of(key), "run", &name, inputs.clone());
            record.duration_ms = number;
            store.records().put(&record).err()
        });
        assert_full(&failed.unwrap());
        assert_eq!(store.blobs().read_small(&kept, 100).unwrap(), b"from before");
        for name in fs_err::read_dir(ballast.path()).unwrap() {
            fs_err::remove_file(name.unwrap().path()).unwrap();
        }
        store.blobs().put(&vec![free as u8; 10_000]).unwrap();
        record(store, "after", None);
        store.sync().unwrap();
        store.records().list().unwrap().iter().for_each(|record| {
            store.records().remove(&record.key).unwrap();
        });
    }
    println!("filled");
}

fn assert_full(error: &CacheError) {
    assert!(matches!(error, CacheError::NoSpace { .. }), "{error}: {error:?}");
    assert!(error.to_string().contains("no space left"), "{error}");
}

#[test]
fn a_full_disk_is_named_and_the_store_goes_on_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=2m none \"$1\" && shift && exec \"$@\"";
    let own_mounts = |command: &[&std::ffi::OsStr]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["-rm", "sh", "-c", script, "sh"]).arg(directory.path()).args(command);
        unshare
    };
    let works = own_mounts(&["true".as_ref()]).output().is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("skipped: needs root or user namespaces, for a small tmpfs");
        return;
    }
    let executable = std::env::current_exe().unwrap();
    let mut command = own_mounts(&[executable.as_os_str()]);
    let child = child::start_by(&mut command, "fill", &directory.path().join("store"));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("filled"), "{text}");
    assert!(!directory.path().join("store").exists());
}
