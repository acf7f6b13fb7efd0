//! Holds the documents to what is there: paths, functions, commands, flags, warnings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rbuild_testkit::sources::{defines_test, repository_files, rust_files};
use rbuild_testkit::{markdown, read, root};

/// ARCHITECTURE.md must be short enough to stay true.
const ARCHITECTURE_LINES: usize = 250;

/// Folders of the repository that documents name.
const FOLDERS: [&str; 7] =
    ["crates/", "xtask/", "docs/", "examples/", "testdata/", "benches/", ".ci/"];

/// All Markdown files outside of test data.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = match repository_files() {
        Some(files) => files,
        None => ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
            .into_iter()
            .map(PathBuf::from)
            .collect(),
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.into_iter().map(|path| (path.clone(), read(path))).collect()
}

fn nothing_wrong(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        let folder = path.parent().unwrap_or(Path::new(""));
        for link in markdown::links(&text) {
            let target = link.split('#').next().unwrap_or_default();
            let is_remote = link.contains("://") || target.is_empty();
            if !is_remote && !root().join(folder).join(target).exists() {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    nothing_wrong("links to nothing", &wrong);
}

/// Also a test in a file, as `crates/x/tests/y.rs::name`.
#[test]
fn paths_in_documents_exist() {
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        for span in markdown::code_spans(&text) {
            let is_path = FOLDERS.iter().any(|folder| span.starts_with(folder));
            let is_pattern = span.contains(['<', '*', ' ', '{']);
            let exists = match span.contains("::") {
                true => defines_test(span),
                false => root().join(span).exists(),
            };
            if is_path && !is_pattern && !exists {
                wrong.push(format!("{}: {span}", path.display()));
            }
        }
    }
    nothing_wrong("paths that are not there", &wrong);
}

/// Documents write `` `name` (`crates/…/file.rs`) ``: the file must define the name.
#[test]
fn functions_are_where_documents_say() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (path, text) in documents() {
        let flowing = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let parts: Vec<&str> = flowing.split("` (`").collect();
        for pair in parts.windows(2) {
            let name = pair[0].rsplit('`').next().unwrap_or_default();
            let file = pair[1].split('`').next().unwrap_or_default();
            let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
            if !file.starts_with("crates/") || !file.ends_with(".rs") || !is_name {
                continue;
            }
            checked += 1;
            let source = fs_err::read_to_string(root().join(file)).unwrap_or_default();
            let defines = ["fn ", "struct ", "enum ", "trait "].iter().any(|keyword| {
                let defined = format!("{keyword}{name}");
                source.match_indices(&defined).any(|(at, _)| {
                    let after = source[at + defined.len()..].chars().next();
                    after.is_none_or(|c| !c.is_alphanumeric() && c != '_')
                })
            });
            if !defines {
                wrong.push(format!("{}: {name} is not in {file}", path.display()));
            }
        }
    }
    nothing_wrong("names that have moved", &wrong);
    assert!(checked > 20, "the form of these mentions has changed: {checked} found");
}

#[test]
fn architecture_is_short() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= ARCHITECTURE_LINES, "ARCHITECTURE.md has {lines} lines");
}

#[test]
fn the_changelog_has_a_place_for_news() {
    assert!(read("CHANGELOG.md").contains("\n## Unreleased\n"));
}

/// The example in README.md is the compiled one of the crate's documentation.
#[test]
fn the_example_in_the_readme_is_compiled() {
    let readme = read("README.md");
    let library = read("crates/rbuild/src/lib.rs");
    let compiled: Vec<&str> = library
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .skip_while(|line| !line.starts_with("```"))
        .skip(1)
        .take_while(|line| !line.starts_with("```"))
        .collect();
    let blocks = markdown::blocks(&readme, "rust");
    let [shown] = blocks.as_slice() else { panic!("README.md has not one Rust block") };
    assert_eq!(*shown, compiled, "README.md and crates/rbuild/src/lib.rs show different examples");
}

/// Every line `rbuild …` of a shell block, comments cut off.
fn shown_commands(text: &str) -> Vec<String> {
    let blocks = markdown::blocks(text, "sh");
    let lines = blocks
        .into_iter()
        .flatten()
        .map(|line| line.split_once(" #").map_or(line, |(command, _)| command).trim().to_owned());
    lines.filter(|line| line.starts_with("rbuild ")).collect()
}

/// Names in quotes of `const COMMANDS` in the command's sources.
fn commands() -> BTreeSet<String> {
    let source = read("crates/cli/src/args/first_word.rs");
    let list = source.split("const COMMANDS").nth(1).and_then(|rest| rest.split("];").next());
    let list = list.expect("the list of commands is there");
    let mut all: BTreeSet<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(list.contains("super::IMAGE_PRUNE"), "{list}");
    all.insert("image-prune".to_owned());
    all
}

/// Everything in the command's argument structs that could be a flag: fields and quoted names.
fn flags() -> BTreeSet<String> {
    let mut flags = BTreeSet::new();
    for file in rust_files("crates/cli/src/args") {
        if file.ends_with("other_flags.rs") {
            // Those are known and not honoured: no document should show them.
            continue;
        }
        for line in read(&file).lines().map(str::trim) {
            let field = line.strip_prefix("pub ").and_then(|rest| rest.split_once(':'));
            flags.extend(field.map(|(name, _)| name.replace('_', "-")));
            if let Some((_, rest)) = line.split_once("long = \"") {
                flags.extend(rest.split('"').next().map(str::to_owned));
            }
        }
    }
    flags.insert("help".to_owned());
    flags.insert("version".to_owned());
    flags
}

#[test]
fn shown_commands_and_flags_exist() {
    let (commands, flags) = (commands(), flags());
    assert!(commands.contains("build") && flags.contains("build-arg"), "{commands:?} {flags:?}");
    let mut wrong = Vec::new();
    let mut shown = 0;
    for (path, text) in documents() {
        for line in shown_commands(&text) {
            shown += 1;
            let mut words = line.split_whitespace().skip(1);
            let first = words.next().unwrap_or_default();
            // `image prune` is one in two words.
            let both = words.clone().next().map(|second| format!("{first}-{second}"));
            if !commands.contains(first) && both.is_none_or(|both| !commands.contains(&both)) {
                wrong.push(format!("{}: `{line}`: no command {first}", path.display()));
            }
            // What follows a lone `--` is another program's.
            let ours = words.take_while(|word| *word != "--");
            for word in ours.filter_map(|word| word.strip_prefix("--")) {
                let name = word.split('=').next().unwrap_or_default();
                if !flags.contains(name) {
                    wrong.push(format!("{}: `{line}`: no flag --{name}", path.display()));
                }
            }
        }
    }
    nothing_wrong("commands that do not exist", &wrong);
    assert!(shown > 10, "the form of these blocks has changed: {shown} commands found");
}

#[test]
fn shown_chores_exist() {
    let main = read("xtask/src/main.rs");
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        for rest in text.split("cargo xtask ").skip(1) {
            let name: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
            if !name.is_empty() && !main.contains(&format!("Some(\"{name}\")")) {
                wrong.push(format!("{}: cargo xtask {name}", path.display()));
            }
        }
    }
    nothing_wrong("chores that do not exist", &wrong);
}

/// Every instruction, flag and warning of the sources is in the table of what is supported.
#[test]
fn the_support_table_is_complete() {
    let text = read("docs/dockerfile-support.md");
    let instructions = [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    let firsts: Vec<_> = markdown::rows(&text).into_iter().map(|row| row[0].to_owned()).collect();
    let mut missing: Vec<String> = instructions
        .iter()
        .filter(|name| !firsts.iter().any(|cell| cell.contains(&format!("`{name}`"))))
        .map(ToString::to_string)
        .collect();
    for file in rust_files("crates/parser/src/instruction") {
        for line in read(&file).lines() {
            let Some((before, _)) = line.split_once("\", Takes::") else { continue };
            let flag = before.rsplit('"').next().unwrap_or_default();
            if !text.contains(&format!("`--{flag}")) {
                missing.push(format!("--{flag} ({})", file.display()));
            }
        }
    }
    for folder in ["crates/parser/src", "crates/plan/src"] {
        for file in rust_files(folder) {
            let source = read(&file);
            for rest in source.split("Diagnostic::warning(").skip(1) {
                let Some(code) = rest.trim_start().strip_prefix('"') else { continue };
                let code = code.split('"').next().unwrap_or_default();
                if !text.contains(&format!("`{code}`")) {
                    missing.push(format!("{code} ({})", file.display()));
                }
            }
        }
    }
    nothing_wrong("not in docs/dockerfile-support.md", &missing);
}

/// Every row of what is supported names a test, or a folder of test data, in its last cell. That
/// they are there is `paths_in_documents_exist`'s. The table of cases has its tests in front.
#[test]
fn every_row_of_the_support_tables_names_what_shows_it() {
    let text = read("docs/dockerfile-support.md");
    let supported = text.split("## Test cases that end otherwise").next().unwrap_or_default();
    let is_shown = |row: &[&str]| {
        let last = row.last().copied().unwrap_or_default();
        let spans = markdown::code_spans(last);
        let is_test = |span: &&str| span.contains("::") || span.starts_with("testdata/");
        !spans.is_empty() && spans.iter().all(is_test)
    };
    let (mut missing, mut rows) = (Vec::new(), 0);
    for row in markdown::rows(supported) {
        let last = row.last().copied().unwrap_or_default();
        if last != "shown by" && last != "---" {
            rows += 1;
            missing.extend((!is_shown(&row)).then(|| row.join(" | ")));
        }
    }
    nothing_wrong("rows that no test shows", &missing);
    assert!(rows > 50, "the form of the tables has changed: {rows} rows");
}

/// What is written here is for people who know only this repository, on any machine.
#[test]
fn files_speak_of_the_project_alone() {
    let Some(files) = repository_files() else {
        eprintln!("skipped: this is no git checkout");
        return;
    };
    let root = root();
    let mut places = Vec::new();
    // A checkout right below `/` has a name that any text may hold.
    if root.components().count() > 2 {
        places.push(root.display().to_string());
        places.extend(root.parent().map(|parent| parent.join("shared").display().to_string()));
    }
    let mut wrong = Vec::new();
    for file in files {
        let Ok(text) = fs_err::read_to_string(root.join(&file)) else { continue };
        let is_prose = file.extension().is_some_and(|extension| extension == "md");
        for (index, line) in text.lines().enumerate() {
            let place = places.iter().any(|place| names_place(line, place));
            let numbered = ["issue ", "issue #", "helper-", "helper "]
                .iter()
                .any(|word| is_followed_by_digit(line, word));
            // In sources the word has a meaning: setsid(2).
            let session = is_prose && line.to_lowercase().contains("session");
            if place || numbered || session {
                wrong.push(format!("{}:{}: {}", file.display(), index + 1, line.trim()));
            }
        }
    }
    nothing_wrong("words that mean nothing elsewhere", &wrong);
}

/// Whether a line names the path itself or something below it.
fn names_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let next = line[at + place.len()..].chars().next();
        next.is_none_or(|c| !c.is_alphanumeric() && c != '-' && c != '_' && c != '.')
    })
}

fn is_followed_by_digit(line: &str, word: &str) -> bool {
    let line = line.to_lowercase();
    line.match_indices(word)
        .any(|(at, _)| line[at + word.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

#[test]
fn words_and_places_are_found() {
    assert!(is_followed_by_digit("as Point 12 says", "point "));
    assert!(!is_followed_by_digit("a point of two", "point "));
    assert!(names_place("in /a/b/c", "/a/b") && !names_place("in /a/bc", "/a/b"));
}
