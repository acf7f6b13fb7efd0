//! References to git repositories: what BuildKit's table leaves out.

#![allow(clippy::unwrap_used, reason = "a test, also in its helpers")]

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
