//! The public corpora at the level of values, row by row: BuildKit's and moby's tests of git
//! references, ports and working directories.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

mod support;

use rbuild_plan::git_ref::{CheckoutTime, GitRef};
use rbuild_testkit::corpora::{Table, same, strings};
use serde_json::Value;
use support::{options, plan_with, small};

const GIT: &str = "buildkit/tables/dfgitutil-git_ref.tables.jsonl";
const EXPOSE: &str = "buildkit/tables/dockerfile2llb-convert_expose.tables.jsonl";
const MOBY: &str = "moby/builder.tables.jsonl";

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}

/// A reference that is one.
fn git(text: &str) -> Result<GitRef, String> {
    GitRef::parse(text)?.ok_or_else(|| "is no git reference".to_owned())
}

#[test]
fn git_references() {
    let Some(table) = Table::open(GIT, "TestParseGitRef", "cases") else { return };
    table.check(|row| {
        let found = GitRef::parse(text(row, "ref"));
        if let Some(error) = row["err"].as_str() {
            let said = found.err().ok_or("is accepted")?;
            return if said.contains(error) { Ok(()) } else { Err(said) };
        }
        let Some(expected) = row["expected"].as_object() else { return same(&found?, &None) };
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
        same(&found?, &Some(wanted))
    });
}

/// The form `remote#ref:directory`, with the directory or without.
#[test]
fn git_references_as_fragments() {
    for (func, with_directory) in
        [("TestFragmentFormat", false), ("TestFragmentFormatWithSubdir", true)]
    {
        let Some(table) = Table::open(GIT, func, "cases") else { return };
        table.check(|row| {
            let found = git(text(row, "ref"));
            if row["ok"] != true {
                return same(&found.is_err(), &true);
            }
            let found = found?;
            // BuildKit keeps a slash of the query until it writes it.
            let directory = match with_directory && !found.subdir.is_empty() {
                true => format!(":{}", found.subdir.trim_start_matches('/')),
                false => String::new(),
            };
            let fragment = format!("{}{directory}", found.reference);
            let fragment = if fragment.is_empty() { fragment } else { format!("#{fragment}") };
            same(&format!("{}{fragment}", found.remote).as_str(), &text(row, "expected"))
        });
    }
}

#[test]
fn mobys_git_references() {
    let Some(table) = Table::open(MOBY, "TestParseRemoteURL", "tests") else { return };
    table.check(|row| {
        let (found, expected) = (git(text(row, "url"))?, &row["expected"]);
        // The classic builder put the name of the default branch in, and cleaned no directory.
        let reference = text(expected, "ref");
        let reference = if reference == "master" { "" } else { reference };
        let directory = text(expected, "subdir").trim_end_matches('/');
        same(
            &(found.remote.as_str(), found.reference.as_str(), found.subdir.as_str()),
            &(text(expected, "remote"), reference, directory),
        )
    });
    for (func, name) in [
        ("TestValidGitTransport", "gitUrls"),
        ("TestValidGitTransport", "incompleteGitUrls"),
        ("", "gitUrls"),
        ("", "incompleteGitUrls"),
    ] {
        let Some(table) = Table::open(MOBY, func, name) else { return };
        table.check(|row| {
            let found = git(row.as_str().unwrap())?;
            same(&found.may_be_local, &name.starts_with("incomplete"))
        });
    }
    let Some(table) = Table::open(MOBY, "", "invalidGitUrls") else { return };
    table.check(|row| same(&GitRef::parse(row.as_str().unwrap())?, &None));
    let Some(table) = Table::open(MOBY, "TestGitInvalidRef", "gitUrls") else { return };
    table.check(|row| {
        let said = GitRef::parse(row.as_str().unwrap()).err().ok_or("is accepted")?;
        if said.contains("invalid git ref") { Ok(()) } else { Err(said) }
    });
}

/// The ports that an image with this `EXPOSE` has, blanks in it or not.
fn exposed(spec: &str) -> Result<Vec<String>, String> {
    let text = format!("FROM scratch\nARG spec=\"{spec}\"\nEXPOSE \"$spec\"\n");
    let plan =
        plan_with(&text, &options(), &small()).map_err(|errors| errors[0].message.clone())?;
    Ok(plan.targets[0].config.config.exposed_ports.keys().cloned().collect())
}

#[test]
fn ports() {
    let Some(table) = Table::open(EXPOSE, "TestParsePortEmptyContainerPort", "tests") else {
        return;
    };
    table.check(|row| {
        let said = exposed(text(row, "spec")).err().ok_or("is accepted")?;
        same(&said.as_str(), &text(row, "expError"))
    });
    let Some(table) = Table::open(EXPOSE, "TestPartPortIPV6", "cases") else { return };
    table.check(|row| same(&exposed(text(row, "spec"))?, &strings(&row["expected"])));
}

#[test]
fn mobys_ports() {
    let Some(table) = Table::open(MOBY, "TestParsePortSpecEmptyContainerPort", "tests") else {
        return;
    };
    table.check(|row| {
        let said = exposed(text(row, "spec")).err().ok_or("is accepted")?;
        // BuildKit puts the text in front of these words, the classic builder behind them.
        let words = text(row, "expError").split(": ").next().unwrap_or_default();
        if said.ends_with(words) { Ok(()) } else { Err(said) }
    });
    // The port of a row stands in a call that its key is made by.
    let port = |row: &Value| -> Option<String> {
        let call = row.as_object()?.keys().next()?;
        let call: Value = serde_json::from_str(call).ok()?;
        Some(call["args"][0].as_str()?.to_owned())
    };
    let Some(table) = Table::open(MOBY, "TestPartPortSpecIPV6", "cases") else { return };
    table.check(|row| {
        let expected = row["expected"].as_array().unwrap().iter().filter_map(port);
        same(&exposed(text(row, "spec"))?, &expected.collect())
    });
    // The text of that test, which is not in the table.
    let mut found = exposed("0.0.0.0:1234-1235:3333-3334/tcp").unwrap().into_iter();
    let Some(table) = Table::open(MOBY, "TestParsePortSpecFull", "expected") else { return };
    table.check(|row| same(&found.next(), &port(row)));
}

/// A port and its protocol are told apart in any text; what `EXPOSE` makes of the parts is a port
/// or an error that names them.
#[test]
fn ports_and_their_protocols() {
    let Some(table) = Table::open(MOBY, "TestSplitProtoPort", "tests") else { return };
    table.check(|row| {
        let (input, port, protocol) =
            (text(row, "input"), text(row, "expPort"), text(row, "expProto").to_lowercase());
        let numbers: Vec<_> = port.split('-').map(str::parse::<u16>).collect();
        match (exposed(input), numbers.as_slice()) {
            (Err(said), _) if port.is_empty() => same(&said.contains("no port specified"), &true),
            (Ok(found), [Ok(port)]) => same(&found, &vec![format!("{port}/{protocol}")]),
            (Ok(found), [Ok(first), Ok(last)]) => {
                let mut expected: Vec<_> =
                    (*first..=*last).map(|port| format!("{port}/{protocol}")).collect();
                expected.sort();
                same(&found, &expected)
            }
            (Err(said), _) if protocol == "tcp" => {
                same(&said.ends_with(&format!("invalid containerPort: {port}")), &true)
            }
            (Err(said), _) => same(&said.ends_with(&format!("invalid proto: {protocol}")), &true),
            (Ok(found), _) => Err(format!("{found:?}")),
        }
    });
}

#[test]
fn working_directories() {
    for (name, first) in [("testCases", 0), ("tests", 1)] {
        let Some(table) = Table::open(MOBY, "TestNormalizeWorkdir", name) else { return };
        table.check(|row| {
            let part = |index: usize| row[first + index].as_str().unwrap();
            let before = match part(0) {
                "" => String::new(),
                current => format!("WORKDIR {current}\n"),
            };
            let text = format!("FROM scratch\n{before}WORKDIR \"{}\"\n", part(1));
            let plan = plan_with(&text, &options(), &small())
                .map_err(|errors| errors[0].message.clone())?;
            same(&plan.targets[0].config.config.working_dir.as_str(), &part(2))?;
            same(&part(3), &"")
        });
    }
}
