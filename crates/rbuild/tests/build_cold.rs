//! The same build on another day, in another store, by another caller.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rbuild::{BuildRequest, Built, Engine, EngineOptions, Output};

use crate::child;
use crate::exported::{Exported, text};
use crate::support::{Place, build, id};
use crate::tests;

tests![
    two_stores_give_the_same_image,
    a_fixed_time_is_that_of_workdirs_and_written_files,
    without_a_fixed_time_the_layers_are_still_the_same,
    the_callers_umask_is_not_in_the_image,
    the_order_of_directory_entries_is_not_in_the_image,
    the_number_of_jobs_is_not_in_the_image,
    a_large_file_is_not_held_in_memory,
];

/// All that a RUN makes here has a time that it sets itself, and COPY finds its directories.
const FIXED: &str = "\
FROM scratch AS base
COPY root /
RUN [\"/bin/busybox\", \"sh\", \"-c\", \"cd /src; /bin/busybox mkdir made; echo 1 > made/1; \\
  echo 2 > made/2; /bin/busybox ln made/1 made/3; /bin/busybox ln -s 2 made/4; \\
  /bin/busybox touch -h -d @86400 made/* made . /bin\"]
ENV A=1
LABEL b=2
CMD [\"/bin/busybox\", \"true\"]
";

fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs_err::File::open(path).unwrap().file().set_modified(time).unwrap();
}

/// Sets the times of everything in the context.
fn settle(place: &Place) {
    let mut waiting = vec![place.context()];
    let mut all = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in fs_err::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path.clone());
            }
            all.push(path);
        }
        all.push(directory);
    }
    for path in all {
        set_time(&path, 1_000_000_000);
    }
}

fn cold() -> Place {
    let place = Place::new();
    place.write("root/src/one.txt", "1\n");
    place.write("root/src/deep/er/two.txt", "2\n");
    place.write("root/bin/busybox", fs_err::read("/bin/busybox").unwrap());
    let busybox = place.context().join("root/bin/busybox");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(busybox, mode).unwrap();
    // A first RUN makes these where they are missing, and with the time of the day.
    for name in ["proc", "sys", "dev"] {
        fs_err::create_dir_all(place.context().join("root").join(name)).unwrap();
    }
    settle(&place);
    place
}

/// Builds [`FIXED`] in a store of this name.
fn build_in(place: &Place, store: &str, request: &BuildRequest) -> (Built, Exported) {
    let options = EngineOptions { root: place.path().join(store), ..place.options() };
    let engine = Engine::with_options(options).unwrap();
    let path = place.path().join(format!("{store}.tar"));
    let built = build(&engine, &request.clone().output(Output::OciArchive(path.clone().into())));
    (built, Exported::from_tar(&path))
}

fn request(place: &Place) -> BuildRequest {
    BuildRequest::new(place.context()).dockerfile_text(FIXED)
}

fn two_stores_give_the_same_image() {
    let place = cold();
    let request = request(&place).arg("SOURCE_DATE_EPOCH", "1234567890");
    let (first, image) = build_in(&place, "one", &request);
    std::thread::sleep(Duration::from_millis(1100));
    let (second, again) = build_in(&place, "two", &request);
    assert_eq!(first.executed, second.executed, "the second store knew something");
    assert_ne!(second.executed, 0);
    assert_eq!(id(&first), id(&second), "{}\n{}", image.config(), again.config());
    // Not the id alone, but every byte that leaves.
    assert!(image == again, "{:?}\n{:?}", image.0.keys(), again.0.keys());
    assert_eq!(text(&image.config()["created"]), "2009-02-13T23:31:30Z");
    image.check();
}

fn a_fixed_time_is_that_of_workdirs_and_written_files() {
    let place = cold();
    let text = "FROM scratch\nWORKDIR /made/here\nCOPY root/src/one.txt .\n";
    let out = place.path().join("out");
    let request = BuildRequest::new(place.context())
        .dockerfile_text(text)
        .arg("SOURCE_DATE_EPOCH", "1234567890")
        .output(Output::Directory(out.clone()));
    let (first, _) = build_in(&place, "one", &request);
    let time = |path: &Path| fs_err::symlink_metadata(path).unwrap().mtime();
    for path in ["made", "made/here", "made/here/one.txt"] {
        assert_eq!(time(&out.join(path)), 1_234_567_890, "{path}");
    }
    std::thread::sleep(Duration::from_millis(1100));
    let (second, _) = build_in(&place, "two", &request);
    assert_eq!(id(&first), id(&second));
}

fn without_a_fixed_time_the_layers_are_still_the_same() {
    let place = cold();
    let (first, image) = build_in(&place, "one", &request(&place));
    std::thread::sleep(Duration::from_millis(1100));
    let (second, again) = build_in(&place, "two", &request(&place));
    assert_eq!(image.config()["rootfs"], again.config()["rootfs"]);
    assert_eq!(image.manifest()["layers"], again.manifest()["layers"]);
    // The image says when it was built.
    assert_ne!(id(&first), id(&second));
}

fn the_callers_umask_is_not_in_the_image() {
    let place = cold();
    let dockerfile = place.path().join("Dockerfile");
    // Directories that the engine makes: for COPY, for WORKDIR, for mounts, in all depths.
    let more = "COPY root/src/one.txt /new/deep/\nWORKDIR /work/dir\n\
                RUN --mount=type=tmpfs,target=/mnt/deep --mount=target=/in/deep [\"/bin/busybox\", \
                \"touch\", \"-d\", \"@86400\", \"/new\", \"/new/deep\", \"/new/deep/one.txt\", \
                \"/work\", \"/work/dir\"]\n\
                FROM scratch\nCOPY --from=base / /\n";
    fs_err::write(&dockerfile, format!("ARG SOURCE_DATE_EPOCH=7\n{FIXED}{more}")).unwrap();
    let mut ids = Vec::new();
    for umask in ["022", "077", "0", "777"] {
        let store = place.path().join(format!("store-{umask}"));
        let mut child = child::build_with_umask(&store, &place.context(), &dockerfile, umask);
        let told = child::result(child.output());
        assert_ne!(told.executed, 0);
        ids.push((umask, told.id));
    }
    assert!(ids.iter().all(|(_, id)| *id == ids[0].1), "{ids:?}");
}

fn the_order_of_directory_entries_is_not_in_the_image() {
    let names: Vec<String> =
        (0..40).map(|number| format!("root/src/many/file-{}", number * 7919)).collect();
    let fill = |place: &Place, names: &[String]| {
        for name in names {
            place.write(name, name);
        }
        settle(place);
    };
    let (one, two) = (cold(), cold());
    fill(&one, &names);
    let reversed: Vec<String> = names.iter().rev().cloned().collect();
    // Removed names leave gaps behind that later ones fill.
    fill(&two, &reversed);
    for name in &reversed[..20] {
        fs_err::remove_file(two.context().join(name)).unwrap();
    }
    fill(&two, &reversed[..20]);
    let epoch = |place: &Place| request(place).arg("SOURCE_DATE_EPOCH", "7");
    let (first, image) = build_in(&one, "store", &epoch(&one));
    let (second, _) = build_in(&two, "store", &epoch(&two));
    assert_eq!(id(&first), id(&second));
    let mut archive = tar::Archive::new(std::io::Cursor::new(image.layers().remove(0)));
    let in_layer: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().into_owned())
        .filter(|path| path.starts_with("src/many/"))
        .collect();
    assert!(in_layer.len() > names.len(), "{in_layer:?}");
    assert!(in_layer.is_sorted(), "{in_layer:?}");
}

fn the_number_of_jobs_is_not_in_the_image() {
    let place = cold();
    let mut text = FIXED.to_owned();
    for stage in 0..5 {
        let run = format!("/bin/busybox touch -d @{stage} /{stage}");
        let _ = write!(
            text,
            "FROM base AS s{stage}\nRUN [\"/bin/busybox\", \"sh\", \"-c\", {run:?}]\n"
        );
    }
    text.push_str("FROM scratch\n");
    for stage in (0..5).rev() {
        let _ = writeln!(text, "COPY --from=s{stage} /{stage} /");
    }
    let mut ids = Vec::new();
    for jobs in [1, 8] {
        let mut request =
            BuildRequest::new(place.context()).dockerfile_text(&text).arg("SOURCE_DATE_EPOCH", "7");
        request.jobs = Some(jobs);
        ids.push(id(&build_in(&place, &format!("jobs-{jobs}"), &request).0));
    }
    assert_eq!(ids[0], ids[1]);
}

fn a_large_file_is_not_held_in_memory() {
    const SIZE: usize = 200 << 20;
    const LIMIT_KB: u64 = 128 << 10;
    let place = Place::new();
    // A hole in the middle and something at both ends, so that it is no file of zeros.
    let path = place.write("large", vec![7; 10 << 20]);
    let mut file = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
    file.file().set_len(SIZE as u64 - 3).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
    std::io::Write::write_all(&mut file, b"end").unwrap();
    drop(file);
    let dockerfile = place.path().join("Dockerfile");
    fs_err::write(
        &dockerfile,
        "FROM scratch AS one\nCOPY large /in/large\nFROM scratch\nCOPY --from=one /in /out\n",
    )
    .unwrap();
    let mut command: Command = child::build(&place.store(), &place.context(), &dockerfile);
    let told = child::result(command.output());
    assert_eq!(told.executed, 2);
    assert!(told.peak < LIMIT_KB, "{} kB at the peak", told.peak);
}
