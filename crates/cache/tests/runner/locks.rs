use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rbuild_cache::{CacheError, Hold, Origin};
use rbuild_types::{CancelToken, Digest};

use crate::{child, names, store};

#[test]
fn processes_that_need_one_step_compute_it_once() {
    let (_directory, store) = store();
    let children: Vec<_> = (0..4).map(|_| child::start("compute", store.root())).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(names(&store, "logs").len(), 1);
    assert!(!names(&store, "locks").iter().any(|name| name.starts_with("step-")));
}

#[test]
fn a_store_can_be_made_by_several_at_once() {
    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    let store = rbuild_cache::Store::open(&root).unwrap();
                    crate::record(&store, "step", None);
                });
            }
        });
    }
}

#[test]
fn threads_exclude_each_other_and_the_lock_file_goes() {
    let (_directory, store) = store();
    let (inside, runs) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let cancel = CancelToken::default();
                    let _lock = store.step_lock(&Digest::of("step"), &cancel).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    runs.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(runs.into_inner(), 160);
    assert_eq!(names(&store, "locks"), ["gc.lock"]);
}

/// A lock on a file that its former holder has removed locks nobody out.
#[test]
fn a_lock_of_a_removed_file_does_not_count() {
    let (_directory, store) = store();
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3000 {
                    if let Some(_lock) = store.try_step_lock(&Digest::of("step")).unwrap() {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
}

#[test]
fn waiting_ends_with_the_cancellation() {
    let (_directory, store) = store();
    let _held = store.try_step_lock(&Digest::of("step")).unwrap().unwrap();
    let cancel = CancelToken::default();
    let clone = cancel.clone();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        clone.cancel();
    });
    let started = Instant::now();
    let refused = store.step_lock(&Digest::of("step"), &cancel).unwrap_err();
    assert!(matches!(refused, CacheError::Cancelled(_)), "{refused}");
    assert!(started.elapsed() < Duration::from_secs(5));
    canceller.join().unwrap();
    assert!(store.try_step_lock(&Digest::of("other")).unwrap().is_some());
}

#[test]
fn what_is_known_of_a_volume_goes_with_whoever_takes_it() {
    let (_directory, store) = store();
    let cancel = CancelToken::default();
    let take = || store.volumes().take("cache-1", Hold::Alone, &cancel).unwrap();
    let origin = |place: &str, published| {
        let (place, list) = (place.to_owned(), Digest::of("list"));
        Origin { place, list, published }
    };
    let both = [origin("a", false), origin("b", true)];
    take().set_origins(&both).unwrap();
    // Who only looks leaves it, who changes nothing puts it back.
    assert_eq!(store.volumes().origins("cache-1").unwrap(), both);
    let held = take();
    assert_eq!(held.origins(), both);
    assert_eq!(store.volumes().origins("cache-1").unwrap(), []);
    held.set_origins(held.origins()).unwrap();
    drop(held);
    let publish = |list| store.volumes().note_published("cache-1", "a", &list).unwrap();
    publish(Digest::of("another"));
    publish(Digest::of("list"));
    assert_eq!(take().origins(), [origin("a", true), origin("b", true)]);
    // Who uses it does not, and nobody else knows better.
    publish(Digest::of("list"));
    assert_eq!(take().origins(), []);
}
