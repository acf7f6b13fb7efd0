//! `layers` and `diff`: looking into images.

use crate::program::{Program, can_build};

/// An image whose second step replaces one file and whose third removes another.
fn wasteful() -> Program {
    let program = Program::new();
    program.file("big", &"x".repeat(10_000));
    program.file("small", &"y".repeat(1_000));
    program.file("kept", &"z".repeat(500));
    let text = "FROM scratch\nCOPY big kept /d/\nCOPY small /d/big\nCOPY --chmod=600 small /e\n";
    program.file("Dockerfile", text);
    program.run("-t app .").good();
    program
}

#[test]
fn layers_say_what_they_add_and_waste() {
    if !can_build() {
        return;
    }
    let program = wasteful();
    let format = "layers --format {{.Layer}}:{{.Added}}:{{.Changed}}:{{.Removed}}:{{.Wasted}} app";
    assert_eq!(program.run(format).good().stdout, "1:2:0:0:10000\n2:0:1:0:0\n3:1:0:0:0\n");
    let shown = program.run("layers -v app").good().stdout;
    for text in [
        "12.5kB in files, 10kB of them wasted; efficiency 20.0%",
        "10kB   1       added, replaced in 2   /d/big",
        "1kB    2       changed                /d/big",
        "COPY big kept /d/ # buildkit",
    ] {
        assert!(shown.contains(text), "{text:?} in {shown}");
    }
    let json = program.run("layers --json --files=1 app").good().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["Wasted"], 10_000);
    assert_eq!(json["Files"].as_array().unwrap().len(), 2);
    assert_eq!(json["Files"][0]["By"], 2);
    program.run("layers --files=9 app").refused(1, "the image has 3 layers");
    program.run("layers --files=0 app").refused(1, "counted from 1");
    program.run("layers nothing").refused(1, "no such image: nothing");
}

#[test]
fn the_page_of_an_image_with_hostile_names_is_safe() {
    if !can_build() {
        return;
    }
    let program = Program::new();
    let hostile = "<img src=x onerror=alert(1)>&'\"{{data}}\u{202e}";
    fs_err::create_dir_all(program.context().join("x<")).unwrap();
    program.file("x</script><script>alert(2)<", "1");
    program.file(&format!("x</{hostile}"), "22");
    fs_err::create_dir_all(program.context().join("y")).unwrap();
    program.file(&format!("y/{hostile}"), "333");
    let label = "LABEL a=\"</script><script>alert(3)</script>\"\n";
    let text = format!("FROM scratch\nCOPY x< /d/\nCOPY x< /d/\n{label}COPY y /d/\n");
    program.file("Dockerfile", &text);
    program.run("-t app .").good();
    let said = program.run("layers --html page.html app").good();
    assert!(said.stderr.contains("page.html"), "{said:#?}");
    let page = fs_err::read_to_string(program.context().join("page.html")).unwrap();
    assert_eq!(page.matches("<script").count(), 2, "{page}");
    assert_eq!(page.matches("</script").count(), 2);
    assert!(!page.contains("<img") && !page.contains('\u{202e}'));
    // What stands in a name is not filled in, and every key of the page is.
    assert_eq!(page.matches("{{").count(), page.matches("{{data}}").count());
    assert!(page.contains("{{data}}") && page.contains("<table id=\"layers\">"));
    let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let paths: Vec<_> =
        data["files"].as_array().unwrap().iter().map(|row| row[0].clone()).collect();
    assert!(paths.iter().any(|path| path == &format!("d/{hostile}")), "{paths:?}");
    assert!(page.len() < 200_000);
}

#[test]
fn diff_says_in_what_images_differ_as_diff_does() {
    if !can_build() {
        return;
    }
    let program = Program::new();
    let build = |tag: &str, text: &str| {
        program.file("Dockerfile", text);
        program.run_with(&format!("-t {tag} ."), "", &[("SOURCE_DATE_EPOCH", "1000")]).good();
    };
    program.file("text", "one\ntwo\nthree\n");
    program.file("gone", "x");
    build("a", "FROM scratch\nENV A=1 B=2\nCOPY text gone /d/\nCMD [\"x\"]\n");
    build("same", "FROM scratch\nENV A=1 B=2\nCOPY text gone /d/\nCMD [\"x\"]\n");
    program.file("text", "one\n2\nthree\n");
    build("b", "FROM scratch\nENV A=1 B=3\nCOPY --chmod=604 text /d/\nCMD [\"x\"]\n");
    let same = program.run("diff a same").good();
    assert_eq!((same.stdout, same.stderr), (String::new(), String::new()));
    let differ = program.run("diff a b");
    assert_eq!(differ.code, 1, "{differ:#?}");
    for text in [
        "config.Env.B: \"2\" -> \"3\"\n",
        "  - /d/gone: regular file, 1B\n",
        "  ~ /d/text: content (14 -> 12 bytes), mode 0644 -> 0604\n",
        "      byte 4 - one\\ntwo\\nthree\\n\n             + one\\n2\\nthree\\n\n",
        "layers, 0 are the same\n  - 1 ",
    ] {
        assert!(differ.stdout.contains(text), "{text:?} in {}", differ.stdout);
    }
    assert!(!differ.stdout.contains("A:"), "{}", differ.stdout);
    let quiet = program.run("diff -q a b");
    assert_eq!((quiet.code, quiet.stdout.as_str()), (1, ""));
    let rows = program.run("diff --format {{.What}}:{{.Name}}:{{.Change}} a b").stdout;
    assert!(rows.contains("file:/d/gone:removed\nfile:/d/text:content, mode\n"), "{rows}");
    let json: serde_json::Value =
        serde_json::from_str(&program.run("diff --json a b").stdout).unwrap();
    let last = json["Differences"].as_array().unwrap().last().unwrap();
    assert_eq!(last["Content"]["Offset"], 4, "{json}");
    program.run("save b -o b.tar").good();
    program.run("diff b docker-archive:b.tar").good();
    assert_eq!(program.run("diff -q a docker-archive:b.tar:b").code, 1);
    program.run("diff a oci:none").refused(2, "oci-layout://none: ");
    let elsewhere = "no image for platform linux/riscv64; there are: ";
    for line in ["diff --platform linux/riscv64 a b", "diff a b --platform=linux/riscv64"] {
        program.run(line).refused(2, elsewhere);
    }
    program.run("layers --platform linux/riscv64 a").refused(1, elsewhere);
    program.run("load --platform linux/riscv64 b.tar").refused(1, elsewhere);
    program.run("run --platform linux/riscv64 a true").refused(125, elsewhere);
    program.run("diff a nothing").refused(2, "no such image: nothing");
    program.run("diff a").refused(2, "two images are compared by `rbuild diff A B`");
    program.run("diff --nonsense a b").refused(2, "--nonsense");
}
