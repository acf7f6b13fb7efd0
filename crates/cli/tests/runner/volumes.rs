//! Volumes, and what `run` does with them.

use crate::containers::program;

#[test]
fn named_volumes_copy_up_and_host_directories_are_made_for_v_and_not_for_mount() {
    let Some(program) = program() else { return };
    program.file("files", "FROM box\nRUN echo image > /bin/file\n");
    program.run("-t files -f files .").good();
    let line = |line: &str| program.run(line).good().stdout;
    // A new volume starts with what the image has there, and keeps what is written.
    assert_eq!(line("run --rm -v data:/bin files cat /bin/file"), "image\n");
    line("run --rm -v data:/bin files touch /bin/kept");
    assert!(program.store().join("volumes/data/kept").exists());
    // `-v` makes a directory of the host, `--mount` does not.
    let host = program.context().join("made");
    let at = host.display();
    line(&format!("run --rm -v {at}:/in box touch /in/f"));
    assert!(host.join("f").exists());
    let missing = program.context().join("missing");
    program
        .run(&format!("run --rm --mount type=bind,src={},dst=/in box true", missing.display()))
        .refused(125, "does not exist");
    assert!(!missing.exists());
    for option in ["ro", "ro,z", "Z,ro"] {
        program
            .run(&format!("run --rm -v {at}:/in:{option} box touch /in/g"))
            .refused(1, "Read-only");
    }
    line(&format!("run --rm -v {at}:/in:z box touch /in/g"));
    line(&format!("run --rm -v {at}:/in:Z box touch /in/g"));
}

#[test]
fn anonymous_volumes_begin_with_the_image_and_go_with_rm() {
    let Some(program) = program() else { return };
    program.file("files", "FROM box\nRUN echo image > /bin/file\nVOLUME /bin\n");
    program.run("-t files -f files .").good();
    let volumes = || {
        let containers = fs_err::read_dir(program.store().join("containers")).unwrap().flatten();
        let volumes = containers.flat_map(|container| {
            let entries = fs_err::read_dir(container.path()).unwrap().flatten();
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("volume-"))
        });
        volumes.count()
    };
    let line = |line: &str| program.run(line).good().stdout;
    assert_eq!(line("run --name aa -v /other files cat /bin/file"), "image\n");
    assert_eq!(volumes(), 2);
    line("run --rm -v /other files cat /bin/file");
    assert_eq!(volumes(), 2);
    line("rm -v aa");
    assert_eq!(volumes(), 0);
}

#[test]
fn volumes_are_listed_inspected_and_pruned() {
    let Some(program) = program() else { return };
    let line = |line: &str| program.run(line).good().stdout;
    assert_eq!(line("volume create --label a=b data"), "data\n");
    let nameless = line("volume create").trim_end().to_owned();
    line("create --name web -v used:/v box true");
    assert_eq!(line("volume ls -q --filter name=data"), "data\n");
    assert_eq!(line("volume ls -q --filter dangling=false"), "used\n");
    assert_eq!(line("volume ls -q --filter label=a=b --filter dangling=true"), "data\n");
    assert!(line("volume ls").starts_with("DRIVER   VOLUME NAME\n"));
    let words = ["volume", "inspect", "--format", "{{.Name}} {{.Driver}} {{.Labels.a}}", "data"];
    assert_eq!(program.run_words(&words).good().stdout, "data local b\n");
    program.run("volume create -d nfs x").refused(1, "--driver nfs");
    program.run("volume create -o type=nfs x").refused(1, "--opt");
    program.run("volume rm used").refused(1, "in use by container web");
    assert_eq!(program.run("volume inspect none").stdout, "[]\n");
    line("volume rm -f none");
    assert_eq!(line("volume prune -f"), format!("{nameless}\n"));
    assert_eq!(line("volume prune -a --filter label!=a"), "");
    assert_eq!(line("volume prune -a"), "data\n");
    assert_eq!(line("volume ls -q"), "used\n");
}

#[test]
fn a_damaged_container_is_named_by_ps_and_removed_by_force() {
    let Some(program) = program() else { return };
    let line = |line: &str| program.run(line).good().stdout;
    let id = line("create --name odd box true").trim_end().to_owned();
    line("create --name even box true");
    fs_err::write(program.store().join("containers").join(&id).join("config.json"), "{").unwrap();
    let listed = program.run_words(&["ps", "-a", "--format", "{{.Names}}"]).good();
    assert_eq!(listed.stdout, "even\n");
    assert_eq!(listed.stderr.lines().filter(|line| line.contains("odd")).count(), 1);
    assert_eq!(listed.stderr.lines().count(), 1, "{}", listed.stderr);
    program.run("rm odd").refused(1, "rm -f odd");
    assert_eq!(line("rm -f odd"), "odd\n");
    assert_eq!(program.run("ps -a").good().stderr, "");
}
