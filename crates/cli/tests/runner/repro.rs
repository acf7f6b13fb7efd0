//! `repro`: the same build twice.

use crate::program::{Program, can_build};

#[test]
fn a_build_that_gives_the_same_bytes_is_called_identical() {
    if !can_build() {
        return;
    }
    let program = Program::new();
    program.file("a", "hello");
    program.file("Dockerfile", "FROM scratch\nCOPY a /d/\nCOPY <<EOF /e\ntext\nEOF\n");
    let said = program.run("repro").good();
    let digest = said.stdout.strip_prefix("identical: ").unwrap().trim();
    for text in ["umask", "host name", "times, order in directories", "SOURCE_DATE_EPOCH=315532800"]
    {
        assert!(said.stderr.contains(text), "{text}: {said:#?}");
    }
    // What it says makes the image makes it.
    let variables = [("SOURCE_DATE_EPOCH", "315532800")];
    program.run_with("--rewrite-timestamp --metadata-file m .", "", &variables).good();
    let metadata = fs_err::read_to_string(program.context().join("m")).unwrap();
    assert!(metadata.contains(digest), "{digest} in {metadata}");
    fs_err::remove_file(program.context().join("m")).unwrap();
    let quiet = program.run("repro -q .").good();
    assert_eq!((quiet.stdout, quiet.stderr.as_str()), (format!("identical: {digest}\n"), ""));
}

#[test]
fn what_differs_is_shown_with_its_cause() {
    if !can_build() {
        return;
    }
    let program = Program::new();
    program.file("a", "hello");
    program.file("Dockerfile", "FROM scratch\nCOPY a /a\n");
    let differ = program.run("repro --plain .");
    assert_eq!(differ.code, 1, "{differ:#?}");
    for text in [
        "different: layer 1, COPY a /a # buildkit\n  ~ /a: time ",
        "  timestamps: use --rewrite-timestamp with a SOURCE_DATE_EPOCH",
        "everything that differs: rbuild diff ",
    ] {
        assert!(differ.stdout.contains(text), "{text:?} in {}", differ.stdout);
    }
    let line = differ.stdout.lines().last().unwrap();
    let command = line.split_once("rbuild ").unwrap().1;
    assert!(program.run(command).stdout.contains("~ /a: time"), "{command}");
    let json = program.run("repro --plain --json -q .");
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["Layer"]["Files"][0]["Cause"], "timestamps");
    assert_eq!(json["Identical"], false);
}

#[test]
fn what_has_no_meaning_for_two_builds_is_refused() {
    let program = Program::new();
    program.file("Dockerfile", "FROM scratch\n");
    for (line, flag) in [
        ("repro -t a .", "--tag"),
        ("repro -o type=oci,dest=a .", "--output"),
        ("repro --iidfile a .", "--iidfile"),
        ("repro --cache-from type=local,src=a .", "--cache-from"),
        ("repro --check .", "--check"),
        ("repro --sbom=true .", "they say when it was built"),
        ("repro ./nothing", "does not exist"),
        ("repro --nonsense", "--nonsense"),
    ] {
        program.run(line).refused(2, flag);
    }
}
