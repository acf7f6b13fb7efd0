//! What holds for any text that reaches the plan: whole Dockerfiles, and values that strangers
//! write in them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

mod support;

use proptest::prelude::*;
use rbuild_plan::git_ref::GitRef;
use rbuild_plan::mount::{MountKind, MountRoot};
use rbuild_plan::op::{Op, Run};
use rbuild_plan::{ImageConfigs, Options, dot, lower, without_passwords};
use rbuild_testkit::property::{grows_with_its_input, holds};
use support::{chain, check, options, plan_with, small};

/// Whatever the lines, there is a plan that holds together, or an error that points into the
/// file.
#[test]
fn lines_in_any_order() {
    holds("plans of lines", &prop::collection::vec(any_line(), 0..12), |lines| {
        let text = format!("ARG g=1\n{}\n", lines.join("\n"));
        match plan_with(&text, &options(), &small()) {
            Ok(plan) => {
                check(&plan);
                assert!(!dot(&plan).is_empty());
            }
            Err(errors) => {
                assert!(!errors.is_empty());
                let inside = |label: &rbuild_types::Label| label.span.end <= text.len();
                let in_file = errors.iter().all(|error| error.labels.iter().all(inside));
                assert!(in_file, "{errors:?}");
            }
        }
    });
}

fn any_line() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "FROM base",
        "FROM base AS a",
        "FROM a AS b",
        "FROM a",
        "FROM scratch AS c",
        "FROM b",
        "FROM --platform=$g base",
        "FROM --platform=linux/arm64 base AS d",
        "FROM ${g:+a}",
        "ARG v=$v$g",
        "ARG v",
        "ENV v=1 w=$v",
        "ENV w $v$w",
        "RUN echo $v",
        "RUN [\"x\"]",
        "RUN --mount=from=a,target=/m x",
        "RUN --mount=type=cache,target=$v x",
        "RUN <<E\nx\nE",
        "COPY x y",
        "COPY --from=a x y",
        "COPY --from=b / /",
        "COPY --from=1 x y",
        "COPY --parents --link --exclude=* a/./b c/",
        "COPY <<E /x\n$v\nE",
        "ADD x.tar $v",
        "WORKDIR a/$v",
        "WORKDIR /",
        "USER $v",
        "EXPOSE $v 80",
        "VOLUME $v",
        "LABEL $v=$w",
        "ONBUILD RUN echo $v",
        "ONBUILD COPY --from=a x y",
        "ONBUILD ENV v=2",
        "CMD x",
        "ENTRYPOINT [\"a\"]",
        "HEALTHCHECK NONE",
        "SHELL [\"s\"]",
        "STOPSIGNAL 9",
        "MAINTAINER m",
    ]);
    prop_oneof![
        9 => fixed.prop_map(str::to_owned),
        1 => "[A-Z]{1,6} [ -~]{0,20}",
    ]
}

/// Absolute, and nothing in it leads up.
fn is_clean(path: &str) -> bool {
    path.starts_with('/') && path.split('/').skip(1).all(|name| name != "." && name != "..")
}

/// The paths that a mount has: inside the step, and inside what is mounted.
fn paths(run: &Run) -> impl Iterator<Item = &str> {
    run.mounts.iter().flat_map(|mount| {
        let source = match &mount.kind {
            MountKind::Bind(source) => Some(source.path.as_str()),
            MountKind::Cache(cache) => Some(cache.path.as_str()),
            _ => None,
        };
        mount.target.as_deref().into_iter().chain(source)
    })
}

/// Fields of mounts that go astray.
fn mount() -> impl Strategy<Value = String> {
    let path = || "(\\.\\./|/|a|\\./|\\$v|\\$up|b){0,6}";
    let number = prop_oneof![Just("0".to_owned()), "[0-9]{1,20}", Just("$n".to_owned())];
    let other = prop_oneof![
        Just("ro".to_owned()),
        Just("rw=false".to_owned()),
        Just("required".to_owned()),
        "from=(a|base|nobody|0|9|\\$v)",
        "sharing=(shared|private|locked|x)",
        "env=[A-Z=]{0,3}",
    ];
    let field = prop_oneof![
        path().prop_map(|path| format!("target={path}")),
        path().prop_map(|path| format!("source={path}")),
        path().prop_map(|path| format!("id={path}")),
        ("(mode|uid|gid|size)", number).prop_map(|(key, value)| format!("{key}={value}")),
        other,
    ];
    let kind = "(type=(bind|cache|tmpfs|secret|ssh|x),)?";
    (kind, prop::collection::vec(field, 0..5))
        .prop_map(|(kind, fields)| format!("{kind}{}", fields.join(",")))
}

/// A mount leads nowhere but below its roots, whatever its fields say.
#[test]
fn mounts_stay_below_their_roots() {
    holds("mounts of steps", &mount(), |mount| {
        let text =
            format!("FROM base AS a\nFROM base\nARG v=/x up=../.. n=7\nRUN --mount={mount} true\n");
        let Ok(plan) = plan_with(&text, &options(), &small()) else { return };
        for vertex in chain(&plan) {
            let Op::Run(run) = &vertex.op else { continue };
            assert!(paths(run).all(is_clean), "{:?}", run.mounts);
            assert!(run.mounts.iter().all(|mount| mount.target.as_deref() != Some("/")));
            for mount in &run.mounts {
                let root = match &mount.kind {
                    MountKind::Bind(source) => Some(&source.root),
                    MountKind::Cache(cache) => cache.seed.as_ref(),
                    _ => None,
                };
                if let Some(MountRoot::Input { input }) = root {
                    assert!(*input < vertex.inputs.len());
                }
            }
        }
    });
}

#[test]
fn any_exposed_port_is_one_or_refused() {
    let spec = "([0-9]{1,6}|-|:|/|tcp|UDP|sctp|\\[::1\\]|[a-z]|\\$p){0,6}";
    holds("ports", &spec, |spec| {
        let text = format!("FROM scratch\nARG p=80\nEXPOSE {spec}\n");
        let Ok(plan) = plan_with(&text, &options(), &small()) else { return };
        for port in plan.targets[0].config.config.exposed_ports.keys() {
            let (number, protocol) = port.split_once('/').unwrap();
            assert!(number.parse::<u16>().is_ok(), "{port}");
            assert!(["tcp", "udp", "sctp"].contains(&protocol), "{port}");
        }
    });
}

/// Texts that come close to a git reference.
fn git_texts() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "https://",
        "http://",
        "git://",
        "ssh://",
        "git@",
        "h",
        ":",
        "/",
        "r.git",
        "?",
        "#",
        "&",
        "=",
        "ref",
        "tag",
        "branch",
        "subdir",
        "commit",
        "mtime",
        "%",
        "%2e",
        "..",
        "-",
        "\n",
        "é",
        "github.com/",
        "@",
        "keep-git-dir",
        "1",
        ";",
        "+",
        " ",
        "[::1]",
        ":80",
    ]);
    prop_oneof![".*", prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())]
}

#[test]
fn any_git_reference_is_read_or_refused() {
    holds("git references", &git_texts(), |text| {
        let Ok(Some(found)) = GitRef::parse(&text) else { return };
        assert!(!found.reference.starts_with('-'));
        assert!(!found.reference.contains(char::is_control));
        assert!(!found.remote.contains('#'));
        // What was found, written again, is found again.
        let fragment = match found.subdir.as_str() {
            "" => found.reference.clone(),
            subdir => format!("{}:{subdir}", found.reference),
        };
        if !fragment.contains(['%', ':']) {
            let again = GitRef::parse(&format!("{}#{fragment}", found.remote)).unwrap();
            let again = again.map(|again| (again.remote, again.reference));
            assert_eq!(again, Some((found.remote, found.reference)));
        }
    });
}

#[test]
fn no_password_is_shown() {
    let user = "[a-z%0-9]{0,4}";
    let parts = (any::<String>(), user, "[a-zA-Z0-9!%.]{0,6}", git_texts());
    holds("passwords in URLs", &parts, |(before, user, password, after)| {
        let text = format!("{before} https://{user}:PW{password}PW@host/{after}");
        let shown = without_passwords(&text);
        assert!(!shown.contains(&format!("PW{password}PW@")), "{shown}");
        assert_eq!(without_passwords(&shown), shown);
    });
}

/// Plans or fails, which may take as long.
fn planned(text: &str) -> Option<usize> {
    let (file, _) = rbuild_parser::parse(text);
    let images: &dyn ImageConfigs = &small();
    lower(text, &file, &Options::default(), images).ok().map(|plan| plan.graph.len())
}

/// The work of a plan grows with the file, whatever is repeated. Environments and histories, which
/// repeat what came before at each step and in each stage, are bounded instead.
#[test]
fn plans_of_long_files() {
    let lines = |line: fn(usize) -> String| move |count: usize| (0..count).map(line).collect();
    let in_stage = |line: fn(usize) -> String| {
        move |count: usize| format!("FROM base\n{}", lines(line)(count))
    };
    let stage = |stage: usize| {
        let from = stage.checked_sub(1).map(|before| format!("COPY --from=s{before} x y\n"));
        format!("FROM base AS s{stage}\n{}", from.unwrap_or_default())
    };
    grows_with_its_input("stages", 400, lines(stage), |text| assert!(planned(text).is_some()));
    let plans = |name: &str, count: usize, line: fn(usize) -> String| {
        grows_with_its_input(name, count, in_stage(line), |text| assert!(planned(text).is_some()));
    };
    plans("steps", 400, |_| "RUN x\n".to_owned());
    plans("arguments", 1_000, |one| format!("ARG v{one}=x\n"));
    plans("arguments without values", 1_000, |one| format!("ARG v{one}\nLABEL a=$v{one}\n"));
    plans("names that are not set", 1_000, |one| format!("LABEL l{one}=$v{one}\n"));
    plans("ports", 1_000, |_| "EXPOSE 1-9\n".to_owned());
    plans("triggers", 1_000, |_| "ONBUILD RUN x\n".to_owned());
    plans("here-documents", 400, |_| "COPY <<E /x\n$v\nE\n".to_owned());
    let globals = |one: usize| format!("ARG v{one}\n");
    let make = |count: usize| format!("{}{}", lines(globals)(count), "FROM $u\n".repeat(count));
    grows_with_its_input("global arguments", 2_000, make, |text| assert!(planned(text).is_none()));
}
