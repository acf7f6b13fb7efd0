//! What a RUN step sees, and what it leaves in the image.

use rbuild::{Engine, Process};

use crate::support::{Place, id};
use crate::tests;

tests![
    a_step_sees_what_the_dockerfile_says,
    injected_files_are_in_no_layer,
    a_dangling_resolv_conf_serves_and_stays,
    an_image_without_etc_does,
    devices_of_strangers_open_nothing,
    a_mount_over_dev_does_not_unmask_proc,
    a_very_long_dockerfile_is_no_crash,
    a_program_that_is_no_helper_is_named,
];

fn a_step_sees_what_the_dockerfile_says() {
    let place = Place::new();
    let engine = place.engine();
    place.build(
        &engine,
        "RUN mkdir -m 1777 /tmp\n\
         ARG WHO=nobody\nENV KIND=test PATH=/bin\nWORKDIR /work/here\nUSER 1000:1001\n\
         RUN test \"$WHO$KIND\" = nobodytest && test \"$(pwd)\" = /work/here && \
             test \"$(id -u):$(id -g)\" = 1000:1001 && test \"$(hostname)\" = buildkitsandbox && \
             grep -q buildkitsandbox /etc/hosts && test -s /etc/hostname && \
             grep -q 192.0.2.1 /etc/resolv.conf && test -z \"$CARGO_MANIFEST_DIR\" && \
             test \"$(umask)\" = 0022 && echo fine > /tmp/fine || { id; env; pwd; exit 1; }\n",
    );
}

/// Names of files in the topmost layers of an image, those of the base left out.
fn names(place: &Place, engine: &Engine, text: &str) -> Vec<String> {
    let target = place.path().join("names.tar");
    let request = place.request(text).output(rbuild::Output::Tar(target.clone().into()));
    crate::support::build(engine, &request);
    let file = fs_err::File::open(&target).unwrap();
    let mut archive = tar::Archive::new(file);
    let entries = archive.entries().unwrap();
    entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

fn injected_files_are_in_no_layer() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN test -s /etc/hosts && test -s /etc/resolv.conf && touch /mark\n";
    let names = names(&place, &engine, text);
    assert!(names.iter().any(|name| name == "mark"), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("etc/")), "{names:?}");
    for directory in ["proc", "sys", "dev"] {
        let inside = names.iter().filter(|name| name.starts_with(&format!("{directory}/")));
        assert!(inside.clone().all(|name| name.ends_with('/')), "{:?}", inside.collect::<Vec<_>>());
    }
}

fn a_dangling_resolv_conf_serves_and_stays() {
    let place = Place::new();
    let engine = place.engine();
    let link = "../run/resolved/stub.conf";
    let request = place
        .request(&format!(
            "FROM base AS maker\nRUN mkdir /made && ln -s {link} /made/resolv.conf\n\
             FROM base\nCOPY --from=maker /made/ /etc/\nRUN grep -q 192.0.2.1 /etc/resolv.conf\n"
        ))
        .output(rbuild::Output::Directory(place.path().join("out")));
    crate::support::build(&engine, &request);
    let out = place.path().join("out");
    assert_eq!(fs_err::read_link(out.join("etc/resolv.conf")).unwrap().to_str(), Some(link));
    assert!(!out.join("run").exists(), "the place it leads to was only borrowed");
}

fn an_image_without_etc_does() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM scratch\nCOPY busybox /\nRUN [\"/busybox\", \"test\", \"-s\", \"/etc/hosts\"]\n\
                CMD [\"/busybox\", \"ls\", \"/\"]\n";
    let request = rbuild::BuildRequest::new(place.context())
        .dockerfile_text(text)
        .tag("bare")
        .output(rbuild::Output::Directory(place.path().join("out")));
    crate::support::build(&engine, &request);
    assert!(!place.path().join("out/etc").exists());
    let (code, output) = place.run(&engine, "bare", Process::default());
    assert_eq!(code, 0);
    assert!(output.contains("busybox"), "{output}");
}

/// Docker's capabilities include CAP_MKNOD, and a device node is the host's device.
fn devices_of_strangers_open_nothing() {
    let place = Place::new();
    let engine = place.engine();
    // A device that every host has and that is harmless: it stands for the disks.
    let make = "for at in /node /dev/node /dev/shm/node /dev/mqueue/node /cache/node /mem/node; do \
                  if mknod $at c 1 3 2> /dev/null && echo x > $at; then echo $at; exit 1; fi; \
                done 2> /dev/null; echo fine > /dev/null; head -c 1 /dev/urandom > /dev/zero";
    place.build(
        &engine,
        &format!(
            "FROM base AS nodes\nRUN mkdir /mem; mknod /node c 1 3\nFROM nodes\n\
             RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/mem {make}\n\
             RUN --mount=from=nodes,target=/in ! echo x > /in/node && ! echo x > /node\n"
        ),
    );
}

fn a_mount_over_dev_does_not_unmask_proc() {
    let place = Place::new();
    let engine = place.engine();
    place.build(
        &engine,
        "FROM base AS evil\nRUN mkdir -p /d/pts && ln -s /proc/uptime /d/null && touch /d/keys\n\
         FROM base\nRUN --mount=from=evil,source=/d,target=/dev test ! -s /proc/keys && \
         test -z \"$(cat /proc/keys)\"\n",
    );
}

/// More steps than any overlay takes, and more than any stack would bear.
fn a_very_long_dockerfile_is_no_crash() {
    let place = Place::new();
    let engine = place.engine();
    let mut text = String::from("FROM base\nRUN exit 7\n");
    for number in 0..20_000 {
        text.push_str(&format!("WORKDIR /{number}\n"));
    }
    let error = crate::support::build_error(&engine, &place.request(&text));
    assert!(error.to_string().contains("exit code: 7"), "{error}");
}

fn a_program_that_is_no_helper_is_named() {
    let place = Place::new();
    let options = rbuild::EngineOptions { helper: Some("/bin/true".into()), ..place.options() };
    let engine = rbuild::Engine::with_options(options).unwrap();
    let error = crate::support::build_error(&engine, &place.request(""));
    assert!(error.to_string().contains("sandbox_main"), "{error}");
    assert!(error.to_string().contains("/bin/true"), "{error}");
    // The store is as good as before.
    drop(engine);
    let built = place.build(&place.engine(), "");
    assert_eq!(id(&built), id(&place.build(&place.engine(), "")));
}
