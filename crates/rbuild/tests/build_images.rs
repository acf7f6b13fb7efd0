//! Images in the store: names, ids, what they say, what removing and pruning leaves.

use std::collections::BTreeMap;

use rbuild::{
    BuildError, BuildRequest, Built, CancelToken, Engine, Process, PruneOptions, Pull, Silent,
};

use crate::support::{Place, build, build_error, explain, id, prune_nameless, ran};
use crate::tests;

tests![
    an_image_is_found_by_all_its_names,
    what_names_nothing_is_no_image,
    a_prefix_of_several_ids_is_refused,
    a_moved_name_leaves_a_dangling_image,
    names_go_one_by_one_and_the_image_with_the_last,
    an_image_says_what_the_dockerfile_said,
    history_tells_the_newest_first_with_sizes,
    a_local_image_is_a_base_with_its_config,
    triggers_of_a_local_image_fire_once,
    a_local_base_that_was_built_anew_is_noticed,
    a_forgotten_base_is_an_error_without_pulling,
    pruning_keeps_what_images_need,
    pruning_all_makes_the_next_build_run_everything,
    a_store_without_images_is_pruned_empty,
];

/// An image of no layers.
fn bare(place: &Place, engine: &Engine, label: &str, tags: &[&str]) -> Built {
    let text = format!("FROM scratch\nLABEL label={label}\n");
    let mut request = BuildRequest::new(place.context()).dockerfile_text(text);
    request.tags = tags.iter().map(|&tag| tag.to_owned()).collect();
    build(engine, &request)
}

fn names(engine: &Engine) -> Vec<(Option<String>, String)> {
    let all = engine.images().unwrap().into_iter();
    all.map(|image| (image.reference.map(|it| it.familiar()), image.image_id.hex())).collect()
}

fn an_image_is_found_by_all_its_names() {
    let place = Place::new();
    let engine = place.engine();
    let one = id(&bare(&place, &engine, "one", &["app:1", "example.com/team/app"]));
    let two = id(&bare(&place, &engine, "two", &[]));
    assert_ne!(one, two);
    let hex = one.hex();
    let some = [
        "app:1",
        "docker.io/library/app:1",
        "example.com/team/app",
        "example.com/team/app:latest",
        &hex,
        &hex[..12],
        &hex[..7].to_uppercase(),
        &format!("sha256:{hex}"),
        &format!("sha256:{}", &hex[..9]),
    ];
    for name in some {
        assert_eq!(engine.find_image(name).unwrap().image_id, one, "{name}");
        assert_eq!(engine.image_config(name).unwrap().config.config.labels["label"], "one");
    }
    engine.tag_image("app:1", "further").unwrap();
    engine.tag_image(&two.hex()[..12], "two:2").unwrap();
    engine.tag_image("two:2", "two:2").unwrap();
    let named = |name: &str, id: &rbuild::Digest| (Some(name.to_owned()), id.hex());
    let expected = [
        named("app:1", &one),
        named("further:latest", &one),
        named("two:2", &two),
        named("example.com/team/app:latest", &one),
    ];
    assert_eq!(names(&engine), expected);
    // Another engine on the same store knows the same.
    assert_eq!(names(&place.engine()), expected);
    let details = engine.image_config("further").unwrap();
    assert_eq!(details.names, ["app:1", "further:latest", "example.com/team/app:latest"]);
    assert_eq!(details.id, one);
}

fn what_names_nothing_is_no_image() {
    let place = Place::new();
    let engine = place.engine();
    let hex = id(&bare(&place, &engine, "one", &["app:1"])).hex();
    // The image's own digits with one changed, a tag that is not there, one digit alone.
    let other = if hex.starts_with('0') { "1" } else { "0" };
    let wrong = format!("{other}{}", &hex[1..]);
    for name in ["app", "app:2", "team/app:1", &wrong, &hex[..1], "", "sha256:", "no such name"] {
        match engine.find_image(name) {
            Err(BuildError::NoSuchImage { name: told }) => assert_eq!(told, name),
            other => panic!("{name:?}: {other:?}"),
        }
    }
    for name in ["Upper:1", "a b", "app:", "app@sha256:12"] {
        let error = engine.tag_image("app:1", name).unwrap_err();
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        let request = BuildRequest::new(place.context()).dockerfile_text("FROM scratch\n");
        let error = build_error(&engine, &request.tag(name));
        assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
    }
    assert_eq!(names(&engine).len(), 1, "{:?}", names(&engine));
}

fn a_prefix_of_several_ids_is_refused() {
    let place = Place::new();
    let engine = place.engine();
    let mut seen: BTreeMap<String, rbuild::Digest> = BTreeMap::new();
    for number in 0..=256 {
        let one = id(&bare(&place, &engine, &number.to_string(), &[&format!("n:{number}")]));
        let Some(other) = seen.insert(one.hex()[..2].to_owned(), one) else { continue };
        let error = engine.find_image(&one.hex()[..2]).unwrap_err();
        assert!(matches!(error, BuildError::Conflict { .. }), "{error:?}");
        assert!(error.to_string().contains("2 image ids"), "{error}");
        let error = engine.remove_image(&one.hex()[..2], true).unwrap_err();
        assert!(matches!(error, BuildError::Conflict { .. }), "{error:?}");
        // Names of one image are not two images.
        engine.tag_image(&one.hex(), "again").unwrap();
        for both in [one, other] {
            assert_eq!(engine.find_image(&both.hex()[..20]).unwrap().image_id, both);
        }
        return;
    }
    panic!("257 ids begin with 257 different bytes");
}

fn a_moved_name_leaves_a_dangling_image() {
    let place = Place::new();
    let engine = place.engine();
    let one = id(&bare(&place, &engine, "one", &["app"]));
    let two = id(&bare(&place, &engine, "two", &["app"]));
    assert_eq!(engine.find_image("app").unwrap().image_id, two);
    assert_eq!(engine.find_image(&one.hex()).unwrap().reference, None);
    assert_eq!(prune_nameless(&engine).deleted, [one]);
    assert!(engine.find_image(&one.hex()).is_err());
    assert_eq!(names(&engine), [(Some("app:latest".to_owned()), two.hex())]);
    assert_eq!(prune_nameless(&engine).deleted, []);
}

fn names_go_one_by_one_and_the_image_with_the_last() {
    let place = Place::new();
    let engine = place.engine();
    let one = id(&bare(&place, &engine, "one", &["a:1", "a:2", "a:3"]));
    let two = id(&bare(&place, &engine, "two", &["b:1"]));
    let removed = engine.remove_image("a:2", false).unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec!["a:2".to_owned()], vec![]));
    assert!(engine.find_image("a:2").is_err());
    assert!(engine.remove_image("a:2", true).is_err());
    assert_eq!(engine.find_image(&one.hex()).unwrap().image_id, one);
    // By its id an image loses all names, which needs a word more.
    let error = engine.remove_image(&one.hex()[..12], false).unwrap_err();
    assert!(matches!(error, BuildError::Conflict { .. }), "{error:?}");
    assert!(error.to_string().contains("2 names"), "{error}");
    let removed = engine.remove_image(&one.hex()[..12], true).unwrap();
    assert_eq!(removed.untagged, ["a:1", "a:3"]);
    assert_eq!(removed.deleted, [one]);
    // And by its last name it goes.
    let removed = engine.remove_image("b:1", false).unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec!["b:1".to_owned()], vec![two]));
    assert_eq!(names(&engine), []);
    // One name: the id needs no force.
    let three = id(&bare(&place, &engine, "three", &["c:1"]));
    assert_eq!(engine.remove_image(&three.hex(), false).unwrap().deleted, [three]);
    // No name at all.
    let four = id(&bare(&place, &engine, "four", &[]));
    assert_eq!(engine.remove_image(&four.hex()[..10], false).unwrap().deleted, [four]);
}

const CONFIGURED: &str = "\
FROM base
ENV A=1 B=\"two words\"
WORKDIR /work
USER 5:6
EXPOSE 80 53/udp
VOLUME /data
LABEL k=v
STOPSIGNAL SIGINT
HEALTHCHECK --interval=3s CMD true
ENTRYPOINT [\"echo\", \"entry\"]
CMD [\"one\", \"two\"]
";

fn an_image_says_what_the_dockerfile_said() {
    let place = Place::new();
    let engine = place.engine();
    let before = std::time::SystemTime::now();
    let built = build(&engine, &place.request(CONFIGURED).tag("app").label("from", "request"));
    let details = engine.image_config("app").unwrap();
    assert_eq!(details.id, id(&built));
    assert_eq!(details.manifest_digest, built.image.as_ref().unwrap().manifest_digest);
    let config = &details.config.config;
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(config.env, [path, "A=1", "B=two words"]);
    assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/work", "5:6"));
    assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
    assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/data"]);
    let labels: Vec<_> =
        config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["from=request", "k=v"]);
    assert_eq!(config.stop_signal, "SIGINT");
    let health = config.healthcheck.as_ref().unwrap();
    assert_eq!(health.test, ["CMD-SHELL", "true"]);
    assert_eq!(health.interval, 3_000_000_000);
    assert_eq!(config.entrypoint.as_deref(), Some(&["echo".to_owned(), "entry".to_owned()][..]));
    assert_eq!(config.cmd.as_deref(), Some(&["one".to_owned(), "two".to_owned()][..]));
    assert_eq!(details.config.os, "linux");
    assert_eq!(details.config.architecture, rbuild::Platform::host().architecture);
    assert_eq!(details.config.rootfs.diff_ids.len(), 3);
    let busybox = fs_err::metadata("/bin/busybox").unwrap().len();
    assert!(details.size > busybox && details.size < 2 * busybox, "{}", details.size);
    let created: jiff::Timestamp = details.config.created.unwrap().parse().unwrap();
    let now = std::time::SystemTime::now();
    let round = std::time::Duration::from_secs(1);
    let created = std::time::SystemTime::from(created);
    assert!(created >= before - round && created <= now, "{created:?}");
}

fn history_tells_the_newest_first_with_sizes() {
    let place = Place::new();
    let engine = place.engine();
    place.write("one.txt", vec![7; 5000]);
    let text = "FROM base\nCOPY one.txt /\nENV A=1\nRUN --network=none head -c 100000 /dev/zero > /z\n\
                CMD [\"x\"]\n";
    build(&engine, &place.request(text).tag("app"));
    let lines = engine.history("app").unwrap();
    let told: Vec<_> =
        lines.iter().map(|line| (line.created_by.as_str(), line.empty_layer)).collect();
    let expected = [
        ("CMD [\"x\"]", true),
        ("RUN /bin/sh -c head -c 100000 /dev/zero > /z # buildkit", false),
        ("ENV A=1", true),
        ("COPY one.txt / # buildkit", false),
        ("RUN /bin/busybox --install -s /bin # buildkit", false),
        ("COPY busybox /bin/ # buildkit", false),
    ];
    assert_eq!(told, expected);
    assert!(lines.iter().all(|line| line.comment == "buildkit.dockerfile.v0"), "{lines:?}");
    assert!(lines.iter().all(|line| line.created.is_some()), "{lines:?}");
    assert!(lines.iter().filter(|line| line.empty_layer).all(|line| line.size == 0));
    // Tars come in blocks of 512 bytes and end with two of them, or with a record of 20.
    let sizes: Vec<_> = lines.iter().map(|line| line.size).collect();
    let tar = |content: u64| content..content + 16 * 1024;
    assert!(tar(100_000).contains(&sizes[1]), "{sizes:?}");
    assert!(tar(5000).contains(&sizes[3]), "{sizes:?}");
    assert!(sizes[5] > 100_000, "{sizes:?}");
}

fn a_local_image_is_a_base_with_its_config() {
    let place = Place::new();
    let engine = place.engine();
    build(&engine, &place.request(CONFIGURED).tag("local/base:1"));
    let text = "FROM local/base:1\nRUN echo \"$A $B $(pwd) $(id -u):$(id -g)\" > /tmp/told\n";
    let error = build_error(&engine, &BuildRequest::new(place.context()).dockerfile_text(text));
    assert!(explain(&error).contains("can't create /tmp/told"), "{}", explain(&error));
    let text = "FROM local/base:1\nRUN test \"$A $B $(pwd) $(id -u):$(id -g)\" = '1 two words /work 5:6'\n\
                COPY one.txt .\nENV C=3\n";
    place.write("one.txt", "1\n");
    let request = BuildRequest::new(place.context()).dockerfile_text(text).tag("child");
    build(&engine, &request);
    let parent = engine.image_config("local/base:1").unwrap().config;
    let child = engine.image_config("child").unwrap().config;
    assert_eq!(child.rootfs.diff_ids[..3], parent.rootfs.diff_ids);
    assert_eq!(child.rootfs.diff_ids.len(), 5);
    assert_eq!(child.history[..parent.history.len()], parent.history);
    let mut expected = parent.config.clone();
    expected.env.push("C=3".to_owned());
    assert_eq!(child.config, expected);
    assert_eq!(place.run(&engine, "child", Process::default()), (0, "entry one two\n".to_owned()));
    let own = Process { argv: vec!["three".to_owned()], ..Process::default() };
    assert_eq!(place.run(&engine, "child", own), (0, "entry three\n".to_owned()));
    assert_eq!(place.sh(&engine, "child", "pwd; id -u; cat one.txt; echo $C"), "/work\n5\n1\n3\n");
    // A new entry point takes away the command that was made for the old one.
    let text = "FROM local/base:1\nENTRYPOINT [\"echo\", \"new\"]\n";
    let request = BuildRequest::new(place.context()).dockerfile_text(text).tag("other");
    build(&engine, &request);
    assert_eq!(place.run(&engine, "other", Process::default()), (0, "new\n".to_owned()));
}

fn triggers_of_a_local_image_fire_once() {
    let place = Place::new();
    let engine = place.engine();
    place.write("one.txt", "1\n");
    let text = "FROM base\nONBUILD COPY one.txt /got.txt\nONBUILD RUN cat /got.txt > /fired\n\
                ONBUILD ENV FIRED=yes\nRUN test ! -e /got.txt\n";
    build(&engine, &place.request(text).tag("parent"));
    let parent = engine.image_config("parent").unwrap().config.config;
    assert_eq!(parent.on_build.len(), 3, "{:?}", parent.on_build);
    let text = "FROM parent\nRUN test -s /fired && echo $FIRED > /after\n";
    let child = BuildRequest::new(place.context()).dockerfile_text(text).tag("child");
    let built = build(&engine, &child);
    let steps = ran(&built);
    assert_eq!(steps.iter().filter(|name| !name.contains(" FROM ")).count(), 3, "{steps:?}");
    assert_eq!(place.sh(&engine, "child", "cat /fired /after"), "1\nyes\n");
    let config = engine.image_config("child").unwrap().config.config;
    assert_eq!(config.on_build, Vec::<String>::new());
    // What they read is the context of the child.
    place.write("one.txt", "other\n");
    build(&engine, &child);
    assert_eq!(place.sh(&engine, "child", "cat /fired"), "other\n");
    // Grandchildren are left in peace.
    let text = "FROM child\nRUN rm /got.txt /fired\n";
    let grandchild = BuildRequest::new(place.context()).dockerfile_text(text).tag("grandchild");
    build(&engine, &grandchild);
    assert_eq!(place.sh(&engine, "grandchild", "ls /got.txt /fired 2>&1 | wc -l").trim(), "2");
}

fn a_local_base_that_was_built_anew_is_noticed() {
    let place = Place::new();
    let engine = place.engine();
    let base = |content: &str| {
        let text = format!("FROM base\nRUN echo {content} > /content\n");
        build(&engine, &place.request(&text).tag("local"));
    };
    let text = "FROM local\nRUN cp /content /copy\n";
    let request = BuildRequest::new(place.context()).dockerfile_text(text).tag("child");
    base("one");
    build(&engine, &request);
    assert_eq!(build(&engine, &request).executed, 0);
    base("two");
    assert_ne!(build(&engine, &request).executed, 0);
    assert_eq!(place.sh(&engine, "child", "cat /content /copy"), "two\ntwo\n");
    base("one");
    assert_eq!(build(&engine, &request).executed, 0, "it was built on that before");
    assert_eq!(place.sh(&engine, "child", "cat /content /copy"), "one\none\n");
}

fn a_forgotten_base_is_an_error_without_pulling() {
    let place = Place::new();
    let engine = place.engine();
    build(&engine, &place.request("FROM base\n").tag("local"));
    let text = "FROM local\nRUN true\n";
    let mut request = BuildRequest::new(place.context()).dockerfile_text(text);
    request.pull = Pull::Never;
    build(&engine, &request);
    engine.remove_image("local", false).unwrap();
    let error = build_error(&engine, &request);
    assert!(error.to_string().contains("local"), "{error}");
    assert!(matches!(error, BuildError::Dockerfile { .. }), "{error:?}");
}

fn prune(engine: &Engine, all: bool) -> rbuild::Pruned {
    let options = PruneOptions { all, ..PruneOptions::default() };
    engine.prune(&options, &Silent, &CancelToken::default()).unwrap()
}

const TWO_STAGES: &str = "\
FROM base AS made
RUN head -c 3000000 /dev/urandom > /large && echo made > /made
FROM base
COPY --from=made /made /
RUN echo run > /run.txt
CMD [\"cat\", \"/made\", \"/run.txt\"]
";

fn pruning_keeps_what_images_need() {
    let place = Place::new();
    let engine = place.engine();
    let first = build(&engine, &place.request(TWO_STAGES).tag("app"));
    let pruned = prune(&engine, false);
    // Of all steps only the stage that was copied from is in no image.
    let removed: Vec<_> = pruned.removed.iter().map(|row| row.description.as_str()).collect();
    assert_eq!(removed.len(), 1, "{:?}", pruned.removed);
    assert!(removed[0].contains("urandom"), "{removed:?}");
    assert!(pruned.bytes > 3_000_000, "{}", pruned.bytes);
    assert_eq!(prune(&engine, false).removed, []);
    let output = "made\nrun\n".to_owned();
    assert_eq!(place.run(&engine, "app", Process::default()), (0, output));
    assert_eq!(engine.usage().unwrap().other_snapshots, 0);
    // The image's own steps are still known; its stage is not wanted for its own sake.
    let second = build(&engine, &place.request(TWO_STAGES).tag("app"));
    assert_eq!((second.executed, id(&second)), (0, id(&first)), "{:?}", ran(&second));
    // But when somebody needs its files it runs again.
    let text = format!("{TWO_STAGES}COPY --from=made /large /\n");
    let third = build(&engine, &place.request(&text).tag("app"));
    assert!(ran(&third).iter().any(|name| name.contains("urandom")), "{:?}", ran(&third));
    assert_eq!(place.sh(&engine, "app", "wc -c < /large; cat /made").trim(), "3000000\nmade");
}

fn pruning_all_makes_the_next_build_run_everything() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN head -c 8 /dev/urandom > /random\n";
    let first = build(&engine, &place.request(text).tag("app"));
    let before = place.sh(&engine, "app", "od -x /random");
    assert_eq!(build(&engine, &place.request(text).tag("app")).executed, 0);
    prune(&engine, true);
    // The image is whole.
    assert_eq!(place.sh(&engine, "app", "od -x /random"), before);
    assert_eq!(engine.find_image("app").unwrap().image_id, id(&first));
    let second = build(&engine, &place.request(text).tag("app"));
    assert_eq!(second.cached, 0, "{:?}", second.steps);
    assert_ne!(id(&second), id(&first));
    assert_ne!(place.sh(&engine, "app", "od -x /random"), before);
    assert_eq!(build(&engine, &place.request(text).tag("app")).executed, 0);
}

fn a_store_without_images_is_pruned_empty() {
    let place = Place::new();
    let engine = place.engine();
    let full = build(&engine, &place.request(TWO_STAGES).tag("app")).executed;
    engine.remove_image("app", false).unwrap();
    assert_eq!(names(&engine), []);
    assert!(engine.usage().unwrap().other_snapshots > 3_000_000);
    prune(&engine, false);
    let usage = engine.usage().unwrap();
    assert_eq!((usage.image_snapshots, usage.other_snapshots), (0, 0), "{usage:?}");
    assert_eq!((usage.image_blobs, usage.other_blobs), (0, 0), "{usage:?}");
    let rows = engine.rows().unwrap();
    let trees: Vec<_> = rows.iter().filter(|row| row.class != rbuild::Class::Record).collect();
    assert!(trees.is_empty(), "{trees:?}");
    assert_eq!(place.leftovers(), Vec::<String>::new());
    // And it is as good as new.
    let again = build(&engine, &place.request(TWO_STAGES).tag("app"));
    assert_eq!(again.executed, full, "{:?}", again.steps);
    let output = "made\nrun\n".to_owned();
    assert_eq!(place.run(&engine, "app", Process::default()), (0, output));
}
