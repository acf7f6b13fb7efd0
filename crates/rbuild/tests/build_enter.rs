//! Entering steps of past builds.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rbuild::{
    BuildError, CancelToken, ContextInput, Engine, EnterOptions, ExecStreams, PruneOptions,
    Secrets, Silent, Tree,
};

use crate::support::{Place, build, build_error};
use crate::{child, tests};

tests![
    a_failed_step_is_entered_as_it_was,
    secrets_are_given_when_they_are_asked_for,
    any_step_of_any_build_is_entered,
    what_is_written_in_a_step_goes,
    no_build_uses_what_a_failed_step_made,
    few_failures_are_kept_and_prune_takes_them,
    a_step_without_a_shell_says_so,
    what_a_step_did_is_seen,
    the_context_is_that_of_the_build_with_its_rules,
    a_cache_mount_without_its_seed_is_not_made,
    a_step_that_runs_nothing_has_the_rights_of_none,
    a_step_of_a_killed_build_is_entered,
];

fn enter_with(engine: &Engine, step: &str, options: &EnterOptions) -> (i32, String, Vec<String>) {
    let step = engine.past_step(step).unwrap();
    let (streams, cancel) = (ExecStreams::Pipes { input: false }, CancelToken::default());
    let entered = engine.enter_step(&step, options, streams, &cancel).unwrap();
    let mut output = Vec::new();
    let exit = entered.exec.wait(&cancel, &mut |_, bytes| output.extend(bytes)).unwrap();
    (exit.code(), String::from_utf8(output).unwrap(), entered.missing)
}

fn script(script: &str) -> EnterOptions {
    let argv = ["sh", "-c", script].map(str::to_owned).into();
    EnterOptions { argv, ..EnterOptions::default() }
}

fn enter(engine: &Engine, step: &str, text: &str) -> String {
    let (code, output, missing) = enter_with(engine, step, &script(text));
    assert_eq!((code, missing), (0, Vec::<String>::new()), "{text}: {output}");
    output
}

fn prune(engine: &Engine) {
    let cancel = CancelToken::default();
    engine.prune(&PruneOptions::default(), &Silent, &cancel).unwrap();
}

fn a_failed_step_is_entered_as_it_was() {
    let place = Place::new();
    let engine = place.engine();
    place.write("data", "of the context");
    let text = "FROM base AS other\nRUN echo other > /other\n\
         FROM base\nARG LEVEL\nENV COLOUR=red\nWORKDIR /work\n\
         RUN echo 'app:x:7:8::/:/bin/sh' > /etc/passwd\nUSER app\n\
         RUN --mount=type=cache,target=/cache,uid=7 --mount=type=tmpfs,target=/mem \
         --mount=from=other,target=/from --mount=target=/context \
         --network=none echo kept > /cache/file; echo half > /tmp/made; rm /doomed; exit 9\n";
    let text =
        text.replace("WORKDIR", "RUN mkdir -m 777 /tmp; touch /doomed; chmod 777 /\nWORKDIR");
    let mut request = place.request(&text);
    request.options.build_args.insert("LEVEL".to_owned(), "5".to_owned());
    build_error(&engine, &request);
    let found = enter(
        &engine,
        "@failed",
        "cat /tmp/made /cache/file /from/other /context/data; echo; id -u; id -g; pwd; \
         echo $COLOUR $LEVEL; ls /doomed 2>/dev/null; grep -c ' /mem tmpfs' /proc/mounts; \
         ls /sys/class/net",
    );
    assert_eq!(found, "half\nkept\nother\nof the context\n7\n8\n/work\nred 5\n1\nlo\n");
    let (code, ..) = enter_with(&engine, "@failed", &script("exit 42"));
    assert_eq!(code, 42);
    let changed = EnterOptions {
        env: vec!["COLOUR=blue".to_owned()],
        user: Some("0".to_owned()),
        cwd: Some("/etc".to_owned()),
        ..script("echo $COLOUR; id -u; pwd")
    };
    assert_eq!(enter_with(&engine, "@failed", &changed).1, "blue\n0\n/etc\n");
    // What the context mount shows may be gone.
    fs_err::rename(place.context(), place.path().join("elsewhere")).unwrap();
    let (code, output, missing) = enter_with(&engine, "@failed", &script("cat /from/other"));
    assert_eq!((code, output.as_str()), (0, "other\n"));
    assert_eq!(missing, ["what was mounted at /context is not here any more"]);
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn secrets_are_given_when_they_are_asked_for() {
    let place = Place::new();
    let engine = place.engine();
    let mut request =
        place.request("RUN --mount=type=secret,id=key cat /run/secrets/key; exit 1\n");
    request.secrets.insert("key", b"hidden".to_vec());
    build_error(&engine, &request);
    let look = script("cat /run/secrets/key 2>/dev/null || echo none");
    let (_, output, missing) = enter_with(&engine, "@failed", &look);
    assert_eq!(output, "none\n");
    assert_eq!(missing, ["secret key is not given: ask for it with --secret"]);
    let mut secrets = Secrets::default();
    secrets.insert("key", b"again".to_vec());
    let (_, output, missing) = enter_with(&engine, "@failed", &EnterOptions { secrets, ..look });
    assert_eq!((output.as_str(), missing), ("again", Vec::new()));
}

fn any_step_of_any_build_is_entered() {
    let place = Place::new();
    let engine = place.engine();
    place.write("data", "1");
    let text = "FROM base AS last\nENV A=b\nRUN echo one > /one\nCOPY data /data\nRUN rm /one\n";
    place.build(&engine, text);
    let first = engine.past_builds().unwrap()[0].record.id.clone();
    place.write("data", "2");
    place.build(&engine, text);
    assert_eq!(enter(&engine, "last:1", "cat /one; ls /data 2>/dev/null; true"), "one\n");
    // A step that runs nothing has the variables of the one before it.
    assert_eq!(enter(&engine, "last 2/3", "cat /one /data; echo $A"), "one\n2b\n");
    assert_eq!(enter(&engine, "@last", "ls /one 2>/dev/null; cat /data"), "2");
    assert_eq!(enter(&engine, &format!("{first}:last:2"), "cat /data"), "1");
    // All found in the cache.
    place.build(&engine, text);
    assert_eq!(enter(&engine, "last:2", "cat /one /data"), "one\n2");
    let linked = text.replace("COPY data", "COPY --link data");
    place.build(&engine, &linked);
    assert_eq!(enter(&engine, "last:2", "cat /one /data"), "one\n2");
}

fn what_is_written_in_a_step_goes() {
    let place = Place::new();
    let engine = place.engine();
    let text = "RUN --mount=type=cache,target=/cache echo made > /made\n";
    place.build(&engine, text);
    enter(&engine, "base:3", "echo more > /made; echo new > /new; echo stays > /cache/file");
    assert_eq!(
        enter(&engine, "base:3", "cat /made /cache/file; ls /new 2>&1; true"),
        "made\nstays\nls: /new: No such file or directory\n"
    );
    assert_eq!(place.leftovers(), Vec::<String>::new());
    let built = place.build(&engine, text);
    assert_eq!(built.executed, 0);
}

fn no_build_uses_what_a_failed_step_made() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, "");
    let text = "RUN --mount=type=cache,target=/c test -f /c/ready && echo good > /file || \
                { echo half > /file; touch /c/ready; exit 1; }\n";
    build_error(&engine, &place.request(text));
    assert_eq!(enter(&engine, "@failed", "cat /file"), "half\n");
    let built = place.build(&engine, text);
    assert_eq!(built.executed, 1);
    let id = built.image.unwrap().id.to_string();
    assert_eq!(place.sh(&engine, &id, "cat /file"), "good\n");
    assert_eq!(enter(&engine, "@last", "cat /file"), "good\n");
    assert_eq!(enter(&engine, "@failed", "cat /file"), "half\n");
}

fn few_failures_are_kept_and_prune_takes_them() {
    let place = Place::new();
    let engine = place.engine();
    let tag = |request: rbuild::BuildRequest| request.tag("kept");
    build(&engine, &tag(place.request("")));
    for number in 0..6 {
        build_error(&engine, &place.request(&format!("RUN echo {number} > /n; exit 1\n")));
    }
    assert_eq!(enter(&engine, "@failed", "cat /n"), "5\n");
    let builds = engine.past_builds().unwrap();
    let kept = builds.iter().filter(|build| {
        let step = engine.past_step(&format!("{}:failed", build.record.id));
        let Ok(step) = step else { return false };
        engine
            .enter_step(
                &step,
                &script("true"),
                ExecStreams::Pipes { input: false },
                &CancelToken::default(),
            )
            .is_ok()
    });
    assert_eq!(kept.count(), 4);
    let rows = engine.usage().unwrap().rows;
    assert_eq!(rows.iter().filter(|row| row.kind == "failed").count(), 4);
    prune(&engine);
    let step = engine.past_step("@failed").unwrap();
    let streams = ExecStreams::Pipes { input: false };
    let error = engine.enter_step(&step, &script("true"), streams, &CancelToken::default());
    let error = error.unwrap_err();
    assert!(matches!(error, BuildError::Conflict { .. }), "{error}");
    assert!(error.to_string().contains("were pruned: build again"), "{error}");
    // The image is as it was.
    assert_eq!(place.sh(&engine, "kept", "echo here"), "here\n");
}

fn a_step_without_a_shell_says_so() {
    let place = Place::new();
    let engine = place.engine();
    place.write("data", "x");
    let request = rbuild::BuildRequest::new(place.context())
        .dockerfile_text("FROM scratch\nCOPY data /data\n");
    build(&engine, &request);
    let step = engine.past_step("1").unwrap();
    let streams = ExecStreams::Pipes { input: false };
    let options = EnterOptions::default();
    let error = engine.enter_step(&step, &options, streams, &CancelToken::default()).unwrap_err();
    assert!(error.to_string().contains("no shell in this root filesystem"), "{error}");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn what_a_step_did_is_seen() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, "RUN echo 1 > /one\nRUN echo 2 > /two; rm /one\n");
    let step = |name: &str| Tree::Step(engine.past_step(name).unwrap());
    let diff = |before: &Tree, after: &Tree| {
        let cancel = CancelToken::default();
        let found = engine.diff_trees(before, after, None, &Silent, &cancel).unwrap();
        let path = |file: &rbuild::FileDifference| String::from_utf8(file.path.clone()).unwrap();
        found.files.iter().map(path).collect::<Vec<_>>()
    };
    assert_eq!(diff(&step("base:3"), &step("base:4")), ["one", "two"]);
    assert_eq!(diff(&step("base:2"), &step("base:3")), ["one"]);
    let last = engine.past_step("@last").unwrap();
    assert_eq!(diff(&Tree::Before(last.clone()), &Tree::Step(last)), ["one", "two"]);
    build_error(&engine, &place.request("RUN echo 3 > /three; exit 1\n"));
    assert_eq!(diff(&step("base:2"), &step("@failed")), ["three"]);
    // All layers of an image are what its step brought.
    build(&engine, &place.request("RUN echo 1 > /one\nRUN echo 2 > /two\n").tag("local"));
    let request = rbuild::BuildRequest::new(place.context());
    build(&engine, &request.dockerfile_text("FROM local\nRUN true\n"));
    let from = engine.past_step("1").unwrap();
    assert_eq!(from.step.op, "source");
    let brought = diff(&Tree::Before(from.clone()), &Tree::Step(from));
    assert!(["bin", "one", "two"].iter().all(|name| brought.contains(&(*name).to_owned())));
}

fn the_context_is_that_of_the_build_with_its_rules() {
    let place = Place::new();
    let engine = place.engine();
    place.write("data", "1");
    place.write("hidden", "2");
    let rules = place.path().join("rules");
    fs_err::write(&rules, "hidden\n").unwrap();
    let mut request = place.request("RUN --mount=target=/context ls /context; exit 1\n");
    request.context = ContextInput::Directory(place.context().join("../context"));
    request.ignore_file = Some(place.context().join("../rules"));
    build_error(&engine, &request);
    let step = engine.past_step("@failed").unwrap();
    let real = |path: &std::path::Path| Some(fs_err::canonicalize(path).unwrap());
    assert_eq!(step.build.context, real(&place.context()));
    assert_eq!(step.build.ignore_file, real(&rules));
    assert_eq!(enter(&engine, "@failed", "ls /context"), "busybox\ndata\n");
    // What the rules hid then is hidden, also when they are gone.
    fs_err::remove_file(&rules).unwrap();
    let (_, output, missing) = enter_with(&engine, "@failed", &script("ls /context"));
    assert!(!output.contains("hidden"), "{output}");
    assert_eq!(missing, ["what was mounted at /context is not here any more"]);
    // The file beside the Dockerfile comes before that of the directory.
    let dockerfile = place.write("Dockerfile", "");
    let base = crate::support::BASE;
    let text = format!("{base}RUN --mount=target=/context ls /context; exit 1\n");
    fs_err::write(&dockerfile, text).unwrap();
    place.write("Dockerfile.dockerignore", "hidden\nDockerfile*\n");
    build_error(&engine, &rbuild::BuildRequest::new(place.context()));
    assert_eq!(enter(&engine, "@failed", "ls /context"), "busybox\ndata\n");
}

fn a_cache_mount_without_its_seed_is_not_made() {
    let place = Place::new();
    let engine = place.engine();
    let text = |said: &str| {
        format!(
            "FROM base AS seed\nRUN mkdir /c; echo seeded > /c/file\n\
             FROM base AS main\nRUN --mount=type=cache,from=seed,source=/c,target=/c \
             echo {said}; cat /c/file > /out\n"
        )
    };
    build(&engine, &place.request(&text("one")).tag("kept"));
    assert_eq!(enter(&engine, "main:1", "cat /c/file"), "seeded\n");
    prune(&engine);
    // The volume is there: it does not matter what it began with.
    assert_eq!(enter(&engine, "main:1", "cat /c/file"), "seeded\n");
    for volume in fs_err::read_dir(place.store().join("volumes")).unwrap().flatten() {
        match volume.file_type().unwrap().is_dir() {
            true => fs_err::remove_dir_all(volume.path()).unwrap(),
            false => fs_err::remove_file(volume.path()).unwrap(),
        }
    }
    let (code, _, missing) = enter_with(&engine, "main:1", &script("cat /out; touch /c/x"));
    assert_eq!(missing, ["the cache mount at /c is not here: what it starts with is gone"]);
    assert_eq!((code, fs_err::read_dir(place.store().join("volumes")).unwrap().count()), (1, 0));
    build(&engine, &place.request(&text("two")));
    assert_eq!(enter(&engine, "main:1", "cat /out"), "seeded\n");
}

fn a_step_that_runs_nothing_has_the_rights_of_none() {
    let place = Place::new();
    let engine = place.engine();
    place.write("data", "1");
    let mut request = place.request(
        "FROM base AS last\nENV A=b\nCOPY data /data\n\
         RUN --security=insecure grep CapBnd /proc/self/status\n",
    );
    request.options.allow = ["security.insecure".parse().unwrap()].into();
    build(&engine, &request);
    let capabilities = |step: &str| enter(&engine, step, "echo $A; grep CapBnd /proc/self/status");
    let (copied, ran) = (capabilities("last:1"), capabilities("last:2"));
    assert!(copied.starts_with("b\n") && ran.starts_with("b\n"));
    assert_ne!(copied, ran);
    place.build(&engine, "RUN true\n");
    assert_eq!(copied["b\n".len()..], enter(&engine, "base:3", "grep CapBnd /proc/self/status"));
}

fn a_step_of_a_killed_build_is_entered() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, "");
    let base = crate::support::BASE;
    let dockerfile = place.path().join("Dockerfile");
    let text = format!("{base}RUN echo made > /made\nRUN echo begun; sleep 600\n");
    fs_err::write(&dockerfile, text).unwrap();
    let mut command = child::build(&place.store(), &place.context(), &dockerfile);
    let mut running = command.stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let begun = || {
        let step = engine.past_step("base:4").ok().filter(|step| step.build.ended == 0);
        step.is_some_and(|step| engine.step_log(&step).unwrap().is_some())
    };
    while !begun() {
        assert!(Instant::now() < deadline, "{:?}", engine.past_builds());
        std::thread::sleep(Duration::from_millis(20));
    }
    let newest = engine.past_builds().unwrap().remove(0).record.id;
    assert!(engine.build_runs(&newest).unwrap());
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(!engine.build_runs(&newest).unwrap());
    assert_eq!(enter(&engine, "base:3", "cat /made"), "made\n");
    let step = engine.past_step("base:4").unwrap();
    let streams = ExecStreams::Pipes { input: false };
    let error = engine.enter_step(&step, &script("true"), streams, &CancelToken::default());
    assert!(error.unwrap_err().to_string().contains("or was killed"));
}
