//! Volumes as people make, list and remove them.

use std::collections::BTreeMap;

use rbuild::{
    ANONYMOUS_VOLUME, BuildError, ContainerOptions, Engine, Hold, Process, Volume, VolumeSource,
};

use crate::container_lasting::{make, place};
use crate::support::{Place, shell};
use crate::tests;

tests![
    a_volume_is_made_listed_and_removed,
    one_without_a_name_is_called_anonymous,
    a_volume_that_was_made_empty_starts_with_the_images_files,
    what_any_container_mounts_stays,
    a_volume_is_removed_beside_containers_that_are_made,
    cache_mounts_are_volumes_with_names_of_their_own,
    a_damaged_container_keeps_volumes_until_it_is_removed,
];

fn mounting(source: VolumeSource, script: &str) -> Process {
    let volume = Volume { source, target: "/data".to_owned(), read_only: false };
    Process { volumes: vec![volume], ..shell(script) }
}

fn named(name: &str, script: &str) -> ContainerOptions {
    let process = mounting(VolumeSource::Named(name.to_owned()), script);
    ContainerOptions { process, ..ContainerOptions::new("app") }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn names(engine: &Engine) -> Vec<String> {
    engine.volumes().unwrap().into_iter().map(|volume| volume.name).collect()
}

fn a_volume_is_made_listed_and_removed() {
    let (place, engine) = place();
    let made = engine.create_volume(Some("data"), labels(&[("a", "b")])).unwrap();
    assert_eq!((made.name.as_str(), &made.labels), ("data", &labels(&[("a", "b")])));
    assert!(made.created > 0 && made.path.is_dir() && !made.is_cache);
    assert_eq!(made.path, place.store().join("volumes/data"));
    // What is there stays as it is.
    fs_err::write(made.path.join("f"), "kept").unwrap();
    assert_eq!(engine.create_volume(Some("data"), labels(&[("c", "d")])).unwrap(), made);
    assert_eq!(place.engine().volume("data").unwrap(), made);
    assert_eq!(place.run(&engine, "app", named("data", "cat /data/f").process).1, "kept");
    assert_eq!(engine.volume("data").unwrap().labels, labels(&[("a", "b")]));
    // One that a container makes is like others.
    place.run(&engine, "app", named("cache-mine", "true").process);
    assert_eq!(names(&engine), ["cache-mine", "data"]);
    let other = engine.volume("cache-mine").unwrap();
    assert!(other.created >= made.created && other.labels.is_empty() && !other.is_cache);
    for name in ["data", "cache-mine"] {
        engine.remove_volume(name).unwrap();
        let error = engine.remove_volume(name).unwrap_err();
        assert!(matches!(error, BuildError::NoSuchVolume { .. }), "{error}");
    }
    assert_eq!(fs_err::read_dir(place.store().join("volumes")).unwrap().count(), 0);
    for name in ["", "a/b", "..", "../x", ".data", "cache:"] {
        assert!(engine.create_volume(Some(name), BTreeMap::new()).is_err(), "{name}");
        assert!(engine.volume(name).is_err() && engine.remove_volume(name).is_err(), "{name}");
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn one_without_a_name_is_called_anonymous() {
    let (_place, engine) = place();
    let one = engine.create_volume(None, BTreeMap::new()).unwrap();
    assert!(one.name.len() == 64 && one.labels.contains_key(ANONYMOUS_VOLUME), "{one:?}");
    assert_ne!(engine.create_volume(None, BTreeMap::new()).unwrap().name, one.name);
}

fn a_volume_that_was_made_empty_starts_with_the_images_files() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN mkdir /data && echo image > /data/f && chmod 1777 /data && \
                chown 3:4 /data\n";
    crate::support::build(&engine, &place.request(text).tag("app"));
    engine.create_volume(Some("v"), labels(&[("a", "b")])).unwrap();
    let script = "cat /data/f; stat -c '%a %u %g' /data; rm /data/f";
    let (code, shown) = place.run(&engine, "app", named("v", script).process);
    assert_eq!((code, shown.as_str()), (0, "image\n1777 3 4\n"));
    assert_eq!(engine.volume("v").unwrap().labels, labels(&[("a", "b")]));
    // Somebody who has it mounted is not given files that were not there.
    let holder = make(&engine, named("v", crate::container_lasting::FOR_EVER));
    let mut holder = engine.container(holder.id()).unwrap();
    fs_err::remove_file(place.store().join("volumes/v/f")).unwrap();
    holder.start(rbuild::Attach::No).unwrap();
    assert_eq!(place.run(&engine, "app", named("v", "ls /data").process), (0, String::new()));
    holder.delete().unwrap();
}

fn what_any_container_mounts_stays() {
    let (_place, engine) = place();
    let options = ContainerOptions { name: Some("web".to_owned()), ..named("data", "true") };
    let first = make(&engine, options);
    let options = ContainerOptions { name: Some("job".to_owned()), ..named("data", "true") };
    let second = make(&engine, options);
    let users = engine.volume("data").unwrap().users;
    assert_eq!(users, ["job", "web"]);
    let error = engine.remove_volume("data").unwrap_err();
    assert!(matches!(error, BuildError::Conflict { .. }), "{error}");
    assert!(error.to_string().contains("data is in use by container job, web"), "{error}");
    first.delete().unwrap();
    assert!(engine.remove_volume("data").unwrap_err().to_string().contains("job"));
    second.delete().unwrap();
    engine.remove_volume("data").unwrap();
}

fn a_volume_is_removed_beside_containers_that_are_made() {
    let (place, engine) = place();
    std::thread::scope(|scope| {
        let remover = scope.spawn(|| {
            let engine = place.engine();
            let mut removed = 0;
            while removed < 10 {
                match engine.remove_volume("data") {
                    Ok(()) => removed += 1,
                    Err(BuildError::Conflict { .. } | BuildError::NoSuchVolume { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        while !remover.is_finished() {
            let container = make(&engine, named("data", "true"));
            // From here on it is in use.
            let path = place.store().join("volumes/data");
            for _ in 0..20 {
                assert!(path.is_dir(), "it was removed from under a container");
                std::thread::yield_now();
            }
            container.delete().unwrap();
        }
        remover.join().unwrap();
    });
}

fn cache_mounts_are_volumes_with_names_of_their_own() {
    let (place, engine) = place();
    for options in ["id=go", "id=go,uid=7", "id=a\u{1b}[31mb"] {
        let text = format!("FROM base\nRUN --mount=type=cache,{options},target=/c touch /c/f\n");
        place.build(&engine, &text);
    }
    engine.create_volume(Some("data"), BTreeMap::new()).unwrap();
    let volumes = engine.volumes().unwrap();
    let [data, other, no_word, go] = volumes.as_slice() else { panic!("{volumes:?}") };
    assert!(!data.is_cache && other.is_cache && go.is_cache);
    assert_eq!(go.name, "cache:go");
    for unnamed in [other, no_word] {
        assert!(unnamed.name.starts_with("cache:cache-"), "{}", unnamed.name);
    }
    // All names are those that a container takes.
    for name in [&go.name, &other.name, &no_word.name] {
        assert_eq!(engine.volume(name).unwrap().name, *name);
        let id = name.strip_prefix("cache:").unwrap().to_owned();
        let source = VolumeSource::Cache { id, hold: Hold::Shared };
        let process = mounting(source, "ls /data");
        let container = make(&engine, ContainerOptions { process, ..ContainerOptions::new("app") });
        let error = engine.remove_volume(name).unwrap_err();
        assert!(error.to_string().contains(container.name()), "{error}");
        container.delete().unwrap();
        engine.remove_volume(name).unwrap();
    }
    assert_eq!(names(&engine), ["data"]);
}

fn a_damaged_container_keeps_volumes_until_it_is_removed() {
    let (place, engine) = place();
    let options = ContainerOptions { name: Some("odd".to_owned()), ..named("data", "true") };
    let container = make(&engine, options);
    let config = place.store().join("containers").join(container.id()).join("config.json");
    fs_err::write(&config, "{\"id\":").unwrap();
    let list = engine.list_containers().unwrap();
    assert!(list.containers.is_empty(), "{list:?}");
    assert_eq!((list.unreadable[0].name.as_str(), list.unreadable.len()), ("odd", 1));
    let error = engine.remove_volume("data").unwrap_err();
    assert!(error.to_string().contains("odd"), "{error}");
    let error = engine.remove_container("odd", false).unwrap_err();
    assert!(error.to_string().contains("rm -f odd"), "{error}");
    engine.remove_container("odd", true).unwrap();
    assert!(!config.parent().unwrap().exists());
    engine.remove_volume("data").unwrap();
    // One that runs ends.
    let mut container =
        make(&engine, crate::container_lasting::scripted("while :; do sleep 1; done"));
    container.start(rbuild::Attach::No).unwrap();
    let pid = container.state().unwrap().pid.unwrap();
    fs_err::write(container.directory().join("config.json"), "?").unwrap();
    engine.remove_container(&container.id()[..12], true).unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(engine.list_containers().unwrap().unreadable.is_empty());
}
