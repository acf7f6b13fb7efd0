//! Building twice under other conditions, and in two stores.

use std::collections::BTreeMap;
use std::path::Path;

use rbuild::{
    BuildRequest, CancelToken, Cause, ContextMode, Engine, Output, Repro, ReproDifference, Round,
    Silent,
};

use crate::support::{Place, build};
use crate::tests;

tests![
    what_a_dockerfile_says_is_the_same_bytes_under_other_conditions,
    modes_of_a_work_tree_do_not_count_and_others_do,
    known_causes_are_named_with_the_file_and_the_instruction,
    without_fixed_times_times_are_the_cause,
    the_time_of_the_image_is_the_cause_where_no_file_differs,
    an_image_for_two_platforms_is_compared_as_a_whole,
    two_stores_give_the_same_manifest,
    what_cannot_be_built_twice_is_named,
];

fn repro(engine: &Engine, request: &BuildRequest) -> Repro {
    let cancel = CancelToken::default();
    engine
        .repro(request, &mut |_, request| engine.build(request, &Silent, &cancel), &cancel)
        .unwrap()
}

fn fixed(engine: &Engine, mut request: BuildRequest) -> BuildRequest {
    engine.fix_times(&mut request, &CancelToken::default()).unwrap();
    request
}

const TEXT: &str = "\
FROM base AS one
WORKDIR /one
COPY . .
RUN find . -type f | sort | xargs md5sum > /sums && mkdir -p /a/b && touch /a/b/c
FROM base AS two
RUN sleep 0.1; seq 100 > /numbers
FROM base
COPY --from=one /sums /a /out/
COPY --from=two /numbers /out/
COPY docs /docs
RUN ls -R / > /dev/null; umask > /umask
CMD [\"sh\"]
";

fn fill(place: &Place) {
    for name in ["b.txt", "a.txt", "docs/z/deep.txt", "docs/m.txt", "docs/a.txt"] {
        place.write(name, name);
    }
    std::os::unix::fs::symlink("a.txt", place.context().join("link")).unwrap();
    fs_err::hard_link(place.context().join("b.txt"), place.context().join("c.txt")).unwrap();
}

fn what_a_dockerfile_says_is_the_same_bytes_under_other_conditions() {
    let place = Place::new();
    fill(&place);
    let engine = place.engine();
    let request = fixed(&engine, place.request(TEXT));
    let repro = repro(&engine, &request);
    assert_eq!(repro.difference, None, "{repro:?}");
    assert_eq!(repro.first, repro.second);
    for what in ["time", "host name", "owner, times, order", "parallelism"] {
        assert!(repro.varied.iter().any(|varied| varied.contains(what)), "{:?}", repro.varied);
    }
    // The copy is no project of which anything is remembered.
    assert!(!engine.last_build().unwrap().unwrap().title.contains("repro-"));
    drop(engine);
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn modes_of_a_work_tree_do_not_count_and_others_do() {
    let place = Place::new();
    fill(&place);
    let set_mode = |path: &Path, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs_err::set_permissions(path, mode).unwrap();
    };
    set_mode(&place.write("run.sh", "#!/bin/sh\n"), 0o755);
    set_mode(&place.context().join("a.txt"), 0o664);
    let engine = place.engine();
    let request =
        place.request("FROM base\nCOPY . /x\nRUN find /x | xargs stat -c '%a %n' > /modes\n");
    for mode in [ContextMode::Git, ContextMode::Plain] {
        let mut request = fixed(&engine, request.clone());
        request.context_mode = Some(mode);
        let repro = repro(&engine, &request);
        assert_eq!(repro.difference, None, "{mode:?}: {repro:?}");
        let says = repro.varied.iter().any(|varied| varied.contains("umask"));
        assert_eq!(says, mode == ContextMode::Git);
    }
    // The copy is taken for a work tree where the directory is one.
    fs_err::create_dir(place.path().join(".git")).unwrap();
    let repro = repro(&engine, &fixed(&engine, request));
    assert_eq!(repro.difference, None, "{repro:?}");
}

fn known_causes_are_named_with_the_file_and_the_instruction() {
    let place = Place::new();
    let engine = place.engine();
    let random = "head -c 4 /dev/urandom";
    let elf_note = "\\4\\0\\0\\0\\4\\0\\0\\0\\3\\0\\0\\0GNU\\0";
    let planted = [
        ("var/log/apt/history.log", Cause::Log, "date +%s".to_owned()),
        ("var/log/dpkg.log", Cause::Log, random.to_owned()),
        ("var/cache/ldconfig/aux-cache", Cause::LoaderCache, random.to_owned()),
        ("var/lib/apt/lists/x_InRelease", Cause::AptCache, random.to_owned()),
        ("etc/machine-id", Cause::MachineId, "head -c 16 /dev/urandom | md5sum".to_owned()),
        ("var/lib/dpkg/status-old", Cause::Backup, random.to_owned()),
        ("etc/ssh/ssh_host_rsa_key", Cause::SshHostKey, random.to_owned()),
        (
            "etc/shadow",
            Cause::PasswordDay,
            "echo \"a:!:$(($(hostname | wc -c) + 19000)):0:::::\"".to_owned(),
        ),
        (
            "app/__pycache__/x.cpython-311.pyc",
            Cause::PycTime,
            format!("printf '\\247\\r\\r\\n\\0\\0\\0\\0'; {random}; printf 'size and code'"),
        ),
        ("x.gz", Cause::GzipTime, format!("printf '\\37\\213\\10\\0'; {random}; echo data")),
        ("app/program", Cause::BuildId, format!("cat /elf; printf '{elf_note}'; {random}")),
        (
            "x.tar",
            Cause::ArchiveOrder,
            "cd /bin; case $(hostname) in build*) tar c ls cat;; *) tar c cat ls;; esac".to_owned(),
        ),
        ("y.tar", Cause::ArchiveTime, "cd /clock; tar c fixed".to_owned()),
        ("host", Cause::HostName, "hostname".to_owned()),
        ("built", Cause::TimeInContent, "date".to_owned()),
        ("seconds", Cause::TimeInContent, "echo built at $(date +%s)".to_owned()),
    ];
    let mut script =
        String::from("mkdir /clock; echo same > /clock/fixed; mktemp -d /opt-XXXXXX\n");
    for (path, _, command) in &planted {
        script.push_str(&format!("mkdir -p $(dirname /{path}); ({command}) > /{path}\n"));
    }
    // One section, whose note is the end of the file.
    let mut header = vec![0_u8; 128];
    header[..6].copy_from_slice(b"\x7fELF\x02\x01");
    header[40] = 64;
    (header[58], header[60]) = (64, 1);
    (header[64 + 4], header[64 + 24], header[64 + 32]) = (7, 128, 20);
    place.write("elf", &header);
    let text = format!("FROM base\nCOPY elf /\nRUN <<EOF\n{script}EOF\nRUN echo above\n");
    let request = fixed(&engine, place.request(&text));
    let repro = repro(&engine, &request);
    let Some(ReproDifference::Layer { index, layer, files, more_files: 0 }) = repro.difference
    else {
        panic!("{repro:?}");
    };
    assert_eq!(index, 3);
    assert!(layer.created_by.starts_with("RUN /bin/sh -c mkdir /clock"), "{layer:?}");
    let found: BTreeMap<String, Option<Cause>> = files
        .iter()
        .map(|(file, cause)| (String::from_utf8_lossy(&file.path).into_owned(), *cause))
        .collect();
    for (path, cause, _) in &planted {
        assert_eq!(found.get(*path), Some(&Some(*cause)), "{path} in {found:#?}");
    }
    let random: Vec<_> = found.iter().filter(|(path, _)| path.starts_with("opt-")).collect();
    assert_eq!(random.len(), 2, "{found:#?}");
    assert!(random.iter().all(|(_, cause)| **cause == Some(Cause::RandomName)), "{random:?}");
    assert_eq!(found.len(), planted.len() + 2, "{found:#?}");
}

fn without_fixed_times_times_are_the_cause() {
    let place = Place::new();
    let engine = place.engine();
    let request =
        place.request("FROM scratch\nCOPY --from=base /bin/busybox /b\nCOPY busybox /c\n");
    let repro = repro(&engine, &request);
    let Some(ReproDifference::Layer { files, .. }) = &repro.difference else {
        panic!("{repro:?}");
    };
    assert!(files.iter().all(|(_, cause)| *cause == Some(Cause::FileTime)), "{files:?}");
    assert_ne!(repro.first, repro.second);
}

fn the_time_of_the_image_is_the_cause_where_no_file_differs() {
    let place = Place::new();
    let engine = place.engine();
    for epoch in ["1000", "2000"] {
        let mut request = place.request("FROM scratch\nENV A=1\n").tag(epoch);
        request.options.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned());
        build(&engine, &request);
    }
    // What is made here again as it was keeps its time. A base may have been made again elsewhere.
    engine.tag_image("1000", "kept").unwrap();
    let cancel = CancelToken::default();
    let mut rounds = |round, request: &BuildRequest| {
        if round == Round::Second {
            engine.tag_image("2000", "kept").unwrap();
        }
        engine.build(request, &Silent, &cancel)
    };
    let request = place.request("FROM kept\nENV B=1\n");
    let repro = engine.repro(&request, &mut rounds, &cancel).unwrap();
    let Some(ReproDifference::Config { fields, cause: Some(Cause::ImageTime) }) = &repro.difference
    else {
        panic!("{repro:?}");
    };
    let names: Vec<&str> = fields.iter().map(|field| field.field.as_str()).collect();
    assert_eq!(names, ["created", "history[0].created", "history[1].created"]);
}

fn an_image_for_two_platforms_is_compared_as_a_whole() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM --platform=$BUILDPLATFORM base AS made\nARG TARGETARCH\n\
                RUN case $TARGETARCH in arm64) hostname;; *) echo same;; esac > /made\n\
                FROM scratch\nCOPY --from=made /made /\n";
    let mut request = place.request(text);
    for platform in ["linux/amd64", "linux/arm64"] {
        request = request.platform(platform.parse().unwrap());
    }
    let repro = repro(&engine, &fixed(&engine, request));
    let Some(ReproDifference::Layer { files, .. }) = &repro.difference else {
        panic!("{repro:?}");
    };
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].1, Some(Cause::HostName));
}

fn two_stores_give_the_same_manifest() {
    let digests: Vec<_> = (0..2)
        .map(|round| {
            let place = Place::new();
            fill(&place);
            let engine = place.engine();
            let archive = place.path().join("image.tar");
            let mut request = fixed(&engine, place.request(TEXT));
            request.jobs = Some(1 + round * 3);
            let output = Output::OciArchive(archive.clone().into());
            let image = build(&engine, &request.output(output)).image.unwrap();
            // No second of the first build comes again.
            std::thread::sleep(std::time::Duration::from_millis(1100));
            (image.id, image.manifest_digest, image.exported, fs_err::read(archive).unwrap())
        })
        .collect();
    assert_eq!(digests[0].1, digests[1].1);
    assert!(digests[0] == digests[1], "the archives differ");
}

fn what_cannot_be_built_twice_is_named() {
    let place = Place::new();
    let engine = place.engine();
    let cancel = CancelToken::default();
    let request = place.request("FROM base\n").tag("x");
    let refused = engine.repro(&request, &mut |_, _| unreachable!(), &cancel).unwrap_err();
    assert!(refused.to_string().contains("an image with a name"), "{refused}");
}
