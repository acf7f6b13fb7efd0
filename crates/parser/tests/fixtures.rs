//! Our own Dockerfiles: `testdata/dockerfiles/<case>/{Dockerfile,ast.snap}` for the tree, and
//! `testdata/dockerfiles-invalid/<case>/{Dockerfile,error.snap}` for what is said of wrong ones.
//! After a change on purpose: `cargo insta review`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

mod common;

use std::path::Path;

use common::{errors, folders, read, render, root, without_spans};
use rbuild_parser::parse;

fn settings(folder: &Path) -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_input_file(folder.join("Dockerfile"));
    settings
}

#[test]
fn valid() {
    for folder in folders(&root().join("testdata/dockerfiles")) {
        let text = read(folder.join("Dockerfile"));
        let (file, problems) = parse(&text);
        let rendered = render(&text, &problems);
        assert!(errors(&problems).is_empty(), "{}: {rendered}", folder.display());
        let tree = serde_json::to_string_pretty(&file).unwrap();
        // Cases with a plan alone are the plan's.
        if folder.join("ast.snap").is_file() || !folder.join("plan.snap").is_file() {
            settings(&folder).bind(|| insta::assert_snapshot!("ast", format!("{rendered}{tree}")));
        }

        let (again, _) = parse(&file.to_string());
        assert_eq!(without_spans(&again), without_spans(&file), "{}", folder.display());
    }
}

#[test]
fn invalid() {
    for folder in folders(&root().join("testdata/dockerfiles-invalid")) {
        let text = read(folder.join("Dockerfile"));
        let (_, problems) = parse(&text);
        assert!(!errors(&problems).is_empty(), "{} is accepted", folder.display());
        let rendered = render(&text, &problems);
        settings(&folder).bind(|| insta::assert_snapshot!("error", rendered));
    }
}
