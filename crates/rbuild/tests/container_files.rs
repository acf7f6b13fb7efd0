//! Files of containers: copied in and out, listed, and made into images.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use rbuild::{
    Attach, BuildError, CancelToken, CommitRequest, Container, ContainerChange,
    ContainerChangeKind, ContainerOptions, CopyOptions, CopyPlace, Destination, Engine,
    HealthConfig, ImageWords, LoadSource, Output, Process, SaveRequest, Silent, Volume,
    VolumeSource,
};

use crate::container_lasting::{FOR_EVER, make, place, scripted, started, until};
use crate::support::{Place, build, explain, shell};
use crate::tests;

tests![
    files_are_copied_out_of_and_into_containers,
    links_are_copied_or_followed_as_docker_does,
    links_of_a_container_lead_nowhere_outside,
    mounts_are_seen_at_their_places,
    mounts_of_one_that_runs_are_written_and_stay,
    what_is_mounted_below_is_not_left_out_silently,
    what_is_read_only_is_not_written,
    owners_and_special_modes_are_kept_if_wanted,
    tars_come_out_and_go_in,
    a_container_that_is_copied_into_starts_with_it,
    large_files_with_holes_are_copied,
    what_a_container_changed_is_listed,
    what_is_mounted_is_no_change,
    directories_above_mounts_keep_what_was_done_to_them,
    an_export_is_the_root_filesystem,
    a_commit_is_a_layer_upon_the_image,
    a_commit_has_what_the_container_was_started_with,
    what_is_for_builds_upon_the_image_stays_behind,
    a_commit_holds_no_mount_points,
    an_import_is_an_image_of_one_layer,
];

fn cancel() -> CancelToken {
    CancelToken::default()
}

fn inside(container: &Container, path: &str) -> CopyPlace {
    CopyPlace::Container { container: container.id().to_owned(), path: path.to_owned() }
}

fn local(path: impl AsRef<Path>) -> CopyPlace {
    CopyPlace::Local(path.as_ref().to_owned())
}

fn copy(engine: &Engine, from: &CopyPlace, to: &CopyPlace) -> Result<(), BuildError> {
    engine.copy_files(from, to, CopyOptions::default(), &cancel())
}

fn text(path: impl AsRef<Path>) -> String {
    fs_err::read_to_string(path.as_ref()).unwrap()
}

/// One that runs and one that has ended, both with files in `/f`.
fn two(engine: &Engine, files: &str) -> [Container; 2] {
    let runs = started(engine, scripted(&format!("{files}; touch /ready; {FOR_EVER}")));
    let mut over = started(engine, scripted(files));
    over.wait(&cancel(), &mut |_, _| {}).unwrap();
    until("its files", || {
        let out = tempfile::tempdir().unwrap();
        copy(engine, &inside(&runs, "/ready"), &local(out.path())).is_ok()
    });
    [runs, over]
}

fn files_are_copied_out_of_and_into_containers() {
    let (place, engine) = place();
    for container in two(&engine, "mkdir -p /f/sub; echo one > /f/one; echo two > /f/sub/two") {
        let out = tempfile::tempdir_in(place.path()).unwrap();
        let at = |name: &str| out.path().join(name);
        let get = |from: &str, to: &str| copy(&engine, &inside(&container, from), &local(at(to)));
        // A directory becomes the name, or goes into it when it is there.
        get("/f", "new").unwrap();
        get("f", "new").unwrap();
        get("/f/.", "").unwrap();
        get("/f/one", "file").unwrap();
        get("/f/../f/one", "new/").unwrap();
        for name in ["new/one", "new/f/one", "one", "file"] {
            assert_eq!(text(at(name)), "one\n", "{name}");
        }
        assert_eq!(text(at("new/f/sub/two")), "two\n");
        for (from, to) in [("/f", "file"), ("/f/one", "no/file"), ("/f/one", "no/"), ("/no", "x")] {
            get(from, to).unwrap_err();
        }
        get("/f/one/", "x").unwrap_err();
        get("/f/one/.", "x").unwrap_err();
        // The other way.
        fs_err::write(at("in"), "in").unwrap();
        let put = |from: &str, to: &str| copy(&engine, &local(at(from)), &inside(&container, to));
        put("in", "/f/one").unwrap();
        put("in", "f/").unwrap();
        put("new", "/f/tree").unwrap();
        put("new/.", "/f").unwrap();
        put("in", "/none/x").unwrap_err();
        put("in", "/none/").unwrap_err();
        put("new", "/f/in").unwrap_err();
        get("/f/in", "back").unwrap();
        get("/f/tree", "tree").unwrap();
        get("/f/one", "one").unwrap();
        assert_eq!((text(at("back")), text(at("tree/f/one"))), ("in".into(), "one\n".into()));
        // `new/.` was laid upon it.
        assert_eq!(text(at("one")), "one\n");
        assert!(copy(&engine, &inside(&container, "/f"), &inside(&container, "/g")).is_err());
        container.delete().unwrap();
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn links_are_copied_or_followed_as_docker_does() {
    let (place, engine) = place();
    let files = "mkdir -p /f/d; echo x > /f/d/x; ln -s d /f/l; ln -s /f/d/x /f/file";
    for container in two(&engine, files) {
        let out = tempfile::tempdir_in(place.path()).unwrap();
        let at = |name: &str| out.path().join(name);
        let get = |from: &str, to: &str, follow: bool| {
            let options = CopyOptions { follow, ..CopyOptions::default() };
            engine
                .copy_files(&inside(&container, from), &local(at(to)), options, &cancel())
                .unwrap();
        };
        get("/f/l", "link", false);
        assert_eq!(fs_err::read_link(at("link")).unwrap(), Path::new("d"));
        get("/f/l", "dir", true);
        get("/f/l/", "slash", false);
        get("/f/l/x", "through", false);
        get("/f/file", "file", true);
        for name in ["dir/x", "slash/x", "through", "file"] {
            assert_eq!(text(at(name)), "x\n", "{name}");
        }
        // A link as the destination is followed inside.
        fs_err::write(at("in"), "in").unwrap();
        copy(&engine, &local(at("in")), &inside(&container, "/f/l")).unwrap();
        get("/f/d/in", "back", false);
        assert_eq!(text(at("back")), "in");
        // One of the host is copied as a link.
        symlink("/nowhere", at("dangling")).unwrap();
        copy(&engine, &local(at("dangling")), &inside(&container, "/f/d/")).unwrap();
        get("/f/d/dangling", "again", false);
        assert_eq!(fs_err::read_link(at("again")).unwrap(), Path::new("/nowhere"));
        container.delete().unwrap();
    }
}

fn links_of_a_container_lead_nowhere_outside() {
    let (place, engine) = place();
    let secret = place.path().join("secret");
    fs_err::create_dir(&secret).unwrap();
    fs_err::write(secret.join("file"), "kept").unwrap();
    let at = secret.display();
    let files = format!(
        "mkdir /f; ln -s {at} /f/dir; ln -s {at}/file /f/file; ln -s ../../../../../..{at} /f/up; \
         ln -s /proc/1/root{at} /f/proc; ln -s / /f/root"
    );
    for container in two(&engine, &files) {
        let out = tempfile::tempdir_in(place.path()).unwrap();
        fs_err::write(out.path().join("in"), "new").unwrap();
        for link in ["dir", "file", "up", "proc"] {
            let options = CopyOptions { follow: true, ..CopyOptions::default() };
            let from = inside(&container, &format!("/f/{link}"));
            engine
                .copy_files(&from, &local(out.path().join("leak")), options, &cancel())
                .unwrap_err();
            let to = inside(&container, &format!("/f/{link}/file"));
            let _ = copy(&engine, &local(out.path().join("in")), &to);
        }
        // Links lie in the way of a tree that is copied in.
        fs_err::create_dir(out.path().join("tree")).unwrap();
        fs_err::create_dir(out.path().join("tree/dir")).unwrap();
        fs_err::write(out.path().join("tree/dir/file"), "new").unwrap();
        fs_err::write(out.path().join("tree/file"), "new").unwrap();
        let _ = copy(&engine, &local(out.path().join("tree/.")), &inside(&container, "/f"));
        let up = "../".repeat(40);
        for path in [format!("/{up}{at}/file"), format!("/f/root/{up}{at}/file")] {
            copy(&engine, &inside(&container, &path), &local(out.path().join("leak"))).unwrap_err();
        }
        assert_eq!(text(secret.join("file")), "kept");
        assert_eq!(fs_err::read_dir(&secret).unwrap().count(), 1);
        assert!(!out.path().join("leak").exists());
        container.delete().unwrap();
    }
}

fn mounting(script: &str, volumes: Vec<Volume>) -> ContainerOptions {
    let process = Process { volumes, ..shell(script) };
    ContainerOptions { process, ..ContainerOptions::new("app") }
}

fn mount(source: VolumeSource, target: &str, read_only: bool) -> Volume {
    Volume { source, target: target.to_owned(), read_only }
}

fn mounts_are_seen_at_their_places() {
    let (place, engine) = place();
    let host = place.path().join("host");
    fs_err::create_dir(&host).unwrap();
    fs_err::write(host.join("file"), "bound").unwrap();
    let volumes = || {
        vec![
            mount(VolumeSource::Named("data".to_owned()), "/data", false),
            mount(VolumeSource::Path(host.clone()), "/data/host", false),
            mount(VolumeSource::Anonymous, "/own", false),
            mount(VolumeSource::Path(host.join("file")), "/etc/bound", false),
        ]
    };
    for script in [FOR_EVER, "true"] {
        let mut container = make(&engine, mounting(script, volumes()));
        if script == FOR_EVER {
            container.start(Attach::No).unwrap();
        }
        let out = tempfile::tempdir_in(place.path()).unwrap();
        let at = |name: &str| out.path().join(name);
        fs_err::write(at("in"), "in").unwrap();
        for directory in ["/data", "/data/host", "/own/"] {
            copy(&engine, &local(at("in")), &inside(&container, directory)).unwrap();
            let back = inside(&container, &format!("{directory}/in"));
            copy(&engine, &back, &local(at("back"))).unwrap();
            assert_eq!(text(at("back")), "in", "{directory}");
        }
        assert_eq!(text(place.store().join("volumes/data/in")), "in");
        assert_eq!(text(host.join("in")), "in");
        copy(&engine, &inside(&container, "/etc/bound"), &local(at("bound"))).unwrap();
        assert_eq!(text(at("bound")), "bound");
        copy(&engine, &inside(&container, "/own"), &local(at("tree"))).unwrap();
        assert_eq!(text(at("tree/in")), "in");
        fs_err::remove_file(place.store().join("volumes/data/in")).unwrap();
        fs_err::remove_file(host.join("in")).unwrap();
        container.delete().unwrap();
    }
}

fn mounts_of_one_that_runs_are_written_and_stay() {
    let (place, engine) = place();
    let at = |name: &str| place.path().join(name);
    for name in ["rw", "ro"] {
        fs_err::write(at(name), "old").unwrap();
    }
    let volumes = vec![
        mount(VolumeSource::Path(at("rw")), "/etc/rw", false),
        mount(VolumeSource::Path(at("ro")), "/etc/ro", true),
        mount(VolumeSource::Named("data".to_owned()), "/etc/data", false),
    ];
    let mut container = make(&engine, mounting(FOR_EVER, volumes));
    container.start(Attach::No).unwrap();
    let mounts = || {
        let pid = container.state().unwrap().pid.unwrap();
        text(format!("/proc/{pid}/mountinfo")).lines().count()
    };
    let before = mounts();
    fs_err::write(at("in"), "new").unwrap();
    symlink("/nowhere", at("link")).unwrap();
    let put = |from: &str, to: &str| copy(&engine, &local(at(from)), &inside(&container, to));
    put("in", "/etc/rw").unwrap();
    put("in", "/etc/ro").unwrap_err();
    fs_err::create_dir(at("tree")).unwrap();
    symlink("/nowhere", at("tree/rw")).unwrap();
    for (from, to) in [("in", "/dev/null"), ("tree/rw", "/etc/"), ("tree/.", "/etc")] {
        let error = explain(&put(from, to).unwrap_err());
        assert!(error.contains("something is mounted"), "{from} {to}: {error}");
    }
    // Files of a tar where files and a directory are mounted.
    fs_err::write(at("data"), "new").unwrap();
    for name in ["rw", "data"] {
        let tar = std::process::Command::new("tar")
            .arg("-C")
            .arg(if name == "rw" { at("tree") } else { at("") })
            .args(["-cf", "-", name])
            .output()
            .unwrap();
        let tar = &mut tar.stdout.as_slice();
        let error = engine.copy_from_tar(container.id(), "/etc", tar, &cancel()).unwrap_err();
        assert!(explain(&error).contains("something is mounted"), "{name}: {error:?}");
    }
    assert_eq!((text(at("rw")), text(at("ro"))), ("new".into(), "old".into()));
    assert_eq!(mounts(), before);
    container.delete().unwrap();
}

fn what_is_mounted_below_is_not_left_out_silently() {
    let (place, engine) = place();
    let at = |name: &str| place.path().join(name);
    let volumes = vec![mount(VolumeSource::Named("data".to_owned()), "/app/data", false)];
    let mut container =
        started(&engine, mounting("echo x > /app/data/x; echo f > /app/f", volumes));
    container.wait(&cancel(), &mut |_, _| {}).unwrap();
    fs_err::create_dir_all(at("in/data")).unwrap();
    fs_err::create_dir(at("other")).unwrap();
    let get = |from: &str, to: &str| copy(&engine, &inside(&container, from), &local(at(to)));
    let put = |from: &str, to: &str| copy(&engine, &local(at(from)), &inside(&container, to));
    let mut tar = Vec::new();
    let packed = engine.copy_to_tar(&inside(&container, "/app"), false, &mut tar, &cancel());
    let refused =
        [get("/app", "out"), get("/.", "out"), packed, put("in/.", "/app"), put("in/data", "/app")];
    for refused in refused {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("mounted at /app/data"), "{error}");
    }
    put("other/.", "/app").unwrap();
    get("/app/data", "out").unwrap();
    get("/app/f", "f").unwrap();
    assert_eq!((text(at("out/x")), text(at("f"))), ("x\n".into(), "f\n".into()));
    container.delete().unwrap();
}

fn what_is_read_only_is_not_written() {
    let (place, engine) = place();
    fs_err::write(place.path().join("in"), "in").unwrap();
    for runs in [true, false] {
        let volumes = vec![
            mount(VolumeSource::Named("ro".to_owned()), "/ro", true),
            mount(VolumeSource::Named("rw".to_owned()), "/rw", false),
        ];
        let process = Process { volumes, read_only: true, ..shell(FOR_EVER) };
        let mut container =
            make(&engine, ContainerOptions { process, ..ContainerOptions::new("app") });
        if runs {
            container.start(Attach::No).unwrap();
        }
        let put =
            |to: &str| copy(&engine, &local(place.path().join("in")), &inside(&container, to));
        for to in ["/ro/", "/tmp/", "/x"] {
            let error = explain(&put(to).unwrap_err());
            assert!(error.to_lowercase().contains("read-only"), "{runs} {to}: {error}");
        }
        put("/rw/").unwrap();
        container.delete().unwrap();
    }
}

fn owners_and_special_modes_are_kept_if_wanted() {
    let (place, engine) = place();
    let files = "mkdir /f; echo x > /f/x; chown 7:8 /f/x; chmod 4751 /f/x";
    for container in two(&engine, files) {
        let out = tempfile::tempdir_in(place.path()).unwrap();
        let facts = |archive: bool| {
            let to = out.path().join(format!("x-{archive}"));
            let options = CopyOptions { archive, ..CopyOptions::default() };
            engine
                .copy_files(&inside(&container, "/f/x"), &local(&to), options, &cancel())
                .unwrap();
            let back = inside(&container, &format!("/f/y-{archive}"));
            engine.copy_files(&local(&to), &back, options, &cancel()).unwrap();
            let metadata = fs_err::metadata(&to).unwrap();
            (metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o7777)
        };
        assert_eq!(facts(true), (7, 8, 0o4751));
        assert_eq!(facts(false), (0, 0, 0o751));
        container.delete().unwrap();
    }
}

fn tars_come_out_and_go_in() {
    let (place, engine) = place();
    let files = "mkdir -p /f/d /g; echo x > /f/d/x; ln /f/d/x /f/y; ln -s d /f/l; chown 3:4 /f/y; \
                 ln -s /etc /g/etc";
    for container in two(&engine, files) {
        let tar = |path: &str, follow: bool| {
            let mut tar = Vec::new();
            engine.copy_to_tar(&inside(&container, path), follow, &mut tar, &cancel()).unwrap();
            tar
        };
        let names = |tar: &[u8]| {
            let file = place.path().join("t.tar");
            fs_err::write(&file, tar).unwrap();
            let output = std::process::Command::new("tar").arg("-tf").arg(file).output().unwrap();
            String::from_utf8(output.stdout)
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(names(&tar("/f", false)), "f/ f/d/ f/d/x f/l f/y");
        assert_eq!(names(&tar("/f/.", false)), "d/ d/x l y");
        assert_eq!(names(&tar("/f/y", false)), "y");
        assert_eq!(names(&tar("/f/l", false)), "l");
        assert_eq!(names(&tar("/f/l", true)), "d/ d/x");
        let whole = tar("/f", false);
        let put = |path: &str, tar: &[u8]| {
            engine.copy_from_tar(container.id(), path, &mut &*tar, &cancel())
        };
        put("/g", &whole).unwrap();
        assert_eq!(tar("/g/f/.", false), tar("/f/.", false));
        // A link that an archive meets leads nowhere but inside the directory.
        fs_err::create_dir_all(place.path().join("evil/etc")).unwrap();
        fs_err::write(place.path().join("evil/etc/passwd"), "evil").unwrap();
        let file = place.path().join("evil.tar");
        let mut command = std::process::Command::new("tar");
        command.arg("-C").arg(place.path().join("evil")).arg("-cf").arg(&file).arg("etc/passwd");
        assert!(command.status().unwrap().success());
        let _ = put("/g", &fs_err::read(&file).unwrap());
        let read =
            copy(&engine, &inside(&container, "/etc/passwd"), &local(place.path().join("p")));
        assert!(read.is_err(), "the link was followed");
        put("/none", &whole).unwrap_err();
        put("/f/y", &whole).unwrap_err();
        put("/g", &whole[..1000]).unwrap_err();
        container.delete().unwrap();
    }
}

fn a_container_that_is_copied_into_starts_with_it() {
    let (place, engine) = place();
    let mut container = make(&engine, scripted("cat /tmp/in"));
    fs_err::write(place.path().join("in"), "before").unwrap();
    copy(&engine, &local(place.path().join("in")), &inside(&container, "/tmp")).unwrap();
    let mut output = String::new();
    container.start(Attach::Yes).unwrap();
    let mut take = |_, bytes: &[u8]| output.push_str(&String::from_utf8_lossy(bytes));
    container.wait(&cancel(), &mut take).unwrap();
    assert_eq!(output, "before");
    container.delete().unwrap();
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn large_files_with_holes_are_copied() {
    let (place, engine) = place();
    let script = "dd if=/dev/zero of=/big bs=1 count=1 seek=200000000 2> /dev/null";
    for container in two(&engine, script) {
        let to = place.path().join("big");
        copy(&engine, &inside(&container, "/big"), &local(&to)).unwrap();
        let copied = fs_err::metadata(&to).unwrap();
        assert_eq!(copied.len(), 200_000_001);
        fs_err::remove_file(&to).unwrap();
        container.delete().unwrap();
    }
}

/// What `rbuild diff` shows.
fn listed(container: &Container) -> String {
    let changes = container.changes(&cancel()).unwrap();
    let line = |change: &ContainerChange| {
        let letter = match change.kind {
            ContainerChangeKind::Added => 'A',
            ContainerChangeKind::Changed => 'C',
            ContainerChangeKind::Deleted => 'D',
        };
        format!("{letter} {}", change.path.display())
    };
    changes.iter().map(line).collect::<Vec<_>>().join(" ")
}

fn what_a_container_changed_is_listed() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN mkdir -p /d/sub /e/x /l && touch /d/f /d/g /e/y && ln -s d /link\n";
    build(&engine, &place.request(text).tag("app"));
    let never = make(&engine, scripted("true"));
    assert_eq!(listed(&never), "");
    never.delete().unwrap();
    let script = "echo x >> /d/f; rm /d/g; touch /d/sub/new; rm -r /e; mkdir -p /e/z; rm -r /l; \
                  echo x > /l; rm /link; mkdir /link; touch /link/f; mkdir -p /new/dir";
    let expected = "C /d C /d/f D /d/g C /d/sub A /d/sub/new C /e D /e/x D /e/y A /e/z C /l \
                    C /link A /link/f A /new A /new/dir";
    for container in two(&engine, script) {
        assert_eq!(listed(&container).replace(" A /ready", ""), expected);
        container.delete().unwrap();
    }
    let mut nothing = started(&engine, scripted("true"));
    nothing.wait(&cancel(), &mut |_, _| {}).unwrap();
    assert_eq!(listed(&nothing), "");
    nothing.delete().unwrap();
}

fn with_mounts(place: &Place, script: &str) -> ContainerOptions {
    let host = place.path().join("host");
    fs_err::create_dir_all(&host).unwrap();
    fs_err::write(host.join("file"), "bound").unwrap();
    let volumes = vec![
        mount(VolumeSource::Named("data".to_owned()), "/mnt/deep/data", false),
        mount(VolumeSource::Path(host.join("file")), "/etc/conf/bound", false),
        mount(VolumeSource::Anonymous, "/beside/own", false),
    ];
    let process = Process { volumes, tmpfs: vec![rbuild::Tmpfs::new("/memory")], ..shell(script) };
    ContainerOptions { process, ..ContainerOptions::new("app") }
}

const IN_MOUNTS: &str = "touch /mnt/deep/data/f /memory/f /beside/own/f; touch /beside/f";

fn what_is_mounted_is_no_change() {
    let (place, engine) = place();
    let mut container = started(&engine, with_mounts(&place, IN_MOUNTS));
    container.wait(&cancel(), &mut |_, _| {}).unwrap();
    assert_eq!(listed(&container), "A /beside A /beside/f");
    container.delete().unwrap();
}

fn directories_above_mounts_keep_what_was_done_to_them() {
    let place = Place::new();
    let engine = place.engine();
    build(&engine, &place.request("FROM base\nRUN mkdir -p /home/app /same/dir\n").tag("app"));
    let targets = ["/home/app/src", "/same/dir/src", "/new/dir", "/made/dir"];
    let volumes =
        targets.iter().map(|target| mount(VolumeSource::Anonymous, target, false)).collect();
    let script = "chown 7:8 /home/app; chmod 700 /home/app /new; touch /home/app/src/f";
    let mut container = started(&engine, mounting(script, volumes));
    container.wait(&cancel(), &mut |_, _| {}).unwrap();
    assert_eq!(listed(&container), "C /home C /home/app A /new");
    engine.commit(container.id(), &named_by("made", &[]), &cancel()).unwrap();
    let stat = "stat -c '%u:%g %a' /home/app /new /same/dir; ls /home/app /new /same/dir";
    let expected = "7:8 700\n0:0 700\n0:0 755\n/home/app:\n\n/new:\n\n/same/dir:\n";
    assert_eq!(place.sh(&engine, "made", stat), expected);
    container.delete().unwrap();
}

fn tar_names(tar: &Path) -> Vec<String> {
    let output = std::process::Command::new("tar").arg("-tf").arg(tar).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn an_export_is_the_root_filesystem() {
    let (place, engine) = place();
    let script = format!("{IN_MOUNTS}; echo x > /tmp/new; rm -r /bin/zcat; ");
    let tar = place.path().join("export.tar");
    for ends in [FOR_EVER, "true"] {
        let container = started(&engine, with_mounts(&place, &format!("{script}{ends}")));
        until("its files", || {
            let to = Destination::File(tar.clone());
            match engine.export_container(container.id(), &to, &cancel()) {
                // The script was just at it.
                Err(BuildError::Image(rbuild_image::ImageError::Changed { .. })) => return false,
                exported => exported.unwrap(),
            };
            tar_names(&tar).contains(&"tmp/new".to_owned())
                && !tar_names(&tar).contains(&"bin/zcat".to_owned())
        });
        let names = tar_names(&tar);
        assert!(
            names.contains(&"bin/busybox".to_owned()) && names.contains(&"beside/f".to_owned())
        );
        let in_mounts = ["mnt/deep/data/f", "memory/f", "beside/own/f"];
        assert!(names.iter().all(|name| !in_mounts.contains(&name.as_str())), "{names:?}");
        container.delete().unwrap();
    }
}

fn named_by(name: &str, changes: &[&str]) -> CommitRequest {
    CommitRequest { words: words(name, changes), pause: true }
}

fn words(name: &str, changes: &[&str]) -> ImageWords {
    ImageWords {
        name: Some(name.to_owned()),
        author: "somebody".to_owned(),
        message: "by hand".to_owned(),
        changes: changes.iter().map(|change| (*change).to_owned()).collect(),
    }
}

fn a_commit_is_a_layer_upon_the_image() {
    let (place, engine) = place();
    let base = engine.image_config("app").unwrap();
    let script = "echo x > /tmp/new; rm /bin/zcat; chmod 4755 /bin/busybox; ln /tmp/new /tmp/other";
    for container in two(&engine, script) {
        let changes = ["CMD [\"cat\", \"/tmp/new\"]", "ENV B=\"$PATH\" C=2", "LABEL a=b"];
        let id = engine.commit(container.name(), &named_by("made:1", &changes), &cancel()).unwrap();
        let made = engine.image_config("made:1").unwrap();
        assert_eq!(made.id, id);
        let layers = made.config.rootfs.diff_ids.len();
        assert_eq!(made.config.rootfs.diff_ids[..layers - 1], base.config.rootfs.diff_ids);
        let last = made.config.history.last().unwrap();
        assert_eq!((last.comment.as_str(), last.author.as_str()), ("by hand", "somebody"));
        assert_eq!(made.config.author, "somebody");
        assert_eq!(made.config.config.labels["a"], "b");
        container.delete().unwrap();
        assert_eq!(place.run(&engine, "made:1", Process::default()), (0, "x\n".to_owned()));
        let shown =
            place.sh(&engine, "made:1", "ls /bin/zcat 2>&1; stat -c %a /bin/busybox; echo $C");
        assert!(shown.contains("No such file") && shown.ends_with("4755\n2\n"), "{shown}");
        // What leaves has the digests that the config names.
        let archive = place.path().join("made.tar");
        let request = SaveRequest {
            images: vec!["made:1".to_owned()],
            output: Output::OciArchive(archive.clone().into()),
            platform: None,
            form: None,
        };
        engine.save_images(&request, &Silent, &cancel()).unwrap();
        let other = Engine::open(place.path().join("other")).unwrap();
        let loaded =
            other.load_images(LoadSource::Path(archive), None, &Silent, &cancel()).unwrap();
        assert_eq!(loaded[0].id, id);
    }
    let container = make(&engine, scripted("true"));
    for change in ["RUN true", "FROM app", "COPY a b", "NOPE", "CMD [\"a\"]\nRUN b"] {
        let error =
            engine.commit(container.id(), &named_by("x", &[change]), &cancel()).unwrap_err();
        assert!(matches!(error, BuildError::Request { .. }), "{change}: {error}");
        assert!(error.to_string().contains("--change"), "{change}: {error}");
    }
    assert!(engine.commit(container.id(), &named_by("NOT A NAME", &[]), &cancel()).is_err());
    let nothing = CommitRequest { words: ImageWords::default(), pause: false };
    let nameless = engine.commit(container.id(), &nothing, &cancel()).unwrap();
    assert_eq!(engine.image_config(&nameless.to_string()).unwrap().names, Vec::<String>::new());
    container.delete().unwrap();
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn a_commit_has_what_the_container_was_started_with() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nENTRYPOINT [\"sh\", \"-c\"]\nCMD [\"echo image\"]\nENV A=1\nEXPOSE 80\n\
                STOPSIGNAL RTMIN+3\nHEALTHCHECK --retries=7 CMD true\n";
    build(&engine, &place.request(text).tag("app"));
    let committed_of = |options: ContainerOptions| {
        let container = make(&engine, options);
        engine.commit(container.id(), &named_by("made", &[]), &cancel()).unwrap();
        container.delete().unwrap();
        engine.image_config("made").unwrap().config.config
    };
    let committed = |process: Process| {
        committed_of(ContainerOptions { process, ..ContainerOptions::new("app") })
    };
    let image = engine.image_config("app").unwrap().config.config;
    assert_eq!(committed(Process::default()), image);
    let health = |test: &[&str]| HealthConfig {
        test: test.iter().map(|word| (*word).to_owned()).collect(),
        ..HealthConfig::default()
    };
    let other = committed_of(ContainerOptions {
        exposed: vec!["81-82/udp".to_owned()],
        stop_signal: Some("9".to_owned()),
        health: health(&["CMD-SHELL", "exit 0"]),
        ..ContainerOptions::new("app")
    });
    let ports: Vec<_> = other.exposed_ports.keys().map(String::as_str).collect();
    assert_eq!(ports, ["80/tcp", "81/udp", "82/udp"]);
    assert_eq!(other.stop_signal, "SIGKILL");
    let checks = other.healthcheck.unwrap();
    assert_eq!((checks.test, checks.retries), (health(&["CMD-SHELL", "exit 0"]).test, 7));
    let none = health(&["NONE"]);
    let other =
        committed_of(ContainerOptions { health: none.clone(), ..ContainerOptions::new("app") });
    assert_eq!(other.healthcheck, Some(none));
    let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let other = committed(Process {
        argv: strings(&["echo other"]),
        env: strings(&["B=2", "A=3"]),
        cwd: Some("/bin".to_owned()),
        user: Some("7".to_owned()),
        ..Process::default()
    });
    assert_eq!(other.entrypoint, image.entrypoint);
    assert_eq!(other.cmd, Some(strings(&["echo other"])));
    // The path is the image's.
    assert_eq!(other.env[1..], strings(&["A=3", "B=2"]));
    assert_eq!(other.env[0], image.env[0]);
    assert_eq!((other.working_dir.as_str(), other.user.as_str()), ("/bin", "7"));
    let entrypoint = Some(strings(&["cat"]));
    let other = committed(Process { entrypoint, argv: strings(&["f"]), ..Process::default() });
    assert_eq!((other.entrypoint, other.cmd), (Some(strings(&["cat"])), Some(strings(&["f"]))));
}

fn what_is_for_builds_upon_the_image_stays_behind() {
    let place = Place::new();
    let engine = place.engine();
    build(&engine, &place.request("FROM base\nONBUILD RUN touch /built\n").tag("app"));
    let container = make(&engine, scripted("true"));
    for (changes, expected) in [(&[][..], &[][..]), (&["ONBUILD RUN true"], &["RUN true"])] {
        engine.commit(container.id(), &named_by("made", changes), &cancel()).unwrap();
        assert_eq!(engine.image_config("made").unwrap().config.config.on_build, expected);
    }
    container.delete().unwrap();
}

fn a_commit_holds_no_mount_points() {
    let (place, engine) = place();
    let mut container = started(&engine, with_mounts(&place, IN_MOUNTS));
    container.wait(&cancel(), &mut |_, _| {}).unwrap();
    engine.commit(container.id(), &named_by("made", &[]), &cancel()).unwrap();
    let shown = place.sh(&engine, "made", "ls / /beside; ls /etc/conf 2>&1 || true");
    for gone in ["mnt", "memory", "own"] {
        assert!(!shown.contains(gone), "{shown}");
    }
    assert!(shown.contains("f\n") && shown.contains("No such file"), "{shown}");
    container.delete().unwrap();
}

fn an_import_is_an_image_of_one_layer() {
    let (place, engine) = place();
    let container = make(&engine, scripted("true"));
    let tar = place.path().join("export.tar");
    engine.export_container(container.id(), &Destination::File(tar.clone()), &cancel()).unwrap();
    assert!(std::process::Command::new("gzip").arg("-k").arg(&tar).status().unwrap().success());
    let mut ids = Vec::new();
    for name in ["export.tar", "export.tar.gz"] {
        let mut file = fs_err::File::open(place.path().join(name)).unwrap();
        let changes = ["ENTRYPOINT [\"/bin/echo\", \"hello\"]"];
        engine.import_image(&mut file, None, &words("imported", &changes), &cancel()).unwrap();
        let made = engine.image_config("imported").unwrap();
        assert_eq!(made.config.history.len(), 1);
        ids.push(made.config.rootfs.diff_ids.clone());
        assert_eq!(place.run(&engine, "imported", Process::default()), (0, "hello\n".to_owned()));
    }
    assert_eq!(ids[0], ids[1]);
    let damaged = fs_err::read(&tar).unwrap();
    let mut damaged = &damaged[..damaged.len() / 2];
    engine.import_image(&mut damaged, None, &words("damaged", &[]), &cancel()).unwrap_err();
    assert!(engine.image_config("damaged").is_err());
    container.delete().unwrap();
    assert_eq!(place.leftovers(), Vec::<String>::new());
}
