//! The shape that ARCHITECTURE.md describes, held by a test: which crate may depend on which,
//! which libraries belong to whom, where `unsafe` may stand, and what every manifest says.

use std::path::{Path, PathBuf};

use rbuild_testkit::packages::{Package, packages};
use rbuild_testkit::sources::{code_lines, rust_files};
use rbuild_testkit::{markdown, read, root};

/// The folder of a crate and the crates of ours that it may be made with. Tests, benches and
/// examples may use any.
const ARROWS: [(&str, &[&str]); 16] = [
    ("types", &[]),
    ("rooted", &[]),
    ("parser", &["types"]),
    ("plan", &["types", "parser"]),
    ("cache", &["types", "rooted"]),
    ("snapshot", &["rooted"]),
    ("sandbox", &["types", "rooted"]),
    ("container", &["types", "rooted", "snapshot", "sandbox", "network"]),
    ("image", &["types", "rooted"]),
    ("network", &[]),
    ("registry", &["types"]),
    ("sbom", &["types", "rooted"]),
    ("solver", &["types", "parser", "plan", "cache", "snapshot", "sandbox", "image", "rooted"]),
    (
        "rbuild",
        &[
            "types",
            "parser",
            "plan",
            "cache",
            "snapshot",
            "sandbox",
            "network",
            "container",
            "image",
            "registry",
            "sbom",
            "solver",
            "rooted",
        ],
    ),
    ("cli", &["rbuild"]),
    ("testkit", &[]),
];

/// Libraries that only some crates may be made with, and why that is worth a test.
const OWNERS: [(&str, &[&str]); 20] = [
    // The async edge: nothing else may block on, or be called from, a runtime.
    ("tokio", &["registry"]),
    ("reqwest", &["registry"]),
    ("russh", &["registry"]),
    ("object_store", &["registry"]),
    // Terminals and arguments are the command's.
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("console", &["cli"]),
    ("anstream", &["cli"]),
    ("annotate-snippets", &["cli"]),
    // Never in a public signature.
    ("nom", &["parser"]),
    ("petgraph", &["plan"]),
    ("rusqlite", &["cache"]),
    ("syscalls", &["sandbox"]),
    ("hickory-proto", &["network"]),
    ("netlink-packet-core", &["network"]),
    ("netlink-packet-route", &["network"]),
    // For what rustix lacks; elsewhere it would only be another way to the same calls.
    ("nix", &["network"]),
    // Archives of strangers are read in one place.
    ("tar", &["image"]),
    // Git's objects are no archives, but compressed in the same way.
    ("flate2", &["image", "rbuild"]),
    // What needs `unsafe` for the system's sake.
    ("libc", &["sandbox", "cli", "rooted"]),
];

/// `std::fs` where fs_err or rbuild-rooted do not serve: the store's own file layer puts paths
/// in its errors by itself; the Dockerfile is opened with flags that fs_err does not offer.
const STD_FS: [&str; 3] = [
    "crates/cache/src/file.rs",
    "crates/cache/src/lock.rs",
    "crates/rbuild/src/sources/dockerfile.rs",
];

fn short(name: &str) -> &str {
    name.strip_prefix("rbuild-").unwrap_or(name)
}

fn of_folder<'a>(packages: &'a [Package], folder: &str) -> &'a Package {
    let path = Path::new("crates").join(folder);
    packages.iter().find(|package| package.folder == path).expect("the crate is in the workspace")
}

fn crates(packages: &[Package]) -> impl Iterator<Item = &Package> {
    packages.iter().filter(|package| package.folder.starts_with("crates"))
}

/// All at once, so that one run shows everything that is wrong.
fn nothing_wrong(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let packages = packages();
    let mut wrong = Vec::new();
    for package in crates(&packages) {
        let folder = package.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == folder) else {
            wrong.push(format!("{folder} is in no line of the table"));
            continue;
        };
        let ours = |name: &str| packages.iter().any(|package| package.name == name);
        for dependency in package.dependencies.iter().filter(|name| ours(name)) {
            if !allowed.contains(&short(dependency)) {
                wrong.push(format!("{folder} -> {}", short(dependency)));
            }
        }
    }
    nothing_wrong("arrows that are not in the table", &wrong);
}

#[test]
fn the_table_in_architecture_md_is_this_one() {
    let text = read("ARCHITECTURE.md");
    let mut told = Vec::new();
    for row in markdown::rows(&text) {
        let [folder, _, arrows, ..] = row.as_slice() else { continue };
        let folder = folder.trim_matches(['`', '*']);
        if ARROWS.iter().any(|(name, _)| *name == folder) {
            let mut arrows: Vec<_> =
                arrows.split(", ").filter(|name| *name != "–").map(str::to_owned).collect();
            arrows.sort();
            told.push((folder.to_owned(), arrows));
        }
    }
    told.sort();
    let mut expected: Vec<_> = ARROWS
        .iter()
        .map(|(name, arrows)| {
            let mut arrows: Vec<_> = arrows.iter().map(ToString::to_string).collect();
            arrows.sort();
            (name.to_string(), arrows)
        })
        .collect();
    expected.sort();
    assert_eq!(told, expected, "the crate table of ARCHITECTURE.md differs from this test's");
}

#[test]
fn libraries_belong_to_their_crates() {
    let packages = packages();
    let mut wrong = Vec::new();
    for package in crates(&packages) {
        let folder = package.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        for (library, owners) in OWNERS {
            if package.dependencies.contains(library) && !owners.contains(&folder) {
                wrong.push(format!("{folder} is made with {library}"));
            }
        }
    }
    nothing_wrong("libraries that belong to other crates", &wrong);
    let cli = of_folder(&packages, "cli");
    assert!(cli.dependencies.contains("clap"), "the table of owners has lost touch");
}

#[test]
fn unsafe_stands_in_sys_modules_only() {
    let mut wrong = Vec::new();
    for package in packages() {
        for file in rust_files(package.folder.join("src")) {
            let in_sys = file.components().any(|part| part.as_os_str() == "sys")
                || file.file_name().is_some_and(|name| name == "sys.rs");
            if in_sys {
                continue;
            }
            let text = read(&file);
            let forms = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe(no_m"];
            for (number, line) in code_lines(&text) {
                if forms.iter().any(|form| line.contains(form)) {
                    wrong.push(format!("{}:{number}", file.display()));
                }
            }
        }
    }
    nothing_wrong("unsafe outside of a sys module", &wrong);
}

#[test]
fn libraries_without_sys_modules_forbid_unsafe() {
    let mut wrong = Vec::new();
    for package in crates(&packages()) {
        let source = package.folder.join("src");
        let lib = source.join("lib.rs");
        let has_sys = rust_files(&source).iter().any(|file| {
            file.components().any(|part| part.as_os_str() == "sys")
                || file.file_name().is_some_and(|name| name == "sys.rs")
        });
        let forbids = root().join(&lib).is_file() && read(&lib).contains("#![forbid(unsafe_code)]");
        if !has_sys && !forbids {
            wrong.push(lib.display().to_string());
        }
    }
    nothing_wrong("libraries that do not say #![forbid(unsafe_code)]", &wrong);
}

#[test]
fn std_fs_is_left_to_its_few_places() {
    let allowed: Vec<PathBuf> = STD_FS.iter().map(PathBuf::from).collect();
    let mut wrong = Vec::new();
    let packages = packages();
    for package in crates(&packages) {
        for file in rust_files(package.folder.join("src")) {
            if allowed.contains(&file) {
                continue;
            }
            let text = read(&file);
            for (number, line) in code_lines(&text) {
                if uses_std_fs(line) {
                    wrong.push(format!("{}:{number}: {}", file.display(), line.trim()));
                }
            }
        }
    }
    nothing_wrong("std::fs instead of fs_err or rbuild-rooted", &wrong);
}

/// Types such as `File` and `Permissions` are values like others; functions and `OpenOptions`
/// open paths without naming them in errors.
fn uses_std_fs(line: &str) -> bool {
    let whole_module = line.contains("use std::fs;") || line.contains("use std::fs as");
    let opens = line.split("std::fs::").skip(1).any(|rest| {
        let item: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let listed = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
        let items = listed.map_or(vec![item.as_str()], |list| list.split(", ").collect());
        items.iter().any(|item| {
            *item == "OpenOptions" || *item == "self" || item.starts_with(char::is_lowercase)
        })
    });
    whole_module || opens
}

#[test]
fn uses_of_std_fs_are_told_apart() {
    for bad in ["std::fs::read(x)", "use std::fs;", "use std::fs::{File, OpenOptions};"] {
        assert!(uses_std_fs(bad), "{bad}");
    }
    for good in ["use std::fs::File;", "std::fs::Permissions::from_mode(0o7)", "fs_err::read(x)"] {
        assert!(!uses_std_fs(good), "{good}");
    }
}

#[test]
fn manifests_inherit_what_the_root_says() {
    let mut wrong = Vec::new();
    for package in packages() {
        let path = package.folder.join("Cargo.toml");
        let text = read(&path);
        let mut section = String::new();
        let mut said = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']).to_owned();
            } else if !line.is_empty() && !line.starts_with('#') {
                let is_dependency = section.ends_with("dependencies");
                let inherits = line.contains(".workspace = true")
                    || line.replace(' ', "").contains("workspace=true");
                if is_dependency && !inherits {
                    wrong.push(format!("{}: `{line}` is not inherited", path.display()));
                }
                said.push(format!("[{section}] {line}"));
            }
        }
        let keys = ["version", "edition", "rust-version", "license", "publish"];
        let mut expected: Vec<_> =
            keys.iter().map(|key| format!("[package] {key}.workspace = true")).collect();
        expected.push("[lints] workspace = true".to_owned());
        for line in expected.iter().filter(|line| !said.contains(line)) {
            wrong.push(format!("{}: lacks `{line}`", path.display()));
        }
    }
    nothing_wrong("manifests that say their own", &wrong);
}

#[test]
fn nobody_is_made_with_the_testkit() {
    let users: Vec<_> = packages()
        .into_iter()
        .filter(|package| package.dependencies.contains("rbuild-testkit"))
        .map(|package| package.name)
        .collect();
    nothing_wrong("made with rbuild-testkit", &users);
}
