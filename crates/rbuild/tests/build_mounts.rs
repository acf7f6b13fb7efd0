//! `RUN --mount`: what a step gets, and what is left of it.

use std::fmt::Write as _;
use std::io::{Read as _, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rbuild::{BuildError, Engine, NoCache, Output, StepError};

use crate::child;
use crate::exported::{self, Exported, top_names};
use crate::support::{Place, build, build_error, explain, ran};
use crate::tests;

tests![
    a_bind_shows_the_context_without_what_is_ignored,
    a_bind_shows_a_stage_and_an_image,
    a_bind_may_not_be_written,
    what_is_written_to_a_bind_is_thrown_away,
    a_bind_of_one_file_is_that_file,
    the_source_of_a_mount_is_no_pattern,
    a_bind_of_nothing_says_so,
    a_bind_leads_nowhere_else,
    a_cache_is_kept_from_build_to_build,
    caches_are_told_apart,
    a_locked_cache_has_one_user_at_a_time,
    a_private_cache_is_never_shared,
    without_cache_a_cache_mount_starts_anew,
    a_tmpfs_is_empty_and_in_no_layer,
    a_secret_is_a_file_for_its_owner,
    a_secret_is_a_variable,
    a_secret_is_seen_in_another_mount,
    a_secret_is_any_bytes_and_never_written,
    a_secret_is_nowhere_in_image_or_store,
    another_secret_is_no_other_step,
    a_missing_secret_matters_when_it_is_required,
    mount_targets_leave_no_trace,
    what_lies_under_a_mount_stays,
    mounts_lie_in_mounts,
    an_agent_is_a_socket_that_leads_to_the_callers,
    keys_in_files_have_an_agent_of_the_engines,
    a_missing_agent_matters_when_it_is_required,
    a_new_cache_starts_with_the_files_of_a_stage,
    a_seed_leads_nowhere_else,
];

fn a_bind_shows_the_context_without_what_is_ignored() {
    let place = Place::new();
    let engine = place.engine();
    place.write("src/a/one.txt", "1\n");
    place.write("src/two.txt", "2\n");
    place.write("src/hidden.txt", "no\n");
    place.write(".dockerignore", "**/hidden.txt\n");
    place.build(
        &engine,
        "FROM base\n\
         RUN --mount=target=/in test \"$(cat /in/src/a/one.txt)$(cat /in/src/two.txt)\" = 12\n\
         RUN --mount=target=/in test ! -e /in/src/hidden.txt\n\
         RUN --mount=target=in,source=src,type=bind test \"$(ls /in)\" = \"$(printf 'a\\ntwo.txt')\"\n\
         WORKDIR /w\n\
         RUN --mount=target=. test -e /w/src/two.txt\n",
    );
}

fn a_bind_shows_a_stage_and_an_image() {
    let place = Place::new();
    let engine = place.engine();
    build(&engine, &place.request("FROM base\nRUN echo image > /of-image\n").tag("other"));
    place.build(
        &engine,
        "FROM base AS one\nRUN mkdir /d && echo one > /d/file\n\
         FROM one AS two\nRUN echo two > /d/file\n\
         FROM base\n\
         RUN --mount=from=one,target=/one --mount=from=two,source=/d,target=/two \
             --mount=from=other,target=/other \
             test \"$(cat /one/d/file /two/file /other/of-image | tr -d '\\n')\" = onetwoimage\n\
         RUN --mount=from=scratch,target=/nothing test -z \"$(ls -A /nothing)\"\n",
    );
}

fn a_bind_may_not_be_written() {
    let place = Place::new();
    let engine = place.engine();
    let file = place.write("src/file", "mine\n");
    let attempts = [
        "echo x > /in/file",
        "echo x >> /in/file",
        "echo x > /in/new",
        "rm /in/file",
        "mkdir /in/directory",
        "chmod 777 /in/file",
        "touch /in/file",
        "mount -o remount,rw /in",
    ];
    for from in ["", "from=stage,"] {
        for attempt in attempts {
            let text = format!(
                "FROM base AS stage\nCOPY src /src\nFROM base\n\
                 RUN --mount={from}target=/in,source=/src {attempt}\n"
            );
            let error = build_error(&engine, &place.request(&text));
            let told = explain(&error);
            assert!(matches!(error, BuildError::Step { .. }), "{attempt}: {told}");
            let reason = ["Read-only file system", "ermission denied", "not permitted"];
            assert!(reason.iter().any(|reason| told.contains(reason)), "{attempt}: {told}");
        }
    }
    assert_eq!(fs_err::read(file).unwrap(), b"mine\n");
}

fn what_is_written_to_a_bind_is_thrown_away() {
    let place = Place::new();
    let engine = place.engine();
    let file = place.write("src/file", "mine\n");
    let text = |from: &str| {
        format!(
            "FROM base AS stage\nCOPY src /src\nFROM base\n\
             RUN --mount={from}target=/in,source=/src,rw \
                 echo x > /in/file && rm -r /in/sub && touch /in/new && cp /in/file /copy\n\
             RUN --mount={from}target=/in,source=/src \
                 test \"$(cat /in/file)\" = mine && test -d /in/sub && test ! -e /in/new\n\
             RUN test \"$(cat /copy)\" = x && test ! -e /in\n"
        )
    };
    fs_err::create_dir(place.context().join("src/sub")).unwrap();
    for from in ["", "from=stage,"] {
        place.build(&engine, &text(from));
        assert_eq!(fs_err::read(&file).unwrap(), b"mine\n");
        assert!(!place.context().join("src/new").exists());
        assert!(place.context().join("src/sub").exists());
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn a_bind_of_one_file_is_that_file() {
    let place = Place::new();
    let engine = place.engine();
    place.write("conf/app.conf", "app\n");
    let text = "FROM base\nRUN mkdir -p /etc && echo old > /etc/app.conf\n\
                RUN --mount=target=/etc/app.conf,source=conf/app.conf \
                    --mount=target=/etc/new.conf,source=conf/app.conf \
                    test \"$(cat /etc/app.conf)\" = app && cp /etc/new.conf /copied\n\
                RUN test \"$(cat /etc/app.conf)\" = old && test ! -e /etc/new.conf && test -e /copied\n";
    place.build(&engine, text);
}

fn the_source_of_a_mount_is_no_pattern() {
    let place = Place::new();
    let engine = place.engine();
    place.write("a[b]*/file", "right\n");
    place.write("abc/file", "wrong\n");
    place.write("ab/file", "wrong\n");
    place.build(
        &engine,
        "FROM base AS seed\nRUN mkdir '/a[b]*' /ab /abc && echo right > '/a[b]*/file'\n\
         FROM base\n\
         RUN --mount=target=/in,source=a[b]* test $(cat /in/file) = right\n\
         RUN --mount=target=/in,from=seed,source=/a[b]* test $(cat /in/file) = right\n\
         RUN --mount=type=cache,target=/in,from=seed,source=/a[b]* test $(cat /in/file) = right\n",
    );
}

fn a_bind_of_nothing_says_so() {
    let place = Place::new();
    let engine = place.engine();
    for from in ["", "from=base,"] {
        let text = format!("FROM base\nRUN --mount={from}target=/in,source=/mis/sing true\n");
        let error = build_error(&engine, &place.request(&text));
        let told = explain(&error);
        assert!(told.contains("/mis/sing") && told.contains("not found"), "{told}");
    }
}

/// Links of strangers are followed below their own root.
fn a_bind_leads_nowhere_else() {
    let place = Place::new();
    let engine = place.engine();
    let secret = place.path().join("of-the-host");
    fs_err::write(&secret, "marks the host\n").unwrap();
    let link = place.context().join("link");
    fs_err::os::unix::fs::symlink(place.path(), &link).unwrap();
    let up = place.context().join("up");
    fs_err::os::unix::fs::symlink("../..", &up).unwrap();
    for source in ["link", "up", "../..", "link/of-the-host", "up/of-the-host"] {
        let text = format!(
            "FROM base\nRUN --mount=target=/in,source={source} \
             ! grep -r 'marks the host' /in 2> /dev/null && test ! -e /in/store\n"
        );
        // Either there is no such thing, or what shows is the context's.
        if let Err(error) =
            engine.build(&place.request(&text), &rbuild::Silent, &rbuild::CancelToken::default())
        {
            assert!(
                !matches!(&error, BuildError::Step { failure, .. }
                if matches!(failure.source, StepError::Exit { .. })),
                "{}",
                explain(&error)
            );
        }
    }
    // The target is a link of the image: it stays in the image.
    let target = place.path().join("target");
    fs_err::create_dir(&target).unwrap();
    let at = target.display();
    place.write("file", "1\n");
    place.build(
        &engine,
        &format!(
            "FROM base\nRUN ln -s {at} /link && ln -s ../../../../{at}2 /up-else\n\
             RUN --mount=type=cache,target=/link --mount=type=tmpfs,target=/up-else touch /link/a /up-else/b\n"
        ),
    );
    assert_eq!(fs_err::read_dir(&target).unwrap().count(), 0);
    assert!(!place.path().join("target2").exists());
}

fn a_cache_is_kept_from_build_to_build() {
    let place = Place::new();
    let engine = place.engine();
    let count = |number: usize| {
        format!(
            "FROM base\nRUN --mount=type=cache,target=/cache \
             echo {number} >> /cache/all && cp /cache/all /out\nCMD [\"cat\", \"/out\"]\n"
        )
    };
    let last = |engine: &Engine, number| {
        build(engine, &place.request(&count(number)).tag("app"));
        place.sh(engine, "app", "cat /out; ls -A /cache 2> /dev/null || true")
    };
    assert_eq!(last(&engine, 1), "1\n");
    assert_eq!(last(&engine, 2), "1\n2\n");
    drop(engine);
    let engine = place.engine();
    assert_eq!(last(&engine, 3), "1\n2\n3\n");
    // A failed step's writes stay too: it is the step's directory, not a layer.
    let text = "FROM base\nRUN --mount=type=cache,target=/cache echo 4 >> /cache/all; exit 1\n";
    build_error(&engine, &place.request(text));
    assert_eq!(last(&engine, 5), "1\n2\n3\n4\n5\n");
}

fn caches_are_told_apart() {
    let place = Place::new();
    let engine = place.engine();
    let mut text = String::from("FROM base\n");
    let mut step = |mount: &str, script: &str| {
        let _ = writeln!(text, "RUN --mount=type=cache,{mount} {script}");
    };
    step("target=/a", "echo a > /a/name");
    step("target=/b", "test -z \"$(ls -A /b)\" && echo b > /b/name");
    step("id=mine,target=/a", "test -z \"$(ls -A /a)\" && echo mine > /a/name");
    step("id=mine,target=/else", "test \"$(cat /else/name)\" = mine");
    step("target=/a", "test \"$(cat /a/name)\" = a");
    step("id=/a,target=/else", "test \"$(cat /else/name)\" = a");
    // Strange ids stay ids.
    step("id=../../../x,target=/x", "test -z \"$(ls -A /x)\" && echo x > /x/name");
    step("id=../../../x,target=/y", "test \"$(cat /y/name)\" = x");
    step("target=/a,ro", "! touch /a/new 2> /dev/null");
    step("target=/owned,uid=7,gid=8,mode=0711", "test \"$(stat -c %u:%g:%a /owned)\" = 7:8:711");
    step("target=/plain", "test \"$(stat -c %u:%g:%a /plain)\" = 0:0:755");
    step("target=/sub,id=tree", "mkdir /sub/d && echo d > /sub/d/file");
    step("target=/sub,id=tree,source=d", "test \"$(ls /sub)\" = file");
    place.build(&engine, &text);
    assert!(!place.path().join("x").exists());
}

fn a_locked_cache_has_one_user_at_a_time() {
    let place = Place::new();
    let engine = place.engine();
    let text = |sharing: &str, script: &str| {
        let mut text = String::new();
        for stage in 0..3 {
            let _ = write!(
                text,
                "FROM base AS s{stage}\n\
                 RUN --mount=type=cache,id={sharing},sharing={sharing},target=/cache {script}; \
                 touch /{stage}\n"
            );
        }
        text.push_str("FROM base\n");
        for stage in 0..3 {
            let _ = writeln!(text, "COPY --from=s{stage} /{stage} /");
        }
        text
    };
    let alone = "mkdir /cache/busy && sleep 0.2 && rmdir /cache/busy || exit 1";
    place.build(&engine, &text("locked", alone));
    // The shared one meets the others: each waits until three have come.
    let meet = "touch /cache/$(cat /proc/sys/kernel/random/uuid); \
                for i in $(seq 200); do test $(ls /cache | wc -l) -ge 3 && break; sleep 0.05; done; \
                test $(ls /cache | wc -l) -eq 3 || exit 1";
    place.build(&engine, &text("shared", meet));
}

fn a_private_cache_is_never_shared() {
    let place = Place::new();
    let engine = place.engine();
    let mount = "--mount=type=cache,id=p,sharing=private,target=/cache";
    // Both hold theirs until the other has looked, by way of a shared one.
    let wait = "for i in $(seq 200); do test $(ls /meet | wc -l) -ge 2 && break; sleep 0.05; done; \
                test $(ls /meet | wc -l) -eq 2 && test $(ls /cache | wc -l) -eq 1 || exit 1";
    let mut text = String::new();
    for stage in ["a", "b"] {
        let _ = write!(
            text,
            "FROM base AS {stage}\n\
             RUN {mount} --mount=type=cache,target=/meet touch /cache/{stage} /meet/{stage}; {wait}; \
             touch /{stage}\n"
        );
    }
    text.push_str("FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n");
    place.build(&engine, &text);
    // With nobody beside it is kept.
    place.build(&engine, &format!("FROM base\nRUN {mount} test $(ls /cache | wc -l) -eq 1\n"));
}

fn without_cache_a_cache_mount_starts_anew() {
    let place = Place::new();
    let engine = place.engine();
    let text = |script: &str| format!("FROM base\nRUN --mount=type=cache,target=/cache {script}\n");
    place.build(&engine, &text("echo old > /cache/old"));
    let mut request = place.request(&text("test ! -e /cache/old && echo new > /cache/new"));
    request.options.no_cache = NoCache::All;
    build(&engine, &request);
    place.build(&engine, &text("test -e /cache/new && test ! -e /cache/old"));
}

fn a_tmpfs_is_empty_and_in_no_layer() {
    let place = Place::new();
    let engine = place.engine();
    // A directory that is there gives its mode.
    let text = "FROM base\nRUN mkdir -m 750 /full && echo 1 > /full/file\n\
                RUN --mount=type=tmpfs,target=/full --mount=type=tmpfs,target=/new,size=1m \
                    test -z \"$(ls -A /full /new | grep -v :)\" && touch /full/a /new/b && \
                    grep -q ' /full tmpfs ' /proc/mounts && \
                    test \"$(stat -c %a /full /new | xargs)\" = '750 1777' && \
                    ! head -c 2000000 /dev/zero 2> /dev/null > /new/large && \
                    chmod 777 /full && echo 1 > /mark\n";
    assert_eq!(top_names(&place, &engine, text), ["mark"]);
    let more =
        format!("{text}RUN test \"$(cat /full/file)\" = 1 && test ! -e /full/a -a ! -e /new\n");
    place.build(&engine, &more);
}

const SECRET: &str = "correct horse battery staple";

fn a_secret_is_a_file_for_its_owner() {
    let place = Place::new();
    let engine = place.engine();
    let text = format!(
        "FROM base\n\
         RUN --mount=type=secret,id=s test \"$(cat /run/secrets/s)\" = '{SECRET}' && \
             test \"$(stat -c %a:%u:%g /run/secrets/s)\" = 400:0:0\n\
         RUN --mount=type=secret,id=s,target=/etc/deep/key,mode=0440,uid=5,gid=6 \
             test \"$(stat -c %a:%u:%g /etc/deep/key)\" = 440:5:6\n\
         RUN test ! -e /run/secrets/s && test ! -e /etc/deep\n\
         USER 5\n\
         RUN --mount=type=secret,id=s ! cat /run/secrets/s 2> /dev/null\n\
         RUN --mount=type=secret,id=s,uid=5 cat /run/secrets/s > /dev/null\n"
    );
    let mut request = place.request(&text);
    request.secrets.insert("s", SECRET.as_bytes().to_vec());
    build(&engine, &request);
}

fn a_secret_is_seen_in_another_mount() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN --mount=type=secret,id=s,target=/r/deep/key \
                --mount=type=cache,target=/r cat /r/deep/key > /seen && test -s /seen\n";
    let mut request = place.request(text);
    request.secrets.insert("s", SECRET.as_bytes().to_vec());
    build(&engine, &request);
}

fn a_secret_is_any_bytes_and_never_written() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN --mount=type=secret,id=s,mode=0777 \
                printf '\\377\\0\\n' | cmp - /run/secrets/s && ! echo x 2> /dev/null > /run/secrets/s\n";
    let mut request = place.request(text);
    request.secrets.insert("s", vec![0xff, 0, b'\n']);
    build(&engine, &request);
}

fn a_secret_is_a_variable() {
    let place = Place::new();
    let engine = place.engine();
    let text = format!(
        "FROM base\n\
         RUN --mount=type=secret,id=s,env=TOKEN test \"$TOKEN\" = '{SECRET}' && test ! -e /run/secrets\n\
         RUN --mount=type=secret,id=s,env=TOKEN,target=/key test \"$TOKEN\" = \"$(cat /key)\"\n\
         RUN test -z \"$TOKEN\"\n"
    );
    let mut request = place.request(&text);
    request.secrets.insert("s", SECRET.as_bytes().to_vec());
    build(&engine, &request.tag("app"));
    let config = engine.image_config("app").unwrap().config.config;
    assert!(!config.env.iter().any(|it| it.starts_with("TOKEN")), "{:?}", config.env);
}

/// Paths below `directory` whose file has `needle` in it.
fn files_with(directory: &Path, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs_err::read_dir(&directory).unwrap().flatten() {
            let path = entry.path();
            let kind = fs_err::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() {
                let bytes = fs_err::read(&path).unwrap();
                if bytes.windows(needle.len()).any(|window| window == needle.as_bytes()) {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    found
}

fn a_secret_is_nowhere_in_image_or_store() {
    let place = Place::new();
    let engine = place.engine();
    let tar = place.path().join("image.tar");
    let request = |value: &str, script: &str| {
        let text = format!(
            "FROM base\nRUN --mount=type=secret,id=s --mount=type=secret,id=s,env=TOKEN {script}\n"
        );
        let mut request = place.request(&text).output(Output::OciArchive(tar.clone().into()));
        request.secrets.insert("s", value.as_bytes().to_vec());
        request
    };
    build(&engine, &request(SECRET, "test -n \"$TOKEN\" && wc -c /run/secrets/s > /length"));
    assert!(!format!("{:?}", request(SECRET, "")).contains(SECRET));
    let image = Exported::from_tar(&tar);
    let top = exported::entries(image.layers().pop().unwrap().as_slice());
    let names: Vec<_> = top.keys().map(String::as_str).filter(|name| *name != "run").collect();
    assert_eq!(names, ["length"]);
    assert_eq!(files_with(&place.store(), SECRET), Vec::<String>::new());
    // The search finds what is there.
    build(&engine, &request("hello there", "cat /run/secrets/s > /leaked"));
    assert!(!files_with(&place.store(), "hello there").is_empty());
    // Nor after a failure.
    build_error(&engine, &request("it was a failure", "test -z \"$TOKEN\""));
    assert_eq!(files_with(&place.store(), "it was a failure"), Vec::<String>::new());
}

fn another_secret_is_no_other_step() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN --mount=type=secret,id=s touch /done\n";
    let with = |value: &str| {
        let mut request = place.request(text);
        request.secrets.insert("s", value.as_bytes().to_vec());
        build(&engine, &request)
    };
    assert_ne!(with("one").executed, 0);
    let second = with("two");
    assert_eq!(second.executed, 0, "{:?}", ran(&second));
}

fn a_missing_secret_matters_when_it_is_required() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, "FROM base\nRUN --mount=type=secret,id=s test ! -e /run/secrets/s\n");
    let text = "FROM base\nRUN --mount=type=secret,id=key,required=true true\n";
    let error = build_error(&engine, &place.request(text));
    assert!(error.to_string().contains("secret key: not found"), "{error}");
}

fn mount_targets_leave_no_trace() {
    let place = Place::new();
    let engine = place.engine();
    place.write("file", "1\n");
    let text = "FROM base\nRUN mkdir -p /there && touch /there/file\n\
                RUN --mount=type=cache,target=/made/deep/cache --mount=type=tmpfs,target=/t/mp \
                    --mount=type=secret,id=s --mount=type=secret,id=s,target=/se/cret \
                    --mount=target=/context --mount=target=/one/file,source=file \
                    --mount=type=cache,target=/there/sub --mount=target=/there/file,source=file \
                    test -d /made/deep/cache -a -d /t/mp -a -f /run/secrets/s -a -f /se/cret && \
                    test -f /one/file -a -d /there/sub && touch /context-was-there\n\
                RUN ls / > /listing && ls /there >> /listing\n";
    let mut request = place.request(text).tag("app");
    request.secrets.insert("s", b"x".to_vec());
    build(&engine, &request);
    let listing = place.sh(&engine, "app", "cat /listing");
    let names: Vec<_> = listing.lines().collect();
    let expected =
        ["bin", "context-was-there", "dev", "etc", "listing", "proc", "sys", "there", "file"];
    let names: Vec<_> = names.into_iter().filter(|name| *name != "etc").collect();
    let expected: Vec<_> = expected.into_iter().filter(|name| *name != "etc").collect();
    assert_eq!(names, expected);
    // A directory that the step itself put something into stays.
    let text = "FROM base\nRUN --mount=type=cache,target=/made/cache touch /made/own\n";
    let names = top_names(&place, &engine, text);
    assert_eq!(names, ["made", "made/own"]);
}

fn what_lies_under_a_mount_stays() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN mkdir -m 700 /under && chown 3:4 /under && echo 1 > /under/file\n\
                RUN --mount=type=cache,target=/under chmod 777 /under && echo 2 > /under/file\n\
                RUN test \"$(cat /under/file)\" = 1 && test $(stat -c %a:%u:%g /under) = 700:3:4\n";
    place.build(&engine, text);
}

fn mounts_lie_in_mounts() {
    let place = Place::new();
    let engine = place.engine();
    place.write("file", "1\n");
    place.build(
        &engine,
        "FROM base\n\
         RUN --mount=type=cache,target=/c --mount=type=cache,target=/c/sub/deep touch /c/a /c/sub/deep/b\n\
         RUN --mount=type=cache,target=/c test -e /c/a -a ! -e /c/sub/deep/b\n\
         RUN --mount=type=cache,target=/c/sub/deep test -e /c/sub/deep/b -a ! -e /c/a\n\
         RUN --mount=type=tmpfs,target=/t --mount=type=tmpfs,target=/t/sub touch /t/sub/x\n\
         RUN --mount=type=tmpfs,target=/t --mount=target=/t/file,source=file cat /t/file\n\
         RUN --mount=type=tmpfs,target=/t/sub --mount=type=tmpfs,target=/t touch /t/x && \
             test \"$(grep -c ' /t' /proc/mounts)$(ls /t)\" = \"2$(printf 'sub\\nx')\"\n\
         RUN --mount=type=tmpfs,target=/t --mount=target=/t,source=file test -f /t && \
             test \"$(grep -c ' /t' /proc/mounts)\" = 1\n\
         RUN test ! -e /t -a ! -e /c\n",
    );
    // Nothing is made in what may not be written.
    let text = "FROM base\nRUN --mount=target=/in --mount=type=cache,target=/in/new true\n";
    let told = explain(&build_error(&engine, &place.request(text)));
    assert!(told.contains("cannot mount /in/new"), "{told}");
    assert!(!place.context().join("new").exists());
}

/// An agent of the caller that answers each request with the kind behind it.
fn agent(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut message = [0; 5];
            while stream.read_exact(&mut message).is_ok() {
                stream.write_all(&[0, 0, 0, 1, message[4] + 1]).unwrap();
            }
        }
    });
}

fn an_agent_is_a_socket_that_leads_to_the_callers() {
    let place = Place::new();
    let engine = place.engine();
    fs_err::copy("/proc/self/exe", place.context().join("client")).unwrap();
    let socket = place.path().join("agent");
    agent(&socket);
    let ask = child::ASK;
    let text = format!(
        "FROM base\nCOPY client /\n\
         RUN --mount=type=ssh test \"$SSH_AUTH_SOCK\" = /run/buildkit/ssh_agent.0 && \
             test \"$(stat -c %a:%u:%g $SSH_AUTH_SOCK)\" = 600:0:0 && \
             {ask}=11,13,17,19,27 /client > /answers && {ask}=11 /client >> /answers\n\
         RUN --mount=type=ssh,target=/a.sock,mode=0666,uid=7,gid=8 --mount=type=ssh,id=other \
             test $SSH_AUTH_SOCK = /a.sock && test -S /run/buildkit/ssh_agent.1 && \
             test \"$(stat -c %a:%u:%g /a.sock)\" = 666:7:8 && ! chmod 600 /a.sock && \
             test \"$(ls -A /run/buildkit)\" = ssh_agent.1\n\
         RUN test -z \"$SSH_AUTH_SOCK\" && test ! -e /run/buildkit -a ! -e /a.sock\n\
         USER 5\n\
         RUN --mount=type=ssh ! {ask}=11 /client\n\
         RUN --mount=type=ssh,uid=5 {ask}=11 /client\n"
    );
    let mut request = place.request(&text).tag("app");
    request.ssh.insert("default", &socket);
    request.ssh.insert("other", &socket);
    build(&engine, &request);
    // Listing and signing are passed on; the rest is refused by the engine.
    assert_eq!(place.sh(&engine, "app", "cat /answers"), "12 14 5 5 5 12 ");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn keys_in_files_have_an_agent_of_the_engines() {
    let place = Place::new();
    let engine = place.engine();
    fs_err::copy("/proc/self/exe", place.context().join("client")).unwrap();
    let ask = child::ASK;
    let text = format!(
        "FROM base\nCOPY client /\nRUN --mount=type=ssh {ask}=13,17,11 /client > /answers\n"
    );
    let mut request = place.request(&text).tag("app");
    // Read now: the client is this program and must not hold it.
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../solver/tests/keys");
    let key = fs_err::read_to_string(keys.join("ed25519")).unwrap();
    request.ssh.insert_keys("default", &[&key]).unwrap();
    build(&engine, &request);
    // A request to sign without a key fails, and so does adding one.
    assert_eq!(place.sh(&engine, "app", "cat /answers"), "5 5 12 ");
    let secret = key.lines().nth(3).unwrap();
    assert_eq!(files_with(&place.store(), secret), Vec::<String>::new());
    assert_eq!(request.ssh.insert_keys("x", &[key.as_str(), "no key"]).unwrap_err().0, 1);
}

fn a_missing_agent_matters_when_it_is_required() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, "FROM base\nRUN --mount=type=ssh test ! -e /run/buildkit\n");
    let text = "FROM base\nRUN --mount=type=ssh,id=github,required true\n";
    let error = build_error(&engine, &place.request(text));
    assert!(error.to_string().contains("no SSH key \"github\" forwarded"), "{error}");
    let BuildError::Step { failure, source_text, .. } = &error else { panic!("{error:?}") };
    let span = failure.span.unwrap();
    assert!(source_text[span.start..span.end].starts_with("RUN --mount=type=ssh"));
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn a_new_cache_starts_with_the_files_of_a_stage() {
    let place = Place::new();
    let engine = place.engine();
    let text = |seed: &str, script: &str| {
        format!(
            "FROM base AS seed\n\
             RUN mkdir -p /deps/sub && chmod 2750 /deps && chown 3:4 /deps && echo {seed} > /deps/one \
                 && ln -s one /deps/link && echo 2 > /deps/sub/two && chown 5:6 /deps/sub/two\n\
             FROM base\n\
             RUN --mount=type=cache,target=/cache,from=seed,source=/deps {script}\n\
             RUN --mount=type=cache,target=/all,from=seed test -e /all/bin/sh -a -e /all/deps/one\n\
             RUN --mount=type=cache,target=/none,from=seed,source=/none test -z \"$(ls -A /none)\"\n"
        )
    };
    let whole = "test \"$(cat /cache/link /cache/sub/two | tr -d '\\n')\" = first2 && \
                 test $(stat -c %a:%u:%g /cache) = 2750:3:4 && \
                 test $(stat -c %u:%g /cache/sub/two) = 5:6 && echo mine > /cache/mine";
    place.build(&engine, &text("first", whole));
    // It is not made anew, and the stage did not change.
    place.build(&engine, &text("first", "test -e /cache/mine && rm /cache/one"));
    place.build(&engine, &text("first", "test -e /cache/mine -a ! -e /cache/one"));
    // Another stage, another cache.
    place.build(&engine, &text("second", "test $(cat /cache/one) = second -a ! -e /cache/mine"));
    let file = "FROM base\nRUN --mount=type=cache,target=/c,from=base,source=/bin/busybox true\n";
    let told = explain(&build_error(&engine, &place.request(file)));
    assert!(told.contains("/bin/busybox") && told.contains("not a directory"), "{told}");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

/// Links in the seed, and in the cache, are followed below their own root.
fn a_seed_leads_nowhere_else() {
    let place = Place::new();
    let engine = place.engine();
    fs_err::write(place.path().join("of-the-host"), "marks the host\n").unwrap();
    let at = place.path().display();
    place.build(
        &engine,
        &format!(
            "FROM base AS seed\nRUN ln -s {at} /out && ln -s ../../../..{at} /up\n\
             FROM base\n\
             RUN --mount=type=cache,target=/a,from=seed,source=/out test ! -e /a/of-the-host\n\
             RUN --mount=type=cache,target=/b,from=seed,source=/up test ! -e /b/of-the-host\n\
             RUN --mount=type=cache,target=/c,id=planted ln -s {at} /c/link\n\
             RUN --mount=type=cache,target=/d,id=planted,source=link test ! -e /d/of-the-host\n"
        ),
    );
}
