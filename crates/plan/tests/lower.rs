//! Lowering by the table: text in, plan out.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

mod support;

use rbuild_plan::mount::{MountKind, MountRoot, Sharing};
use rbuild_plan::op::{Copy, CopySource, Network, Op, Run, Source, Unpack};
use rbuild_plan::{EpochSource, NamedContext, NoCache, Options, Plan, dot};
use rbuild_types::{Digest, Platform};

use support::{chain, check, error, error_with, options, plan, plan_with, small};

/// The only op of that kind that the text makes last.
fn run(text: &str) -> Run {
    let plan = plan(text);
    check(&plan);
    match chain(&plan).last().map(|vertex| vertex.op.clone()) {
        Some(Op::Run(run)) => run,
        other => panic!("{other:?}"),
    }
}

fn copy(text: &str) -> Copy {
    let plan = plan(text);
    check(&plan);
    match chain(&plan).last().map(|vertex| vertex.op.clone()) {
        Some(Op::Copy(copy)) => copy,
        other => panic!("{other:?}"),
    }
}

fn history(plan: &Plan) -> Vec<&str> {
    plan.targets[0].config.history[plan.targets[0].base_history..]
        .iter()
        .map(|item| item.created_by.as_str())
        .collect()
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.graph.vertices().map(|(_, vertex)| vertex.name.as_str()).collect()
}

fn with_args(pairs: &[(&str, &str)]) -> Options {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Options { build_args: pairs.iter().map(pair).collect(), ..options() }
}

#[test]
fn run_forms() {
    assert_eq!(run("FROM base\nRUN echo $HOME").argv, ["/bin/sh", "-c", "echo $HOME"]);
    assert_eq!(run("FROM base\nRUN [\"echo\", \"$X\"]").argv, ["echo", "$X"]);
    assert_eq!(
        run("FROM base\nSHELL [\"/bin/ash\", \"-ec\"]\nRUN x").argv,
        ["/bin/ash", "-ec", "x"]
    );
    assert_eq!(run("FROM base\nRUN <<EOF\na\nb\nEOF\n").argv, ["/bin/sh", "-c", "a\nb\n"]);
    assert_eq!(run("FROM base\nRUN <<-EOF\n\ta\n\tEOF\n").argv, ["/bin/sh", "-c", "a\n"]);
    let mixed = run("FROM base\nRUN <<A cat >x && <<\"B\" cat >y\n1\nA\n2\nB\n");
    assert_eq!(mixed.argv[2], "<<A cat >x && <<\"B\" cat >y\n1\nA\n2\nB");
    let script = run("FROM base\nRUN <<X\n#!/bin/awk -f\nBEGIN {}\nX\n");
    assert_eq!(script.argv, ["/bin/sh", "-c", "/dev/pipes/X"]);
    assert_eq!(script.scripts[0].path, "/dev/pipes/X");
    assert_eq!(script.scripts[0].content, "#!/bin/awk -f\nBEGIN {}\n");
}

#[test]
fn run_sees_the_stage() {
    let run = run("FROM base\nUSER app:staff\nWORKDIR /a/./b/\nENV A=1\nARG B=2\nRUN x");
    assert_eq!(run.env, [support::PATH, "A=1", "B=2"]);
    assert_eq!((run.cwd.as_str(), run.user.as_str()), ("/a/b", "app:staff"));
    assert_eq!(run.network, Network::Default);
    assert_eq!(run.hostname, "buildkitsandbox");
    assert!(run.has_root && run.proxy_env.is_empty());
}

#[test]
fn networks() {
    assert_eq!(run("FROM base\nRUN --network=none x").network, Network::None);
    assert_eq!(run("FROM base\nRUN --network=host x").network, Network::Host);
    let options = Options { network: Network::None, ..options() };
    let plan = plan_with("FROM base\nRUN x", &options, &small()).unwrap();
    assert!(matches!(&chain(&plan)[1].op, Op::Run(run) if run.network == Network::None));
}

#[test]
fn args_and_envs_in_order() {
    let shown = |text: &str| run(text).env[1..].join(" ");
    assert_eq!(shown("FROM base\nENV V=e\nARG V=a\nRUN x"), "V=a");
    assert_eq!(shown("FROM base\nARG V=a\nENV V=e\nRUN x"), "V=e");
    assert_eq!(shown("FROM base\nARG A=1 B=$A-2\nRUN x"), "A=1 B=1-2");
    assert_eq!(shown("FROM base\nENV A=1\nENV A=2 B=$A\nRUN x"), "A=2 B=1");
    assert_eq!(shown("FROM base\nARG A\nRUN x"), "");
    // A stage has the ARGs of the stage below, but ENV counts again.
    assert_eq!(shown("FROM base AS a\nARG V=1\nFROM a\nRUN x"), "V=1");
    assert_eq!(shown("FROM base AS a\nENV V=e\nARG V=1\nFROM a\nRUN x"), "V=e");
    // Globals count where they are declared again.
    assert_eq!(shown("ARG G=1\nFROM base\nRUN x"), "");
    assert_eq!(shown("ARG G=1\nARG H=$G$G\nFROM base\nARG G H=0\nRUN x"), "G=1 H=0");
}

#[test]
fn build_args_come_first() {
    let plan = |text: &str| {
        let options = with_args(&[("A", "given"), ("HTTP_PROXY", "p"), ("TARGETARCH", "z")]);
        plan_with(text, &options, &small()).unwrap()
    };
    let plan_a = plan("FROM base\nARG A=${B:?x}\nRUN x");
    assert_eq!(history(&plan_a), ["ARG A=given", "RUN |1 A=given /bin/sh -c x # buildkit"]);
    let vertex = chain(&plan_a)[1];
    let Op::Run(run) = &vertex.op else { panic!() };
    assert_eq!(run.proxy_env, ["HTTP_PROXY=p", "http_proxy=p"]);
    assert!(!run.env.iter().any(|entry| entry.contains("PROXY")));
    let declared = plan("FROM base\nARG HTTP_PROXY\nRUN x");
    assert_eq!(history(&declared)[1], "RUN |1 HTTP_PROXY=p /bin/sh -c x # buildkit");
    assert_eq!(history(&plan("FROM base\nARG TARGETARCH"))[0], "ARG TARGETARCH=z");
    assert_eq!(plan("FROM base").unused_build_args, ["A"]);
    let settings = with_args(&[("BUILDKIT_SYNTAX", "x"), ("BUILDKIT_INLINE_CACHE", "1")]);
    let plan_b = plan_with("FROM base", &settings, &small()).unwrap();
    assert_eq!(plan_b.unused_build_args, ["BUILDKIT_INLINE_CACHE"], "those without effect");
    assert!(plan("FROM base AS x\nARG A\nFROM base").unused_build_args.is_empty());
}

#[test]
fn arguments_of_buildkit_change_steps() {
    let pairs = [("BUILDKIT_SANDBOX_HOSTNAME", "box"), ("BUILDKIT_CACHE_MOUNT_NS", "mine")];
    let text = "FROM base\nRUN --mount=type=cache,id=x,target=/c y";
    let plan = plan_with(text, &with_args(&pairs), &small()).unwrap();
    let Op::Run(run) = &chain(&plan)[1].op else { panic!() };
    assert_eq!(run.hostname, "box");
    let MountKind::Cache(cache) = &run.mounts[0].kind else { panic!() };
    assert_eq!(cache.id, "mine/x");
    assert!(plan.unused_build_args.is_empty());
}

#[test]
fn automatic_arguments() {
    let text = "FROM base AS b\nARG TARGETPLATFORM TARGETARCH TARGETVARIANT BUILDOS TARGETSTAGE";
    let options = Options {
        platforms: vec!["linux/arm/v7".parse().unwrap()],
        target: Some("B".to_owned()),
        ..options()
    };
    let plan = plan_with(text, &options, &small()).unwrap();
    assert_eq!(
        history(&plan),
        ["ARG TARGETPLATFORM=linux/arm/v7 TARGETARCH=arm TARGETVARIANT=v7 BUILDOS=linux \
          TARGETSTAGE=b"]
    );
    assert_eq!(plan.warnings[0].code, "InvalidBaseImagePlatform");
    assert_eq!(plan.targets[0].config.variant.as_deref(), Some("v7"));
    let unnamed = support::plan("FROM base\nARG TARGETSTAGE");
    assert_eq!(history(&unnamed), ["ARG TARGETSTAGE=default"]);
}

#[test]
fn duplicate_args_keep_the_first_place() {
    let plan = plan("FROM base\nARG a=1 b=2\nARG a=3\nENV b=4\nRUN x");
    assert_eq!(history(&plan)[3], "RUN |2 a=3 b=4 /bin/sh -c x # buildkit");
}

#[test]
fn copies_name_their_sources() {
    let plain = copy("FROM base\nWORKDIR /w\nCOPY a ./b/../c d/");
    let path = |source: &CopySource| match source {
        CopySource::Context { context: None, path } => path.clone(),
        other => panic!("{other:?}"),
    };
    let paths: Vec<_> = plain.sources.iter().map(path).collect();
    assert_eq!(paths, ["/a", "/c"]);
    assert_eq!((plain.destination.as_str(), plain.into_directory), ("/w/d", true));
    assert!(plain.unpack == Unpack::None && !plain.link && plain.chown.is_none());
    let file = copy("FROM base\nCOPY a ../b");
    assert_eq!((file.destination.as_str(), file.into_directory), ("/b", false));
    let empty = copy("FROM base\nENV e=\"\"\nWORKDIR /w\nCOPY a $e");
    assert_eq!((empty.destination.as_str(), empty.into_directory), ("/w", true));
    let add = copy("FROM base\nARG u=1\nADD --chown=$u:2 --chmod=u=rwX a /x");
    assert_eq!((add.chown.as_deref(), add.chmod.as_deref()), (Some("1:2"), Some("u=rwX")));
    assert_eq!(add.unpack, Unpack::Local);
    assert_eq!(copy("FROM base\nADD --unpack=false a /x").unpack, Unpack::None);
    assert_eq!(copy("FROM base\nADD --unpack a /x").unpack, Unpack::All);
    let flags = copy("FROM scratch\nCOPY --link --parents --exclude=$x --exclude=b a/./c /x/");
    assert!(flags.link && flags.parents && !flags.has_root);
    assert_eq!(flags.exclude, ["$x", "b"]);
    assert_eq!(path(&flags.sources[0]), "/a/./c");
}

#[test]
fn here_documents_are_files() {
    let text = "FROM base\nARG v=1\nCOPY <<one <<-\"two\" /d/\na $v \"q\"\none\n\tb $v\n\ttwo\n";
    let copied = copy(text);
    let file = |name: &str, content: &str| CopySource::Inline {
        name: name.to_owned(),
        content: content.to_owned(),
    };
    assert_eq!(copied.sources, [file("one", "a 1 \"q\"\n"), file("two", "b $v\n")]);
    assert_eq!(history(&plan(text))[1], "COPY <<one <<two /d/ # buildkit");
}

#[test]
fn stages_are_inputs() {
    let text = "FROM base AS Build\nRUN make\nFROM scratch\nCOPY --from=bUILD /a /a\n\
                COPY --from=0 /b /b\nCOPY --from=bare /c /c";
    let plan = plan(text);
    check(&plan);
    let vertices = chain(&plan);
    assert_eq!(plan.graph.len(), 6);
    assert_eq!(vertices.len(), 3);
    assert_eq!(vertices[0].inputs.len(), 1);
    assert_eq!(vertices[1].inputs.len(), 2);
    let Op::Copy(copy) = &vertices[1].op else { panic!() };
    assert_eq!(copy.sources, [CopySource::Input { input: 1, path: "/b".to_owned() }]);
    assert_eq!(vertices[1].inputs[1], vertices[0].inputs[0]);
    assert_eq!(history(&plan)[0], "COPY /a /a # buildkit");
    let empty = copy_of_empty();
    assert_eq!(empty.sources, [CopySource::Empty { path: "/x".to_owned() }]);
}

fn copy_of_empty() -> Copy {
    copy("FROM scratch AS e\nFROM base\nCOPY --from=e /x /y")
}

#[test]
fn equal_vertices_are_one() {
    let text = "FROM base AS a\nRUN x\nFROM base AS b\nRUN x\nFROM scratch\n\
                COPY --from=a / /a\nCOPY --from=b / /b";
    let plan = plan(text);
    assert_eq!(plan.graph.len(), 4);
}

#[test]
fn unused_stages_ask_for_nothing() {
    let text = "FROM nowhere AS unused\nRUN x\nFROM Bad:Ref:x AS worse\nFROM base\nRUN y";
    let images = small();
    let plan = plan_with(text, &options(), &images).unwrap();
    assert_eq!(*images.asked.borrow(), ["base:latest linux/amd64"]);
    assert_eq!(
        names(&plan),
        ["[stage-2 1/2] FROM docker.io/library/base:latest", "[stage-2 2/2] RUN y"]
    );
}

#[test]
fn step_names() {
    let one = plan("FROM base\nENV A=1\nRUN echo $A ${A} $B '$A'\nworkdir /x\nCOPY a b");
    assert_eq!(
        names(&one),
        [
            "[1/4] FROM docker.io/library/base:latest",
            "[2/4] RUN echo 1 1 $B '1'",
            "[3/4] WORKDIR /x",
            "[4/4] COPY a b",
        ]
    );
    let named = plan("FROM scratch AS s\nRUN <<EOF\necho hi\necho ho\nEOF\n");
    assert_eq!(names(&named), ["[s 1/1] RUN <<EOF (echo hi...)"]);
    // What a secret would show is not known here, and a variable of its name is not meant.
    let mount = "--mount=type=secret,id=s,env=T";
    let secret = plan(&format!("FROM scratch\nENV T=t\nRUN {mount} x $T ${{T}} $TT\nRUN x $T"));
    assert_eq!(
        names(&secret),
        [format!("[1/2] RUN {mount} x **** **** $TT"), "[2/2] RUN x t".to_owned()]
    );
    let many = "RUN x\n".repeat(10);
    assert_eq!(names(&plan(&format!("FROM scratch\n{many}")))[0], "[ 1/10] RUN x");
}

#[test]
fn configs() {
    let text = "FROM base\nLABEL a=1\nUSER u\nEXPOSE 9 80-81/UDP\nVOLUME /v [\nSTOPSIGNAL SIGINT\n\
                HEALTHCHECK --interval=90s CMD x y\nONBUILD RUN later";
    let plan = plan(text);
    let config = &plan.targets[0].config.config;
    assert_eq!(config.labels["a"], "1");
    let ports: Vec<_> = config.exposed_ports.keys().map(String::as_str).collect();
    assert_eq!(ports, ["80/udp", "81/udp", "9/tcp"]);
    assert_eq!(config.on_build, ["RUN later"]);
    assert_eq!(
        history(&plan),
        [
            "LABEL a=1",
            "USER u",
            "EXPOSE [80/udp 81/udp 9/tcp]",
            "VOLUME [/v []",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK {Test:[CMD-SHELL x y] Interval:1m30s Timeout:0s StartPeriod:0s \
             StartInterval:0s Retries:0}",
        ]
    );
    assert!(
        plan.targets[0].config.history[1..]
            .iter()
            .all(|item| item.comment == "buildkit.dockerfile.v0")
    );
    assert!(plan.targets[0].config.created.is_none());
}

/// The copy knows nothing of what it will be laid upon, unless it has to look an owner up there.
#[test]
fn a_linked_copy_is_made_upon_nothing_and_merged() {
    let parts = |text: &str| {
        let plan = plan(text);
        let merge = plan.graph.vertex(plan.targets[0].vertex.unwrap());
        assert!(matches!(merge.op, Op::Merge), "{merge:?}");
        let [below, layer] = merge.inputs[..] else { panic!("{merge:?}") };
        let copied = plan.graph.vertex(layer);
        let Op::Copy(copy) = &copied.op else { panic!("{copied:?}") };
        assert!(copy.link && !copy.has_root);
        (below, copied.inputs.clone(), copy.accounts)
    };
    assert_eq!(parts("FROM base\nCOPY --link a /").1, []);
    assert_eq!(parts("FROM base\nCOPY --link --chown=1:2 a /").1, []);
    assert_eq!(parts("FROM base\nCOPY --link --chown=root:root a /").1, []);
    let (below, inputs, accounts) = parts("FROM base\nCOPY --link --chown=app a /");
    assert_eq!((inputs, accounts), (vec![below], Some(0)));
    let named = "FROM base AS s\nRUN x\nFROM base\nADD --link --chown=1:app a /";
    assert_eq!(parts(named).2, Some(0));
    let from = "FROM base AS s\nRUN x\nFROM base\nCOPY --link --from=s --chown=app a /";
    let (below, inputs, accounts) = parts(from);
    assert_eq!((inputs[1], inputs.len(), accounts), (below, 2, Some(1)));
    // Two stages with one layer.
    let two = "FROM base AS s\nCOPY --link a /\nFROM s\nRUN x\nCOPY --link a /";
    let plan = plan(two);
    let copies = plan.graph.vertices().filter(|(_, vertex)| matches!(vertex.op, Op::Copy(_)));
    assert_eq!(copies.count(), 1);
    support::check(&plan);
}

#[test]
fn devices_are_asked_for_where_they_are_written() {
    let text = "FROM base AS unused\nRUN --device=no/no x\nFROM base\nRUN --device=a.b/c=d \\\n \
        --device=required,name=e x\nRUN x";
    let plan = plan(text);
    let asked: Vec<_> = plan
        .devices
        .iter()
        .map(|it| (it.device.name.as_str(), it.device.required, it.span.text(text)))
        .collect();
    let second = "required,name=e";
    assert_eq!(asked, [("a.b/c=d", false, "a.b/c=d"), ("e", true, second)]);
    let Op::Run(with) = &support::chain(&plan)[1].op else { panic!() };
    let names: Vec<_> = with.devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["a.b/c=d", "e"]);
    assert_eq!(run("FROM base\nRUN x").devices, []);
}

#[test]
fn a_maintainer_is_the_author_and_a_shell_is_kept() {
    let plan = plan("FROM base\nMAINTAINER me and you\nSHELL [\"/bin/ash\", \"-c\"]\nCMD x");
    assert_eq!(plan.targets[0].config.author, "me and you");
    let config = &plan.targets[0].config.config;
    assert_eq!(config.shell.as_deref().unwrap(), ["/bin/ash", "-c"]);
    assert_eq!(config.cmd.as_deref().unwrap(), ["/bin/ash", "-c", "x"]);
}

#[test]
fn entrypoint_drops_an_inherited_cmd() {
    let cmd =
        |text: &str| plan(text).targets[0].config.config.cmd.clone().map(|words| words.join(" "));
    assert_eq!(cmd("FROM base\nENTRYPOINT x"), None);
    assert_eq!(cmd("FROM base\nCMD [\"a\"]\nENTRYPOINT x").as_deref(), Some("a"));
    assert_eq!(cmd("FROM base AS s\nCMD [\"a\"]\nFROM s\nENTRYPOINT x"), None);
    assert_eq!(cmd("FROM base\nENTRYPOINT x\nCMD [\"a\"]").as_deref(), Some("a"));
    assert_eq!(plan("FROM base\nENTRYPOINT []").targets[0].config.config.entrypoint, None);
}

#[test]
fn scratch_and_bare_images_get_a_path() {
    let scratch = plan("FROM scratch");
    assert_eq!(scratch.targets[0].vertex, None);
    assert_eq!(scratch.targets[0].config.config.working_dir, "/");
    assert_eq!(scratch.targets[0].config.config.env, [support::PATH]);
    assert_eq!(plan("FROM bare").targets[0].config.config.env, [support::PATH]);
    assert!(!run("FROM scratch\nRUN [\"/x\"]").has_root);
}

#[test]
fn workdirs() {
    let kept = |text: &str| plan(text).targets[0].config.config.working_dir.clone();
    assert_eq!(kept("FROM base\nWORKDIR /a/../b/"), "/a/../b/");
    assert_eq!(kept("FROM base\nWORKDIR /a\nWORKDIR b/../c"), "/a/c");
    let root = plan("FROM base\nWORKDIR /");
    assert!(root.targets[0].config.history.last().unwrap().empty_layer);
    assert_eq!(root.graph.len(), 1);
    assert_eq!(kept("FROM base\nARG x\nWORKDIR /a\nWORKDIR $x"), "/a");
    assert_eq!(plan("FROM base\nWORKDIR a").warnings[0].code, "WorkdirRelativePath");
}

#[test]
fn triggers_fire_once() {
    let text = "FROM base AS a\nONBUILD ARG v=1\nONBUILD RUN echo $v\nFROM a AS b\nRUN own\nFROM b";
    let plan = plan(text);
    check(&plan);
    assert_eq!(
        history(&plan),
        [
            "ARG v=1",
            "RUN |1 v=1 /bin/sh -c echo $v # buildkit",
            "RUN |1 v=1 /bin/sh -c own # buildkit",
        ]
    );
    assert!(plan.targets[0].config.config.on_build.is_empty());
    let vertex = chain(&plan)[1];
    assert_eq!(vertex.name, "[b 1/2] ONBUILD RUN echo 1");
    assert!(vertex.span.unwrap().text(text).starts_with("ONBUILD RUN"));
}

#[test]
fn triggers_of_images_may_need_stages() {
    let trigger = serde_json::json!({"OnBuild": ["COPY --from=dep /x /x", "RUN y"]});
    let images = small().with("trigger", 1, trigger);
    let text = "FROM base AS dep\nRUN make\nFROM base AS other\nFROM trigger";
    let plan = plan_with(text, &options(), &images).unwrap();
    check(&plan);
    assert_eq!(plan.graph.len(), 5);
    assert_eq!(history(&plan)[0], "COPY /x /x # buildkit");
    let errors = plan_with("FROM base AS b\nFROM trigger", &options(), &images).unwrap_err();
    assert!(errors[0].message.contains("docker.io/library/dep:latest"), "{errors:?}");
    assert_eq!(errors[0].labels.len(), 2);
}

#[test]
fn what_is_wrong_with_a_trigger_is_told_at_the_stage_that_fires_it() {
    let text = "FROM base AS a\nONBUILD ENV v=${w:?m}\nFROM a AS b\n";
    let wrong = plan_with(text, &options(), &small()).unwrap_err().remove(0);
    let places: Vec<_> = wrong.labels.iter().map(|label| label.span.text(text)).collect();
    assert!(places[0].starts_with("FROM a AS b"), "{places:?}");
    assert!(places[1].starts_with("ONBUILD ENV"), "{places:?}");
}

#[test]
fn wrong_graphs() {
    let table = [
        ("FROM base AS a\nCOPY --from=a x y", "circular dependency detected on stage: a"),
        (
            "FROM base AS a\nCOPY --from=b x y\nFROM base AS b\nFROM a",
            "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"",
        ),
        (
            "FROM base AS a\nCOPY --from=b x y\nFROM a AS b\nFROM b",
            "circular dependency detected on stage: a",
        ),
        ("FROM base\nCOPY --from=3 x y", "invalid stage index 3"),
        ("FROM base\nCOPY --from=-1 x y", "invalid stage index -1"),
        (
            "FROM base AS a\nRUN --mount=from=b,target=/m x\nFROM base AS b\nFROM a",
            "cannot mount from stage \"b\", stage needs to be defined before current command",
        ),
        (
            "FROM base AS base2\nFROM Base2",
            "failed to parse stage name \"Base2\": invalid reference format: repository name \
             (Base2) must be lowercase",
        ),
        ("ARG x\nFROM ${x}", "base name (${x}) should not be blank"),
        ("FROM --platform=$nope base", "empty platform value from expression $nope"),
        ("FROM --platform=a/b/c/d base", "failed to parse platform a/b/c/d: "),
        ("FROM nobase", "failed to resolve source metadata for docker.io/library/nobase:latest: "),
    ];
    for (text, message) in table {
        let found = error(text);
        assert!(found.starts_with(message), "{text}\n{found}");
    }
}

#[test]
fn targets() {
    let text = "FROM base AS build\nRUN x\nFROM base\nRUN y";
    let target = |name: &str| Options { target: Some(name.to_owned()), ..options() };
    assert_eq!(plan_with(text, &target("BUILD"), &small()).unwrap().targets[0].stage_name, "build");
    assert_eq!(plan(text).targets[0].stage_name, "stage-1");
    assert_eq!(
        error_with(text, &target("bulid")),
        "target stage \"bulid\" could not be found (did you mean build?)"
    );
    assert_eq!(error_with(text, &target("1")), "target stage \"1\" could not be found");
}

#[test]
fn help_names_the_stage_that_was_meant() {
    let help = |text: &str| {
        let errors = plan_with(text, &options(), &small()).unwrap_err();
        errors[0].help.clone().unwrap_or_default()
    };
    assert!(help("FROM base AS build\nFROM base\nCOPY --from=biuld x y").contains("`build`"));
    assert!(help("FROM base AS base2\nFROM Base2").contains("`base2`"));
    assert!(help("FROM later AS a\nFROM base AS later\nFROM a").contains("above"));
}

/// The remote sources of the last instruction, in their order.
fn fetched(text: &str) -> Vec<Source> {
    let plan = plan(text);
    check(&plan);
    let vertex = chain(&plan).last().copied().cloned().unwrap();
    let inputs = vertex.inputs.iter().map(|input| plan.graph.vertex(*input).op.clone());
    inputs
        .filter_map(|op| match op {
            Op::Source(source @ (Source::Http(_) | Source::Git(_))) => Some(source),
            _ => None,
        })
        .collect()
}

#[test]
fn remote_sources_are_inputs() {
    let sums = Digest::of("x");
    let text = format!("FROM base\nARG v=1\nADD --checksum={sums} https://h/f-$v.tgz /d/");
    let sources = fetched(&text);
    let [Source::Http(http)] = sources.as_slice() else { panic!("{text}") };
    assert_eq!((http.url.as_str(), http.name.as_str()), ("https://h/f-1.tgz", "f-1.tgz"));
    assert_eq!(http.checksum, Some(sums));
    let path = |copy: &Copy| match &copy.sources[0] {
        CopySource::Input { path, .. } => path.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(path(&copy(&text)), "/f-1.tgz");
    assert_eq!(path(&copy("FROM base\nADD http://h/a%2a /d/")), "/a\\*");
    // One source, however often it is used.
    let twice = plan("FROM base\nADD http://h/f /a\nADD http://h/f /b");
    assert_eq!(names(&twice).iter().filter(|name| **name == "fetch http://h/f").count(), 1);

    let text = "FROM base\nADD --keep-git-dir https://u:p@h/r.git?subdir=/a/../b&submodules=0#v1 /";
    let sources = fetched(text);
    let [Source::Git(git)] = sources.as_slice() else { panic!("{text}") };
    assert_eq!((git.remote.as_str(), git.reference.as_str()), ("https://u:p@h/r.git", "v1"));
    assert_eq!((git.subdir.as_str(), git.keep_git_dir, git.submodules), ("b", true, false));
    assert_eq!(path(&copy(text)), "/");
    let history = plan(text).targets[0].config.history.last().unwrap().created_by.clone();
    assert!(history.starts_with("ADD https://u:xxxxx@h/r.git"), "{history}");
}

#[test]
fn wrong_values() {
    let table = [
        ("COPY --chmod=64a x /", "invalid chmod parameter: '64a'. it should be octal string"),
        ("COPY --from=$x a b", "variable expansion is not supported for --from"),
        ("COPY https://h/x /", "source can't be a URL for COPY"),
        ("COPY https://h/x.git /", "source can't be a git ref for COPY"),
        ("ADD --checksum=sha256:x a /", "checksum requires HTTP(S) or Git sources"),
        (
            "ADD --checksum=sha256:x http://h/a http://h/b /",
            "checksum can't be specified for multiple sources",
        ),
        ("ADD --checksum=sha256:x http://h/a /", "invalid checksum \"sha256:x\""),
        ("ADD --checksum=xyz http://h/a.git /", "expected hex commit hash"),
        ("ADD --checksum=ab http://h/a.git?commit=cd /", "checksum mismatch \"ab\" != \"cd\""),
        (
            "ADD --keep-git-dir=false http://h/a.git?keep-git-dir /",
            "inconsistent keep-git-dir configuration",
        ),
        ("ADD http://h/a.git?x=1 /", "unexpected query \"x\""),
        ("ADD http://h/a.git?fetch-by-commit /", "fetch-by-commit requires a checksum"),
        ("ADD ssh://h/x /", "invalid git URL \"ssh://h/x\": it names no user"),
        ("ADD git://h /", "invalid git URL \"git://h\": it names no repository"),
        ("STOPSIGNAL NOPE", "invalid signal: NOPE"),
        ("EXPOSE 80/foo", "invalid port: \"80/foo\": invalid proto: foo"),
        ("ARG e=\"\"\nVOLUME $e", "VOLUME specified can not be an empty string"),
        ("RUN --security=insecure x", "security.insecure is not allowed"),
        ("WORKDIR /${N:?must}", "failed to process \"/${N:?must}\": N: must"),
        ("RUN --mount=target=/ x", "invalid mount target \"/\""),
        (
            "RUN --mount=type=tmp,target=/x y",
            "unsupported mount type \"tmp\" (did you mean tmpfs?)",
        ),
        ("ARG b=bind\nRUN --mount=type=$b,size=1 y", "unexpected key 'size' for mount type 'bind'"),
        ("ARG m=9\nRUN --mount=type=cache,target=/c,mode=$m y", "invalid value 9 for mode"),
        (
            "ARG s=x\nRUN --mount=type=cache,target=/c,sharing=$s y",
            "unsupported sharing value \"x\"",
        ),
        ("ARG t=secret\nRUN --mount=type=$t,from=base y", "secret mount should not have a from"),
        (
            "ARG t=secret i\nRUN --mount=type=$t,id=$i y",
            "invalid secret mount. one of source, target",
        ),
        ("ARG t=tmp\nRUN --mount=type=$t,target=/x y", "unsupported mount type \"tmp\""),
        ("RUN --mount=from=$x,target=/x y", "'from' doesn't support variable expansion"),
    ];
    for (line, message) in table {
        let found = error(&format!("FROM base\n{line}"));
        assert!(found.contains(message), "{line}\n{found}");
    }
}

#[test]
fn mounts() {
    let mounts = |text: &str| run(&format!("FROM base AS s\nFROM base\n{text} x")).mounts;
    let bind = &mounts("WORKDIR /w\nRUN --mount=from=s,source=a/../b,target=m")[0];
    assert_eq!((bind.target.as_deref(), bind.read_only), (Some("/w/m"), true));
    let MountKind::Bind(source) = &bind.kind else { panic!() };
    // The stage is the same vertex as the root, yet not the root's input.
    assert_eq!(source.root, MountRoot::Input { input: 1 });
    assert_eq!(source.path, "/b");
    let two = mounts("RUN --mount=target=/a --mount=type=bind,rw,target=/b");
    assert!(
        matches!(&two[0].kind, MountKind::Bind(source) if source.root == MountRoot::Context { context: None })
    );
    assert!(!two[1].read_only);
    let cache = &mounts("ARG d=/c/\nRUN --mount=type=cache,target=$d,sharing=locked,uid=7")[0];
    let MountKind::Cache(cache) = &cache.kind else { panic!() };
    assert_eq!((cache.id.as_str(), cache.sharing, cache.uid), ("//c", Sharing::Locked, 7));
    let tmpfs = &mounts("RUN --mount=type=tmpfs,target=/t,size=1m")[0];
    assert_eq!(tmpfs.kind, MountKind::Tmpfs { size: Some(1 << 20) });
    let secrets = mounts("RUN --mount=type=secret,id=a --mount=type=secret,id=b,env=B,required");
    assert_eq!(secrets[0].target.as_deref(), Some("/run/secrets/a"));
    assert_eq!(secrets[1].target, None);
    assert!(matches!(&secrets[1].kind, MountKind::Secret(secret) if secret.required));
    let agents = mounts("RUN --mount=type=ssh --mount=type=ssh,target=/s");
    assert_eq!(agents[0].target.as_deref(), Some("/run/buildkit/ssh_agent.0"));
    assert!(matches!(&agents[0].kind, MountKind::Ssh(ssh) if ssh.export && ssh.id == "default"));
    assert!(matches!(&agents[1].kind, MountKind::Ssh(ssh) if !ssh.export));
}

#[test]
fn epochs() {
    let epoch = |value: &str| {
        let options = with_args(&[("SOURCE_DATE_EPOCH", value)]);
        plan_with("FROM scratch", &options, &small()).unwrap().targets[0].source_date_epoch
    };
    assert_eq!(epoch("1700000000"), Some(1_700_000_000));
    assert_eq!(epoch(""), None);
    assert_eq!(epoch("context"), None);
    assert_eq!(plan("ARG SOURCE_DATE_EPOCH=5\nFROM scratch").targets[0].source_date_epoch, Some(5));
    assert_eq!(error("ARG SOURCE_DATE_EPOCH=x\nFROM scratch"), "invalid SOURCE_DATE_EPOCH: x");
    for (stage, message) in [
        (
            "FROM scratch AS m\nCOPY a b",
            "stage does not meet source-only requirements: unsupported COPY instruction",
        ),
        ("FROM base AS m\nADD http://h/x /", "stage must use FROM scratch"),
        ("FROM scratch AS m", "stage must contain exactly one remote ADD"),
        ("FROM scratch AS m\nADD http://h/x /\nADD http://h/x /", "exactly one remote ADD"),
        ("FROM scratch AS m\nADD http://h/x http://h/y /", "exactly one remote ADD source"),
        ("FROM scratch AS m\nADD x /", "stage source must be a single HTTP(S) or Git ADD"),
        ("FROM scratch AS m\nADD --checksum=x http://h/x /", "invalid checksum \"x\""),
    ] {
        let found = error(&format!("ARG SOURCE_DATE_EPOCH=M\n{stage}\nFROM scratch"));
        assert!(found.contains(message), "{stage}: {found}");
    }
}

#[test]
fn epochs_name_sources() {
    let source = |text: &str, options: &Options| {
        let (dockerfile, problems) = rbuild_parser::parse(text);
        assert!(problems.is_empty(), "{problems:?}");
        rbuild_plan::epoch_source(&dockerfile, options).unwrap()
    };
    let of = |value: &str| with_args(&[("SOURCE_DATE_EPOCH", value), ("V", "given")]);
    let text = "ARG HOST=h\nFROM scratch AS src\nARG V=1 W=$V\nADD https://$HOST/$W.git#$V /\n\
                FROM scratch";
    match source(text, &of("Src")).unwrap() {
        EpochSource::Stage(Source::Git(git)) => {
            assert_eq!(
                (git.remote.as_str(), git.reference.as_str()),
                ("https://h/given.git", "given")
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(source(text, &of("context")), Some(EpochSource::Context));
    assert_eq!((source(text, &of("7")), source(text, &of(""))), (None, None));
    // A context comes before a stage of its name; one that has no time has no source.
    let mut options = of("src");
    options.contexts.insert("src", NamedContext::Local).unwrap();
    let named = EpochSource::Named { name: "src".to_owned(), source: None };
    assert_eq!(source(text, &options), Some(named));
    // Nothing is asked where nothing is built.
    assert_eq!(plan_with(text, &of("src"), &small()).unwrap().targets[0].source_date_epoch, None);
}

#[test]
fn caches_are_left_out_by_stage() {
    let text = "FROM base AS a\nRUN x\nFROM a\nRUN y";
    let no_cache = |no_cache: NoCache| {
        let plan = plan_with(text, &Options { no_cache, ..options() }, &small()).unwrap();
        plan.graph.vertices().map(|(_, vertex)| vertex.no_cache).collect::<Vec<_>>()
    };
    assert_eq!(no_cache(NoCache::Off), [false; 3]);
    assert_eq!(no_cache(NoCache::All), [true; 3]);
    assert_eq!(no_cache(NoCache::Stages(vec!["A".to_owned()])), [true, true, false]);
}

#[test]
fn other_platforms_warn() {
    let options = Options { platforms: vec![Platform::new("linux", "arm64")], ..options() };
    let plan = plan_with("FROM base\nRUN x", &options, &small()).unwrap();
    assert_eq!(
        plan.warnings[0].message,
        "Base image base was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for \
         current build"
    );
    assert_eq!(plan.targets[0].config.architecture, "arm64");
    // Nobody asked: the image is what its base is.
    let options = Options {
        platforms: Vec::new(),
        build_platform: Platform::new("linux", "arm64"),
        ..options
    };
    let plan = plan_with("FROM base", &options, &small()).unwrap();
    assert_eq!(plan.targets[0].config.architecture, "amd64");
}

/// The names of all steps of a build for several platforms.
fn names_for(text: &str, platforms: &[&str]) -> (Plan, Vec<String>) {
    let platforms = platforms.iter().map(|platform| platform.parse().unwrap()).collect();
    let build_platform = Platform::new("linux", "amd64");
    let options = Options { platforms, build_platform, ..options() };
    let plan = plan_with(text, &options, &small()).unwrap();
    let names = plan.graph.vertices().map(|(_, vertex)| vertex.name.clone()).collect();
    (plan, names)
}

#[test]
fn several_platforms_share_what_does_not_depend_on_them() {
    let text = "FROM --platform=$BUILDPLATFORM base AS tools\nRUN make tools\n\
        FROM tools AS build\nARG TARGETARCH\nRUN cross $TARGETARCH\n\
        FROM scratch\nCOPY notes /\nCOPY --from=build /app /app";
    let (plan, names) = names_for(text, &["linux/amd64", "linux/arm64", "linux/amd64"]);
    assert_eq!(
        names,
        [
            "[linux/amd64 tools 1/2] FROM docker.io/library/base:latest",
            "[linux/amd64 tools 2/2] RUN make tools",
            "[linux/amd64 build 1/1] RUN cross amd64",
            "[linux/amd64 stage-2 1/2] COPY notes /",
            "[linux/amd64 stage-2 2/2] COPY --from=build /app /app",
            "[linux/amd64->arm64 build 1/1] RUN cross arm64",
            "[linux/arm64 stage-2 2/2] COPY --from=build /app /app",
        ]
    );
    assert!(plan.is_index);
    let shown: Vec<_> = plan.targets.iter().map(|target| target.platform.to_string()).collect();
    assert_eq!(shown, ["linux/amd64", "linux/arm64"]);
    assert_ne!(plan.targets[0].vertex, plan.targets[1].vertex);
    assert_eq!(plan.targets[1].config.architecture, "arm64");
    support::check(&plan);
}

#[test]
fn a_linked_copy_is_one_for_all_platforms() {
    let text = "FROM base\nARG TARGETARCH\nRUN x\nCOPY --link a /\nRUN --device=v/c y";
    let (plan, names) = names_for(text, &["linux/amd64", "linux/arm64"]);
    let count = |end: &str| names.iter().filter(|name| name.ends_with(end)).count();
    assert_eq!((count("COPY --link a /"), count("(merge)"), count("RUN x")), (1, 2, 2));
    // Nor is a device asked for twice.
    assert_eq!(plan.devices.len(), 1);
    support::check(&plan);
}

#[test]
fn what_holds_for_all_platforms_is_said_once() {
    let text = "FROM base AS a\nFROM --platform=$TARGETPLATFORM base\nENV a=$b\nRUN x";
    let (plan, _) = names_for(text, &["linux/amd64", "linux/arm64", "linux/arm/v7"]);
    let codes: Vec<_> = plan.warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(
        codes,
        [
            "RedundantTargetPlatform",
            "UndefinedVar",
            "InvalidBaseImagePlatform",
            "InvalidBaseImagePlatform",
        ]
    );
}

#[test]
fn an_index_is_made_of_one_platform_when_it_is_asked_for() {
    let with = |value: &str, platforms: &[&str]| {
        let mut options = Options {
            platforms: platforms.iter().map(|platform| platform.parse().unwrap()).collect(),
            ..options()
        };
        options.build_args.insert("BUILDKIT_MULTI_PLATFORM".to_owned(), value.to_owned());
        plan_with("FROM scratch", &options, &small())
    };
    assert!(with("1", &[]).unwrap().is_index);
    assert!(with("TRUE", &["linux/arm64"]).unwrap().is_index);
    assert!(!with("0", &["linux/arm64"]).unwrap().is_index);
    assert!(!with("", &[]).unwrap().is_index);
    assert!(with("", &["linux/arm64", "linux/amd64"]).unwrap().is_index);
    let message =
        |value: &str, platforms: &[&str]| with(value, platforms).unwrap_err()[0].message.clone();
    assert_eq!(
        message("0", &["linux/arm64", "linux/amd64"]),
        "conflicting config: returning multiple target platforms is not allowed"
    );
    assert_eq!(message("yes", &[]), "invalid boolean value for multi-platform: yes");
}

#[test]
fn a_stage_takes_the_platform_of_a_base_that_can_be_run() {
    let build_platform = Platform::new("linux", "arm64");
    let plain = Options { platforms: Vec::new(), build_platform, ..options() };
    let emulated =
        Options { emulated_platforms: vec![Platform::new("linux", "amd64")], ..plain.clone() };
    let warnings =
        |text: &str, options: &Options| plan_with(text, options, &small()).unwrap().warnings.len();
    assert_eq!(warnings("FROM base", &plain), 1);
    assert_eq!(warnings("FROM base", &emulated), 0);
    // Who says what he wants is told when it is not that.
    assert_eq!(warnings("FROM --platform=$TARGETPLATFORM base", &emulated), 2);
    let platforms = vec![Platform::new("linux", "arm64")];
    assert_eq!(warnings("FROM base", &Options { platforms, ..emulated }), 1);
    let plan = plan_with("FROM base\nRUN x", &plain, &small()).unwrap();
    let runs = plan.graph.vertices().find_map(|(_, vertex)| match &vertex.op {
        Op::Run(run) => Some(run.platform.clone()),
        _ => None,
    });
    assert_eq!(runs, Some(Some(Platform::new("linux", "amd64"))));
}

#[test]
fn paths_of_windows() {
    let options = Options { platforms: vec![Platform::new("windows", "amd64")], ..options() };
    let windows = |text: &str| plan_with(&format!("# escape=`\n{text}"), &options, &small());
    let plan = windows("FROM scratch\nWORKDIR C:\\app\nWORKDIR sub\nCOPY x .\nCOPY x c:\\y\\");
    let plan = plan.unwrap();
    assert_eq!(plan.targets[0].config.config.working_dir, "\\app\\sub");
    assert!(plan.targets[0].config.config.env.is_empty());
    let destinations: Vec<_> = plan
        .graph
        .vertices()
        .filter_map(|(_, vertex)| match &vertex.op {
            Op::Copy(copy) => Some((copy.destination.as_str(), copy.into_directory)),
            _ => None,
        })
        .collect();
    assert_eq!(destinations, [("/app/sub", true), ("/y", true)]);
    assert_eq!(windows("FROM scratch").unwrap().targets[0].config.config.working_dir, "\\");
    let errors = windows("FROM scratch\nCOPY x d:\\y").unwrap_err();
    assert_eq!(errors[0].message, "\"d:\\\\y\" is not on the system drive (C:)");
}

#[test]
fn undefined_variables_warn() {
    let messages = |text: &str| {
        plan(text).warnings.into_iter().map(|warning| warning.message).collect::<Vec<_>>()
    };
    assert_eq!(
        messages("FROM base\nENV FOO=1\nENV B=$FO"),
        ["Usage of undefined variable '$FO' (did you mean $FOO?)"]
    );
    assert!(messages("FROM base\nARG x\nENV B=$x").is_empty());
    assert_eq!(
        messages("FROM base$nothing_near"),
        ["FROM argument 'nothing_near' is not declared"]
    );
}

#[test]
fn graphs_can_be_drawn() {
    let drawn = dot(&plan("FROM base AS a\nFROM base\nCOPY --from=a \"/x\" /y"));
    assert!(drawn.contains("v0 -> v1\n"), "{drawn}");
    assert!(drawn.contains("v0 -> v1 [style=dashed]"), "{drawn}");
    assert!(drawn.contains("peripheries=2"), "{drawn}");
}

/// Ways to make a small file ask for much.
#[test]
fn growth_is_bounded() {
    let doubling = "ENV a=$a$a$a$a\n".repeat(40);
    let found = error(&format!("FROM scratch\nENV a=0123456789\n{doubling}"));
    assert!(found.contains("longer than") || found.contains("more than"), "{found}");
    let ports = "EXPOSE".to_owned() + &" 0-65535".repeat(10);
    assert_eq!(error(&format!("FROM scratch\n{ports}")), "more ports than there are");
    assert_eq!(error("FROM base\nENV a=\0\n"), "holds a NUL byte");
    assert_eq!(error("FROM base\nRUN \0\n"), "holds a NUL byte");
    let big = format!("FROM scratch\nENV a={}\n", "x".repeat(100_000));
    let found = error(&(big + &"RUN x\n".repeat(1_000)));
    assert!(found.contains("grow too large"), "{found}");
}

#[test]
fn long_chains_need_no_stack() {
    let mut text = "FROM scratch AS s0\n".to_owned();
    for stage in 1..3_000 {
        text.push_str(&format!("FROM s{} AS s{stage}\n", stage - 1));
    }
    assert!(plan(&text).graph.is_empty());
}
