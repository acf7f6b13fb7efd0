//! References to git repositories: what BuildKit's table leaves out, and any text.

#![allow(clippy::unwrap_used, reason = "a test, also in its helpers")]

use proptest::prelude::*;
use rbuild_plan::git_ref::GitRef;

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
