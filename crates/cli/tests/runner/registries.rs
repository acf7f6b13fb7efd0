//! What files say of registries.

use crate::program::Program;

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
