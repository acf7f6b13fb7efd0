//! `COPY --link`: layers that are made upon nothing and moved without being made again.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rbuild::{
    BuildRequest, Built, CancelToken, Engine, Event, NamedContextInput, Output, Progress,
    PruneOptions, Silent, StepId,
};
use rustix::fs::inotify;
use serde_json::Value;

use crate::exported::Exported;
use crate::support::{BASE_STEPS, Place, build, build_error, explain, id, prune_nameless, ran};
use crate::tests;
use crate::web::{Web, answer};

tests![
    a_linked_copy_moves_to_a_changed_base,
    a_linked_copy_does_not_wait_for_the_step_below,
    a_linked_layer_moves_to_another_image,
    a_linked_layer_does_not_look_at_what_is_below,
    linked_copies_in_a_row_are_separate_layers,
    one_layer_may_be_twice_in_an_image,
    flags_hold_for_linked_copies,
    archives_and_urls_are_linked,
    of_a_named_owner_only_the_numbers_count,
    what_stands_on_a_linked_layer_keeps_it_from_pruning,
    fresh_steps_do_not_meet_old_layers,
    a_linked_copy_of_a_stage_needs_no_file_when_nothing_changed,
];

/// Layers of an image as it leaves: digest of the bytes, and of the tar in them.
fn layers(archive: &Path) -> Vec<(Value, Value)> {
    let image = Exported::from_tar(archive);
    image.check();
    let layers = image.manifest()["layers"].as_array().unwrap().clone();
    let diff_ids = image.config()["rootfs"]["diff_ids"].as_array().unwrap().clone();
    layers.into_iter().map(|layer| layer["digest"].clone()).zip(diff_ids).collect()
}

/// Builds to an archive.
fn exported(place: &Place, engine: &Engine, text: &str) -> (Built, Vec<(Value, Value)>) {
    let path = place.path().join("image.tar");
    let built = build(engine, &place.request(text).output(Output::OciArchive(path.clone().into())));
    (built, layers(&path))
}

/// How many snapshots of a kind the store has.
fn snapshots(place: &Place, kind: &str) -> usize {
    let store = rbuild_cache::Store::open(place.store()).unwrap();
    store.snapshots().list().unwrap().iter().filter(|snapshot| snapshot.kind == kind).count()
}

fn a_linked_copy_moves_to_a_changed_base() {
    let place = Place::new();
    let engine = place.engine();
    let file = place.write("file", "linked");
    // A file that is younger may change unseen, and is read in every build.
    std::thread::sleep(Duration::from_millis(2100));
    let text = |word: &str| {
        format!(
            "FROM base\nRUN echo {word} > /word\nCOPY --link file /app/dir/\n\
             RUN cat /word /app/dir/file > /both\nCOPY file /last\n"
        )
    };
    let (first, before) = exported(&place, &engine, &text("one"));
    assert_eq!((first.executed, first.cached), (BASE_STEPS + 4, 0), "{:?}", first.steps);
    let copies = snapshots(&place, "copy");

    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let reads = inotify::WatchFlags::OPEN | inotify::WatchFlags::ACCESS;
    inotify::add_watch(&watch, &file, reads).unwrap();
    let request = place.request(&text("two")).tag("app");
    let moved = build(&engine, &request);
    let expected = [
        "[stage-1 1/4] RUN echo two > /word",
        "[stage-1 3/4] RUN cat /word /app/dir/file > /both",
        "[stage-1 4/4] COPY file /last",
    ];
    assert_eq!(ran(&moved), expected);
    assert_eq!(place.sh(&engine, "app", "cat /both; ls -A /app/dir"), "two\nlinkedfile\n");
    // Once, by the copy that is not linked.
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut opened = 0;
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    while let Ok(event) = events.next() {
        opened += usize::from(event.events().contains(inotify::ReadFlags::OPEN));
    }
    assert_eq!(opened, 1);
    assert_eq!(snapshots(&place, "copy"), copies + 1);

    let (again, after) = exported(&place, &engine, &text("two"));
    assert_eq!((again.executed, id(&again)), (0, id(&moved)));
    let linked = before.len() - 3;
    assert_eq!(before[linked], after[linked], "{before:?} {after:?}");
    assert_ne!(before[linked - 1], after[linked - 1]);
    assert_eq!(place.leftovers(), [""; 0]);
}

/// Tells when a step has ended.
struct Told {
    part: &'static str,
    step: Mutex<Option<StepId>>,
    ended: Mutex<Sender<()>>,
}

impl Progress for Told {
    fn event(&self, event: &Event) {
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StepQueued { step: id, name, .. } if name.contains(self.part) => {
                *step = Some(*id);
            }
            Event::StepFinished { step: id, .. } if *step == Some(*id) => {
                let _ = self.ended.lock().unwrap().send(());
            }
            _ => {}
        }
    }
}

/// The step below ends only after the copy did.
fn a_linked_copy_does_not_wait_for_the_step_below() {
    let place = Place::new();
    place.write("file", "linked");
    let (ended, wait): (_, Receiver<()>) = channel();
    let wait = Mutex::new(wait);
    let web =
        Web::start(move |_| match wait.lock().unwrap().recv_timeout(Duration::from_secs(30)) {
            Ok(()) => answer(200, "go"),
            Err(_) => answer(500, "the copy waits for the step below"),
        });
    let text = format!(
        "FROM base\nRUN wget -q -O /answer {}\nCOPY --link file /app/\n\
         RUN cat /answer /app/file > /both\n",
        web.url("/")
    );
    let told = Told { part: "COPY --link", step: Mutex::default(), ended: Mutex::new(ended) };
    let engine = place.engine();
    let request = place.request(&text).tag("app");
    engine
        .build(&request, &told, &CancelToken::default())
        .unwrap_or_else(|error| panic!("{}", explain(&error)));
    assert_eq!(place.sh(&engine, "app", "cat /both"), "golinked");
}

fn a_linked_layer_moves_to_another_image() {
    let place = Place::new();
    place.write("file", "linked");
    let engine = place.engine();
    let text = "FROM mine\nCOPY --link file /d/\nCOPY --link --chown=7:8 file /d/owned\n";
    let mut executed = Vec::new();
    for word in ["one", "two"] {
        let maker = Place::new();
        let path = maker.path().join("layout");
        let image = maker.request(&format!("FROM base\nRUN echo {word} > /word\n"));
        build(&maker.engine(), &image.tag("made").output(Output::OciLayout(path.clone())));
        let context = NamedContextInput::OciLayout { path, tag: None, digest: None };
        let request = BuildRequest::new(place.context()).dockerfile_text(text).tag("app");
        executed.push(build(&engine, &request.build_context("mine", context)).executed);
        let found = place.sh(&engine, "app", "cat /word /d/file; stat -c %u:%g /d/owned");
        assert_eq!(found, format!("{word}\nlinked7:8\n"));
    }
    assert_eq!(executed, [2, 0]);
}

fn a_linked_layer_does_not_look_at_what_is_below() {
    let place = Place::new();
    place.write("dir/inner", "i");
    place.write("file", "f");
    let engine = place.engine();
    let text = "FROM base\n\
        RUN mkdir -m 700 /kept /real /full && touch /kept/old /real/old /full/old \
        && ln -s real /way && echo file > /was-file\n\
        COPY --link file /kept/\n\
        COPY --link file /way/\n\
        COPY --link dir /was-file\n\
        COPY --link file /full\n\
        COPY file /real/ordinary\n\
        RUN rm /kept/file && mkdir /later\n";
    build(&engine, &place.request(text).tag("app"));
    let found = place.sh(
        &engine,
        "app",
        "stat -c '%n %a %F' /kept /real /way /was-file /full /later; ls -A /kept /real /way /was-file",
    );
    let expected = "/kept 755 directory\n/real 700 directory\n/way 755 directory\n\
        /was-file 755 directory\n/full 644 regular file\n/later 755 directory\n\
        /kept:\nold\n\n/real:\nold\nordinary\n\n/was-file:\ninner\n\n/way:\nfile\n";
    assert_eq!(found, expected);
}

fn linked_copies_in_a_row_are_separate_layers() {
    let place = Place::new();
    for name in ["one", "two", "three"] {
        place.write(name, name);
    }
    let engine = place.engine();
    let text = "FROM base\nCOPY --link one /d/\nCOPY --link two /d/\nCOPY --link three /d/\n";
    let (first, before) = exported(&place, &engine, text);
    assert_eq!((first.executed, before.len()), (BASE_STEPS + 3, BASE_STEPS + 3));
    place.write("two", "changed");
    let (second, after) = exported(&place, &engine, text);
    assert_eq!(ran(&second), ["[stage-1 2/3] COPY --link two /d/"]);
    let same: Vec<_> = before.iter().zip(&after).map(|(one, other)| one == other).collect();
    assert_eq!(same[BASE_STEPS..], [true, false, true]);
    // In another order, and without one, nothing is made.
    let text = "FROM base\nCOPY --link three /d/\nCOPY --link one /d/\n";
    let (third, other) = exported(&place, &engine, text);
    assert_eq!((third.executed, &other[BASE_STEPS]), (0, &after[BASE_STEPS + 2]));
}

/// The kernel refuses a directory that is twice in a stack.
fn one_layer_may_be_twice_in_an_image() {
    let place = Place::new();
    place.write("file", "f");
    let engine = place.engine();
    let text = "FROM base\nCOPY --link file /d/\nRUN rm -r /d\nCOPY --link file /d/\n\
        COPY --link file /d/\nRUN cat /d/file > /seen\n";
    build(&engine, &place.request(text).tag("app"));
    assert_eq!(place.sh(&engine, "app", "cat /d/file /seen"), "ff");
    // Nor is anything else below it.
    let text = "FROM scratch\nCOPY --link file /d/\nCOPY --link file /d/\n";
    let out = place.path().join("out");
    build(&engine, &place.request(text).tag("bare").output(Output::Directory(out.clone())));
    assert_eq!(fs_err::read_to_string(out.join("d/file")).unwrap(), "f");
    let on_top = BuildRequest::new(place.context())
        .dockerfile_text("FROM bare\nCOPY file /d/other\nCOPY busybox /\nRUN [\"/busybox\", \"cmp\", \"/d/file\", \"/d/other\"]\n");
    build(&engine, &on_top);
}

fn flags_hold_for_linked_copies() {
    let place = Place::new();
    for name in ["src/a/keep", "src/a/leave", "src/b/keep"] {
        place.write(name, name);
    }
    let engine = place.engine();
    let text = "FROM base\nCOPY --link --parents --exclude=**/leave --chmod=700 --chown=3:4 \\\n\
        src/./*/* /out/\n\
        COPY --link --chmod=u=rw,go= <<one <<two /docs/\n1\none\n2\ntwo\n\
        COPY --link=false src/b /out/a/\n";
    build(&engine, &place.request(text).tag("app"));
    let script = "cd /; find out docs | sort | xargs stat -c '%n %a %u:%g'";
    let expected = "docs 755 0:0\ndocs/one 600 0:0\ndocs/two 600 0:0\n\
        out 700 3:4\nout/a 700 3:4\nout/a/keep 644 0:0\nout/b 700 3:4\nout/b/keep 700 3:4\n";
    assert_eq!(place.sh(&engine, "app", script), expected);
    let text = text.replacen("base\n", "base\nRUN touch /new\n", 1);
    let names = ran(&place.build(&engine, &text));
    assert_eq!(
        names,
        ["[stage-1 1/4] RUN touch /new", "[stage-1 4/4] COPY --link=false src/b /out/a/"]
    );
}

fn archives_and_urls_are_linked() {
    let place = Place::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    header.set_uid(5);
    tar.append_data(&mut header, "deep/packed", &b"in"[..]).unwrap();
    place.write("some.tar", tar.into_inner().unwrap());
    let web = Web::start(|_| answer(200, "fetched"));
    let engine = crate::build_http::engine(&place);
    let text = |word: &str| {
        let url = web.url("/page");
        format!(
            "FROM base\nRUN mkdir /deep && echo {word} > /deep/old\n\
             ADD --link some.tar /\nADD --link {url} /deep/\n"
        )
    };
    build(&engine, &place.request(&text("one")).tag("app"));
    let script = "cd /deep; stat -c '%n %a %u' packed page; cat *";
    assert_eq!(place.sh(&engine, "app", script), "packed 640 5\npage 600 0\none\ninfetched");
    assert_eq!(ran(&place.build(&engine, &text("two"))).len(), 1);
}

fn of_a_named_owner_only_the_numbers_count() {
    let place = Place::new();
    place.write("file", "f");
    let engine = place.engine();
    let text = |passwd: &str| {
        format!(
            "FROM base\nRUN mkdir -p /etc && printf '{passwd}' > /etc/passwd\n\
             COPY --link --chown=app file /owned\nRUN stat -c %u:%g /owned > /owner\n"
        )
    };
    build(&engine, &place.request(&text("app:x:55:66::/:")).tag("app"));
    assert_eq!(place.sh(&engine, "app", "cat /owner"), "55:66\n");
    let second = place.build(&engine, &text("other:x:1:1::/:\\napp:x:55:66::/:"));
    assert!(!ran(&second).iter().any(|name| name.contains("--link")), "{:?}", ran(&second));
    build(&engine, &place.request(&text("app:x:7:8::/:")).tag("app"));
    assert_eq!(place.sh(&engine, "app", "cat /owner"), "7:8\n");
    let request = place.request("FROM scratch\nCOPY --link --chown=app file /\n");
    let error = explain(&build_error(&engine, &request));
    assert!(error.contains("app"), "{error}");
}

fn prune(engine: &Engine) {
    engine.prune(&PruneOptions::default(), &Silent, &CancelToken::default()).unwrap();
}

fn what_stands_on_a_linked_layer_keeps_it_from_pruning() {
    let place = Place::new();
    place.write("file", "f");
    let engine = place.engine();
    let text = "FROM base\nCOPY --link file /d/\nRUN cp /d/file /copy\n";
    let first = build(&engine, &place.request(text).tag("app"));
    prune(&engine);
    assert_eq!(place.sh(&engine, "app", "cat /d/file /copy"), "ff");
    let second = place.build(&engine, text);
    assert_eq!((second.executed, id(&second)), (0, id(&first)), "{:?}", ran(&second));
    engine.remove_image("app", false).unwrap();
    prune_nameless(&engine);
    prune(&engine);
    assert_eq!(engine.rows().unwrap(), []);
    assert_eq!(fs_err::read_dir(place.store().join("snapshots")).unwrap().count(), 0);
    let third = place.build(&engine, text);
    assert_eq!(third.executed, BASE_STEPS + 2);
}

fn fresh_steps_do_not_meet_old_layers() {
    let place = Place::new();
    place.write("file", "f");
    let engine = place.engine();
    let text = "FROM base\nRUN head -c 8 /dev/urandom | od > /random\nCOPY --link file /d/\n\
        RUN cp /random /copy\n";
    place.build(&engine, text);
    let mut request = place.request(text).tag("app");
    request.options.no_cache = rbuild::NoCache::All;
    let fresh = build(&engine, &request);
    assert_eq!(fresh.executed, BASE_STEPS + 3);
    assert_eq!(place.sh(&engine, "app", "cmp /random /copy && echo same"), "same\n");
    let after = place.build(&engine, text);
    assert_eq!((after.executed, id(&after)), (0, id(&fresh)));
}

fn a_linked_copy_of_a_stage_needs_no_file_when_nothing_changed() {
    let place = Place::new();
    let engine = place.engine();
    let text = |word: &str| {
        format!(
            "FROM base AS made\nRUN echo {word} > /word; echo 1 > /file\n\
             FROM base\nCOPY --link --from=made /file /d/\nRUN cat /d/file > /copy\n"
        )
    };
    let first = place.build(&engine, &text("one"));
    let second = place.build(&engine, &text("one"));
    assert_eq!((second.executed, id(&second)), (0, id(&first)));
    let third = place.build(&engine, &text("two"));
    assert_eq!((ran(&third).len(), id(&third)), (1, id(&first)), "{:?}", ran(&third));
}
