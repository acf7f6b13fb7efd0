//! Arguments that are refused, and answers that need no store.

use crate::program::Program;

#[test]
fn version_and_help_open_no_store() {
    let program = Program::new();
    let version = program.run("--version").good();
    assert_eq!(version.stdout, format!("rbuild {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(program.run("version").good().stdout, version.stdout);
    assert_eq!(program.run("-v").good().stdout, version.stdout);
    let help = program.run("--help").good();
    assert!(help.stdout.contains("rbuild [build] [OPTIONS] PATH"), "{help:#?}");
    assert!(!program.context().join("../store").exists());
}

#[test]
fn mistakes_are_named() {
    let program = Program::new();
    program.file("file", "");
    program.run("-t").refused(1, "--tag");
    program.run("--no-such-flag .").refused(1, "--no-such-flag");
    program.run("imagse").refused(1, "did you mean `rbuild images`?");
    program.run("./nope").refused(1, "the context ./nope does not exist");
    program.run("./file").refused(1, "not a directory");
    program.run("bake x").refused(1, "`rbuild bake` is not supported yet");
    program.run("--ssh default .").refused(1, "SSH_AUTH_SOCK is not set");
    program.run("--add-host a .").refused(1, "--add-host: invalid host \"a\"");
    program.run("--allow all .").refused(1, "--allow: unknown entitlement \"all\"");
    program.run("-m 1k .").refused(1, "too small");
    program.run("--annotation index:=b .").refused(1, "--annotation index:=b: no name");
    program.run("--call=convertllb .").refused(1, "--call=convertllb is not supported yet");
    program.run("--platform linux/arm64,b .").refused(1, "--platform: \"b\" is not a platform");
    let outputs =
        "-o type=tar,dest=t,platform-split=true -o type=local,dest=d,platform-split=false";
    program.run(&format!("{outputs} .")).refused(1, "platform-split has to be the same");
    program
        .run("-o type=oci,compression=estargz,oci-mediatypes=false .")
        .refused(1, "manifests of Docker have no annotations");
    program.run("--push .").refused(1, "a tag is needed when pushing");
    program.run("--registry-mirror x .").refused(1, "HOST=LOCATION");
    program.run("images --format {{range}}").refused(1, "--format");
    program.run("buildx ls").refused(1, "`rbuild buildx ls` is not supported yet");
    program.run("--no-cache=maybe .").refused(1, "invalid value 'maybe' for '--no-cache");
    program.run("images --filter is-official=true").refused(1, "--filter is-official=…");
    program.run("images --tree").refused(1, "--tree is not supported yet");
    program.run("prune --filter until=soon -f").refused(1, "not a time");
    program.run("du --filter a=b").refused(1, "--filter a=… is not supported yet");
    program.run("--max-used-space much du").refused(1, "--max-used-space much: neither");
}

#[test]
fn mistakes_of_run_have_dockers_code() {
    let program = Program::new();
    program.run("run").refused(125, "<IMAGE>");
    program.run("run --restart often app").refused(125, "no such policy");
    program.run("run -v a:b app").refused(125, "absolute path");
    program.run("run --link a app").refused(125, "--link is not supported yet");
    program.run("run --rm=maybe app").refused(125, "invalid value 'maybe' for '--rm");
    program.run("run -w rel app").refused(125, "not an absolute path");
    program.run("run -h").refused(125, "--hostname");
    assert!(program.run("run --help").good().stdout.contains("rbuild run [OPTIONS] IMAGE"));
    program.file("cid", "");
    program.run("run --cidfile cid app").refused(125, "--cidfile cid: the file is there already");
    program.run("run --pull=never --cidfile new nope").refused(125, "nope");
    assert!(!program.context().join("new").exists());
}

#[test]
fn a_misspelled_variable_of_progress_is_said() {
    let program = Program::new();
    let outcome = program.run_with(".", "", &[("BUILDKIT_PROGRESS", "fancy")]);
    outcome.refused(1, "BUILDKIT_PROGRESS=fancy");
}
