//! What files say of registries.

use crate::program::{Program, can_build};

#[test]
fn aliases_and_blocked_registries_are_heeded_and_the_file_named() {
    let program = Program::new();
    let file = program.context().join("registries.conf");
    let text = "[[registry]]\nlocation = \"blocked.example\"\nblocked = true\n\
                [aliases]\nshort = \"blocked.example/team/long\"\n";
    program.file("registries.conf", text);
    program.file("Dockerfile", "FROM short:1\n");
    let variables = [("CONTAINERS_REGISTRIES_CONF", file.to_str().unwrap())];
    for line in ["pull blocked.example/team/long", "pull short", "run --rm short", "build ."] {
        let outcome = program.run_with(line, "", &variables);
        assert_ne!(outcome.code, 0, "{line}");
        let named = outcome.stderr.contains("blocked.example/team/long");
        assert!(named && outcome.stderr.contains(file.to_str().unwrap()), "{line}: {outcome:?}");
    }
    program.file("registries.conf", "[[registry]]\nlocation = 1\n");
    let outcome = program.run_with("pull short", "", &variables);
    assert!(outcome.stderr.contains("registries.conf"), "{outcome:?}");
    assert_ne!(outcome.code, 0);
    // What asks no registry does not mind.
    assert_eq!(program.run_with("images", "", &variables).code, 0);
}

#[test]
fn a_short_name_is_the_same_in_every_command() {
    if !can_build() {
        return;
    }
    let program = Program::new();
    let file = program.context().join("registries.conf");
    program.file("registries.conf", "[aliases]\nshort = \"r.example/team/long\"\n");
    program.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let variables = [("CONTAINERS_REGISTRIES_CONF", file.to_str().unwrap())];
    let run = |line: &str| {
        let outcome = program.run_with(line, "", &variables);
        assert_eq!(outcome.code, 0, "{line}: {outcome:?}");
        outcome.stdout
    };
    let names = "images --format {{.Repository}}:{{.Tag}}";
    program.run("-t plain .").good();
    run("-t short:1 .");
    run("tag plain short:2");
    run("-o type=oci,dest=o.tar,name=short:3 .");
    run("load -i o.tar");
    run("manifest create short:4 short:1");
    let all = run(&format!("{names} short"));
    for tag in 1..=4 {
        assert!(all.contains(&format!("r.example/team/long:{tag}\n")), "{all}");
        let found = run(&format!("inspect --format {{{{.Id}}}} short:{tag}"));
        assert_eq!(found, run(&format!("inspect --format {{{{.Id}}}} r.example/team/long:{tag}")));
    }
    run("manifest inspect short:1");
    run("save short:2 -o short.tar");
    let outcome = program.run_with("push short:9", "", &variables);
    assert!(outcome.stderr.contains("no such image: short:9"), "{outcome:?}");
    assert_eq!(run("rmi short:1"), "Untagged: r.example/team/long:1\n");
    // An image that came by these very words is found by what listings show of it.
    program.run("-t short:5 .").good();
    assert!(program.run(names).good().stdout.contains("short:5\n"));
    assert_eq!(run("rmi short:5"), "Untagged: short:5\n");
}
