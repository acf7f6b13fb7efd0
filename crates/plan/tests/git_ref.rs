//! References to git repositories: BuildKit's table row by row, and any text.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

use std::path::PathBuf;

use proptest::prelude::*;
use rbuild_plan::git_ref::{CheckoutTime, GitRef};
use serde_json::Value;

/// BuildKit's `TestParseGitRef`, from the folder that holds the public corpora.
fn rows() -> Vec<Value> {
    let Some(shared) = std::env::var_os("RBUILD_SHARED") else { return Vec::new() };
    let table = "corpora/buildkit/tables/dfgitutil-git_ref.tables.jsonl";
    let text = fs_err::read_to_string(PathBuf::from(shared).join(table)).unwrap();
    let tables = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ours = tables.filter(|table| table["func"] == "TestParseGitRef");
    ours.flat_map(|table| table["rows"].as_array().unwrap().clone()).collect()
}

#[test]
fn buildkit_s_table() {
    let rows = rows();
    if rows.is_empty() {
        return println!("skipped: RBUILD_SHARED does not name the folder with the corpora");
    }
    assert!(rows.len() >= 38);
    for row in rows {
        let text = row["ref"].as_str().unwrap();
        let found = GitRef::parse(text);
        if let Some(error) = row["err"].as_str() {
            assert!(found.as_ref().is_err_and(|found| found.contains(error)), "{row}: {found:?}");
            continue;
        }
        let found = found.unwrap();
        let Some(expected) = row["expected"].as_object() else {
            assert_eq!(found, None, "{row}");
            continue;
        };
        let part = |name: &str| expected.get(name).and_then(Value::as_str).unwrap_or_default();
        let is = |name: &str| expected.get(name).and_then(Value::as_bool).unwrap_or_default();
        let wanted = GitRef {
            remote: part("Remote").to_owned(),
            short_name: part("ShortName").to_owned(),
            reference: part("Ref").to_owned(),
            checksum: Some(part("Checksum").to_owned()).filter(|text| !text.is_empty()),
            subdir: part("SubDir").to_owned(),
            may_be_local: is("IndistinguishableFromLocal"),
            unencrypted: is("UnencryptedTCP"),
            mtime: match part("MTime") {
                "commit" => Some(CheckoutTime::Commit),
                "checkout" => Some(CheckoutTime::Checkout),
                _ => None,
            },
            fetch_by_commit: is("FetchByCommit"),
            ..GitRef::default()
        };
        assert_eq!(found, Some(wanted), "{row}");
    }
}

#[test]
fn switches_and_what_is_wrong_with_queries() {
    let parse = |query: &str| GitRef::parse(&format!("https://h/r.git?{query}"));
    let keep = |query: &str| parse(query).unwrap().unwrap().keep_git_dir;
    assert_eq!(keep("keep-git-dir"), Some(true));
    assert_eq!((keep("keep-git-dir=0"), keep("submodules=T")), (Some(false), None));
    for (query, message) in [
        ("ref=a&ref=a", "query \"ref\" has multiple values"),
        ("tag", "query \"tag\" has no value"),
        ("keep-git-dir=maybe", "invalid keep-git-dir value: \"maybe\""),
        ("subdir=a&mtime=now", "invalid mtime value: \"now\""),
        ("ref=-x", "invalid git ref \"-x\""),
        ("ref=a%0ab", "invalid git ref"),
    ] {
        assert!(parse(query).is_err_and(|error| error.contains(message)), "{query}");
    }
    let both = GitRef::parse("https://h/r.git?subdir=a#main:b");
    assert!(both.is_err_and(|error| error.contains("subdir conflicts: \"b\" vs \"a\"")));
    let found = GitRef::parse("git@h:r?tag=refs/tags/x+y%21#").unwrap_err();
    assert!(found.contains("invalid git ref"), "{found}");
}

/// Texts that come close.
fn texts() -> impl Strategy<Value = String> {
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

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in texts()) {
        if let Ok(Some(found)) = GitRef::parse(&text) {
            prop_assert!(!found.reference.starts_with('-'));
            prop_assert!(!found.reference.contains(char::is_control));
            prop_assert!(!found.remote.contains('#'));
            // What was found, written again, is found again.
            let fragment = match found.subdir.as_str() {
                "" => found.reference.clone(),
                subdir => format!("{}:{subdir}", found.reference),
            };
            if !fragment.contains(['%', ':']) {
                let again = GitRef::parse(&format!("{}#{fragment}", found.remote)).unwrap();
                let again = again.map(|again| (again.remote, again.reference));
                prop_assert_eq!(again, Some((found.remote, found.reference)));
            }
        }
    }
}
