//! Builds without a base image, and the commands that look at what they made.

use crate::program::{Program, can_build};

fn program() -> Program {
    let program = Program::new();
    program.file("Dockerfile", "FROM scratch\nARG V=1\nCOPY a /a\nLABEL v=$V\nCMD [\"/a\"]\n");
    program.file("a", "hello");
    program
}

#[test]
fn a_build_speaks_on_stderr_and_is_cached_the_second_time() {
    if !can_build() {
        return;
    }
    let program = program();
    let first = program.run("-t app --progress=plain --iidfile id --metadata-file m .").good();
    assert_eq!(first.stdout, "");
    assert!(first.stderr.contains("#1 [1/1] COPY a /a\n#1 DONE "), "{first:#?}");
    let id = fs_err::read_to_string(program.context().join("id")).unwrap();
    assert!(first.stderr.contains(&format!("built app:latest  {id}  ")), "{first:#?}");
    let metadata = fs_err::read_to_string(program.context().join("m")).unwrap();
    for key in ["containerimage.config.digest", "rbuild.steps", "docker.io/library/app:latest"] {
        assert!(metadata.contains(key), "{metadata}");
    }
    let second = program.run("--tag app .").good();
    assert!(second.stderr.contains("#1 CACHED\n"), "{second:#?}");
    let quiet = program.run("-q .").good();
    assert_eq!((quiet.stdout, quiet.stderr), (format!("{id}\n"), String::new()));
    let json = program.run("--progress=rawjson .").good();
    assert!(json.stderr.lines().all(|line| line.starts_with(r#"{"#)), "{json:#?}");
}

#[test]
fn arguments_reach_the_image() {
    if !can_build() {
        return;
    }
    let program = program();
    let line = "-t app --build-arg V --label x=y --provenance=false --load .";
    program.run_with(line, "", &[("V", "7")]).good();
    let labels = program.run("inspect --format {{.Config.Labels}} app").good().stdout;
    assert_eq!(labels, "map[v:7 x:y]\n");
    let command = ["inspect", "-f", "{{json", ".Config.Cmd}}", "app"];
    // A word with a blank in it, which `run` cannot say: the parts are refused.
    program.run(&command.join(" ")).refused(1, "--format");
    let noted = program.run("--force-rm .").good();
    assert!(noted.stderr.contains("note: --force-rm has no meaning here"), "{noted:#?}");
}

#[test]
fn images_have_names_that_come_and_go() {
    if !can_build() {
        return;
    }
    let program = program();
    program.run("-t app -t other/app:2 .").good();
    let format = "images --format {{.Repository}}:{{.Tag}}";
    assert_eq!(program.run(format).good().stdout, "app:latest\nother/app:2\n");
    program.run("tag app third").good();
    assert_eq!(program.run("rmi app other/app:2").good().stdout.lines().count(), 2);
    assert_eq!(program.run(format).good().stdout, "third:latest\n");
    let table = program.run("images").good().stdout;
    assert!(table.starts_with("REPOSITORY   TAG      IMAGE ID"), "{table}");
    program.run("rmi nope").refused(1, "no such image: nope");
    program.run("rmi -f nope").good();
    let history = program.run("history third").good().stdout;
    assert!(history.lines().next().unwrap().contains("CREATED BY"), "{history}");
    assert!(history.contains("COPY a /a"), "{history}");
    program.run("rmi third").good();
    let pruned = program.run("prune -a -f").good().stdout;
    assert!(pruned.contains("Total reclaimed space: "), "{pruned}");
    assert!(program.run("du").good().stdout.contains("total"));
}

#[test]
fn lists_are_chosen_and_shown_as_asked() {
    if !can_build() {
        return;
    }
    let program = program();
    program.run("-t app:1 -t team/app:2 .").good();
    let listed = |line: &str| program.run(line).good().stdout;
    let table = program.run_words(&["images", "--format", r"table {{.Repository}}\t{{.Tag}}"]);
    assert_eq!(table.good().stdout, "REPOSITORY   TAG\napp          1\nteam/app     2\n");
    let names = "images --format {{.Repository}}:{{.Tag}} --filter";
    assert_eq!(listed(&format!("{names} reference=*/app")), "team/app:2\n");
    assert_eq!(listed(&format!("{names} reference=*:1 -f label=v=1")), "app:1\n");
    assert_eq!(listed(&format!("{names} label=v=2")), "");
    assert_eq!(listed(&format!("{names} dangling=true")), "");
    assert_eq!(listed(&format!("{names} dangling=false")).lines().count(), 2);
    assert_eq!(listed(&format!("{names} before=app:1")), "");
    let range = "{{range .RepoTags}}{{println .}}{{end}}{{index .Config.Labels `v`}}";
    let inspected = program.run_words(&["inspect", "-f", range, "app:1"]).good().stdout;
    assert_eq!(inspected, "app:1\nteam/app:2\n1\n");
    let bytes = listed("history -H=false --format {{.Size}} app:1");
    assert!(bytes.lines().all(|line| line.parse::<u64>().is_ok()), "{bytes}");
    assert!(listed("history --human=false app:1").starts_with("IMAGE          CREATED AT"));
    let kinds = listed("du --format {{.Type}}/{{.Shared}}/{{.Reclaimable}} --filter shared");
    assert_eq!(kinds.lines().next(), Some("regular/true/false"), "{kinds}");
    let du = listed("du");
    assert!(du.starts_with("ID ") && du.contains("RECLAIMABLE") && du.contains("\ntotal "), "{du}");
    assert!(listed("du --verbose").contains("\nReclaimable:    false\n"));
    assert!(!listed("du --filter type=exec.cachemount").contains("COPY"));
    assert!(listed("prune -a -f --max-used-space 1TB").contains("reclaimed space: 0B"));
    assert!(listed("prune -a -f --keep-storage 90%").contains("reclaimed space: 0B"));
    assert!(listed("--min-free-space 0 prune -a -f").contains("reclaimed space: 0B"));
    assert!(listed("prune -a -f --filter until=1000h").contains("reclaimed space: 0B"));
}

#[test]
fn damage_is_told_and_repaired() {
    if !can_build() {
        return;
    }
    let program = program();
    program.run("-t app .").good();
    let clean = program.run("fsck").good().stdout;
    assert!(
        clean.starts_with("nothing is damaged (trees compared with their digests: 1,"),
        "{clean}"
    );
    let trees = program.store().join("snapshots");
    let copied = fs_err::read_dir(&trees).unwrap().map(|entry| entry.unwrap().path().join("fs/a"));
    let copied: Vec<_> = copied.filter(|path| path.exists()).collect();
    fs_err::write(&copied[0], "flipped").unwrap();
    let damaged = program.run("fsck");
    assert_eq!(damaged.code, 1);
    assert!(damaged.stdout.contains("(needed by app:latest)\n  hint: `rbuild rmi"), "{damaged:?}");
    program.run("rmi app").good();
    let format = "fsck --repair --format {{.Loss}}/{{.Repaired}}";
    let repaired = program.run(format);
    assert_eq!((repaired.code, repaired.stdout.as_str()), (1, "cache/true\n"));
    program.run("fsck").good();
}

#[test]
fn an_argument_that_nothing_takes_is_a_warning() {
    if !can_build() {
        return;
    }
    let program = program();
    let warned = program.run("--build-arg NOPE=1 .").good().stderr;
    let warning = "warning[unused-build-arg]: one or more build-args [NOPE] were not consumed\n";
    assert!(warned.contains(warning), "{warned}");
    let warned = program.run("--build-arg v=1 .").good().stderr;
    assert!(warned.contains("hint: did you mean `V`?"), "{warned}");
}

#[test]
fn outputs_go_where_they_are_sent() {
    if !can_build() {
        return;
    }
    let program = program();
    program.run("-o out .").good();
    assert_eq!(fs_err::read_to_string(program.context().join("out/a")).unwrap(), "hello");
    program.run("-o type=oci,dest=app.tar -o type=tar,dest=root.tar .").good();
    for file in ["app.tar", "root.tar"] {
        assert!(fs_err::metadata(program.context().join(file)).unwrap().len() > 512);
    }
}

#[test]
fn several_platforms_are_one_image_of_the_store() {
    if !can_build() {
        return;
    }
    let program = program();
    let line =
        "--platform linux/arm64,linux/arm -t app --progress=plain --iidfile id --metadata-file m";
    let first = program.run(&format!("{line} -o out .")).good();
    // What is the same for both is one step.
    assert!(first.stderr.contains("#1 [linux/arm64 1/1] COPY a /a\n#1 DONE "), "{first:#?}");
    assert!(first.stderr.contains("1 step, 0 cached"), "{first:#?}");
    let id = fs_err::read_to_string(program.context().join("id")).unwrap();
    let read = |name: &str| fs_err::read_to_string(program.context().join(name)).unwrap();
    for platform in ["linux_arm64", "linux_arm_v7"] {
        assert_eq!(read(&format!("out/{platform}/a")), "hello");
    }
    let metadata = read("m");
    assert!(metadata.contains(&format!("\"containerimage.digest\": \"{id}\"")), "{metadata}");
    assert!(metadata.contains("application/vnd.oci.image.index.v1+json"), "{metadata}");
    assert!(!metadata.contains("containerimage.config.digest"), "{metadata}");
    let listed = program.run("images --no-trunc --format {{.Repository}}={{.ID}}").good();
    assert_eq!(listed.stdout, format!("app={id}\n"));
    let range = "{{range .Manifests}}{{println .Descriptor.platform.architecture}}{{end}}{{.Id}}";
    let inspected = program.run_words(&["inspect", "-f", range, "app"]).good().stdout;
    assert_eq!(inspected, format!("arm64\narm\n{id}\n"));
    let refused = program.run("--platform linux/arm64,linux/arm -o type=docker,dest=d.tar .");
    refused.refused(1, "does not support manifest lists");
}

#[test]
fn a_rebuild_says_why_and_says_it_again_when_asked() {
    if !can_build() {
        return;
    }
    let program = program();
    program.run("why").refused(1, "nothing was built in this store yet");
    program.run("-t app .").good();
    program.file("a", "hello again");
    let second = program.run("-t app --progress=plain --metadata-file m .").good();
    assert!(second.stderr.contains("#1 [1/1] COPY a /a\n#1 why: /a changed: "), "{second:#?}");
    let metadata = fs_err::read_to_string(program.context().join("m")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let reason = &metadata["rbuild.steps"][0]["reason"];
    assert_eq!((&reason["kind"], &reason["path"]), (&"file".into(), &"/a".into()), "{metadata}");
    assert!(reason["text"].as_str().unwrap().starts_with("/a changed: "), "{metadata}");
    let why = program.run("why").good();
    assert!(why.stdout.contains("[1/1] COPY a /a\n              because /a changed: "), "{why:#?}");
    let json = program.run("why --format json copy").good();
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["steps"][0]["outcome"], "ran");
    program.run("why 7").refused(1, "the last build has no step");
    let json = program.run("--progress=rawjson --no-cache .").good();
    assert!(json.stderr.contains(r#""event":"step-missed""#), "{json:#?}");
}

#[test]
fn what_is_missing_offline_is_named() {
    if !can_build() {
        return;
    }
    let program = Program::new();
    program.file("Dockerfile", "FROM 127.0.0.1:1/no/such:1\nRUN true\n");
    let told = "no/such:1 for linux/";
    program.run("--offline .").refused(1, told);
    program.run("build --offline=true .").refused(1, told);
    program.run("run --offline 127.0.0.1:1/no/such:1").refused(125, told);
    program.run_with(".", "", &[("RBUILD_OFFLINE", "1")]).refused(1, told);
    program.run_with(".", "", &[("RBUILD_OFFLINE", "soon")]).refused(1, "RBUILD_OFFLINE=soon");
    program.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    program.run_with("-q .", "", &[("RBUILD_OFFLINE", "true")]).good();
}

#[test]
fn a_lock_is_written_and_held_to() {
    if !can_build() {
        return;
    }
    let program = Program::new();
    program.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let told = "there is no ./rbuild.lock: `rbuild lock .` writes it";
    program.run("--locked -q .").refused(1, told);
    let outcome = program.run("lock .").good();
    assert_eq!(outcome.stderr, "./rbuild.lock: 0 references, 0 changed\n");
    program.run("--locked -q .").good();
    program.run("build --locked --call dot .").good();
    program.run("--locked --check .").refused(1, "--locked is for builds");
    program.run_stdin("--locked -", "FROM scratch\n").refused(1, "name one with -f");
    program.file("app.Dockerfile", "FROM 127.0.0.1:1/no/such:1\n");
    program.file("app.Dockerfile.rbuild.lock", "version = 1\n");
    let told = "no/such:1 for linux/amd64 is not in app.Dockerfile.rbuild.lock: \
                `rbuild lock -f app.Dockerfile --platform linux/amd64 .` writes it anew";
    let outcome = program.run("--locked -f app.Dockerfile --platform linux/amd64 .");
    let stderr = outcome.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(outcome.code == 1 && stderr.contains(told), "{stderr}");
    program.run("lock -f app.Dockerfile --offline .").refused(1, "is not in the store");
}

#[test]
fn an_image_says_what_is_in_it_when_asked() {
    if !can_build() {
        return;
    }
    let program = program();
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs_err::read(program.context().join(name)).unwrap()).unwrap()
    };
    let line = "--sbom --provenance=mode=min,version=v0.2 -t app --metadata-file m -o out .";
    program.run(line).good();
    assert_eq!(read("out/sbom.spdx.json")["predicate"]["spdxVersion"], "SPDX-2.3");
    let how = read("out/provenance.json")["predicate"].clone();
    assert_eq!(how["invocation"]["parameters"]["frontend"], "dockerfile.v0");
    let told = &read("m")["buildx.build.provenance"];
    assert_eq!(
        (&told["buildType"], &told["metadata"]),
        (&how["buildType"], &serde_json::Value::Null)
    );
    // It is one image still, whoever looks at it.
    let listed = program.run("images --format {{.Repository}}").good();
    assert_eq!(listed.stdout, "app\n");
    assert!(program.run("history app").good().stdout.contains("COPY a /a"));
    let inspected = program.run("inspect --format {{.Config.Cmd}} app").good();
    assert_eq!(inspected.stdout, "[/a]\n");
    let kinds = "{{range .Manifests}}{{.Kind}} {{end}}";
    let inspected = program.run_words(&["inspect", "-f", kinds, "app"]).good().stdout;
    assert_eq!(inspected, "image attestation \n");
    let all = [("BUILDX_METADATA_PROVENANCE", "max")];
    program.run_with("--metadata-file m --build-arg V=2 .", "", &all).good();
    let told = &read("m")["buildx.build.provenance"];
    assert_eq!(told["invocation"]["parameters"]["args"]["build-arg:V"], "2");
    assert!(told["metadata"]["buildStartedOn"].is_string(), "{told}");
    program.run("--attest type=vex .").refused(1, "--attest type=vex: no type `vex`");
}
