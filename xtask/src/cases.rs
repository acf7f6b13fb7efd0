//! `cargo xtask cases`: the shared Dockerfile cases with this program, counted by group and held
//! against the floor in `testdata/cases-floor.txt`, below which the count must not fall again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::args::Args;
use crate::command::Cmd;
use crate::failure::{Outcome, fail};
use crate::packages::{self, BASES, TESTS};
use crate::paths;
use crate::rbuild::Rbuild;

/// Cases that hold on one day only: `useradd` writes the date, and what is expected has that of
/// the day on which it was made.
const OF_A_DAY: [&str; 3] =
    ["public/ka-1097", "public/ka-Dockerfile_test_user_home", "public/ka-Dockerfile_test_user_run"];

/// `cargo xtask cases [own|public|all] [CASE…]`.
pub(crate) fn run(args: &mut Args) -> Outcome {
    let mut words = args.words()?;
    let sets = ["own", "public", "all"];
    let named = words.first().is_some_and(|w| sets.contains(&w.as_str()));
    let set = if named { words.remove(0) } else { "all".to_owned() };
    if paths::shared().is_none() {
        println!("skipped: the shared cases are not at hand");
        return Ok(());
    }
    packages::install_or_say(&[BASES, TESTS].concat());
    check(&Rbuild::release(paths::fresh("cases/store")?)?, &set, &words)
}

/// Runs the cases and compares; only a run of everything can fall below the floor.
pub(crate) fn check(rbuild: &Rbuild, set: &str, names: &[String]) -> Outcome {
    let Some(shared) = paths::shared() else { return fail("the shared cases are not at hand") };
    // A few cases name it without a registry, and the one that the program starts lacks it.
    rbuild.build_busybox()?;
    let mut results = BTreeMap::new();
    for set in if set == "all" { vec!["own", "public"] } else { vec![set] } {
        for (case, passed) in run_set(rbuild, &shared, set, names)? {
            results.insert(format!("{set}/{case}"), passed);
        }
    }
    if names.is_empty() {
        results.retain(|case, _| !OF_A_DAY.contains(&case.as_str()));
        println!("not counted, for what they make has the date in it: {}", OF_A_DAY.join(", "));
    }
    let failing: Vec<&str> =
        results.iter().filter(|(_, passed)| !**passed).map(|(case, _)| case.as_str()).collect();
    let list = paths::scratch("cases")?.join("failing.txt");
    let mut text = failing.join("\n");
    text.push('\n');
    fs_err::write(&list, text)?;
    print!("{}", table(&results));
    let passed = results.len() - failing.len();
    println!("failing cases: {}", list.display());
    println!("{passed} passed, {} failed", failing.len());
    if results.is_empty() {
        return fail("no case ran");
    }
    if !names.is_empty() {
        return if failing.is_empty() { Ok(()) } else { fail("cases failed") };
    }
    let floor = floor(&fs_err::read_to_string(floor_file())?, set);
    match floor {
        Some(floor) if passed < floor => {
            fail(format!("{passed} cases pass, and {floor} passed before"))
        }
        Some(floor) if passed > floor => {
            println!("{floor} passed before: raise the floor in {}", floor_file().display());
            Ok(())
        }
        _ => Ok(()),
    }
}

fn run_set(
    rbuild: &Rbuild,
    shared: &Path,
    set: &str,
    names: &[String],
) -> Outcome<Vec<(String, bool)>> {
    let template = format!(
        "{} build -o type=oci,dest={{OUT}} -f {{DOCKERFILE}} {{ARGS}} {{CONTEXT}}",
        rbuild.program.display()
    );
    let folder = shared.join("cases").join(set);
    let named: Vec<_> = names.iter().filter(|n| folder.join(n).is_dir()).collect();
    if named.is_empty() && !names.is_empty() {
        return Ok(Vec::new());
    }
    let cmd = Cmd::new(shared.join("cases/run"))
        .arg(set)
        .args(named)
        .env("RBUILD_CMD", template)
        .env("RBUILD_ROOT", &rbuild.store);
    println!("==> the {set} cases");
    let mut child =
        cmd.command().stdout(Stdio::piped()).spawn().map_err(|e| cmd.not_started(&e))?;
    let mut log = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        std::io::Read::read_to_string(&mut stdout, &mut log)?;
    }
    child.wait()?;
    let file = paths::scratch("cases")?.join(format!("{set}.log"));
    fs_err::write(&file, &log)?;
    Ok(parse(&log))
}

/// Reads `ok   NAME` and `FAIL NAME` lines.
fn parse(log: &str) -> Vec<(String, bool)> {
    log.lines()
        .filter_map(|line| match line.split_once(' ') {
            Some(("ok", case)) => Some((case.trim().to_owned(), true)),
            Some(("FAIL", case)) => Some((case.trim().to_owned(), false)),
            _ => None,
        })
        .collect()
}

/// Own cases are numbered by subject, public ones named after their project.
fn group(case: &str) -> String {
    let (set, name) = case.split_once('/').unwrap_or(("", case));
    match name.chars().next() {
        Some(digit) if digit.is_ascii_digit() => format!("{set} {digit}xx"),
        _ => format!("{set} {}", name.split(['-', '_']).next().unwrap_or(name)),
    }
}

fn table(results: &BTreeMap<String, bool>) -> String {
    let mut groups: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (case, passed) in results {
        let counts = groups.entry(group(case)).or_default();
        counts.0 += usize::from(*passed);
        counts.1 += 1;
    }
    let mut text = String::new();
    for (group, (passed, all)) in groups {
        let _ = writeln!(text, "  {group:<24} {passed:>4} of {all:>4}");
    }
    text
}

fn floor_file() -> std::path::PathBuf {
    paths::workspace().join("testdata/cases-floor.txt")
}

/// Reads `SET COUNT` lines; `#` starts a comment.
fn floor(text: &str, set: &str) -> Option<usize> {
    let count = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().parse::<usize>().ok()
    };
    match set {
        "all" => Some(count("own ")? + count("public ")?),
        set => count(&format!("{set} ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_and_grouped() {
        let log = "ok   001-smoke\nFAIL 104-env\n     fs:/x: other\nok   110-label\n1 passed";
        let results: BTreeMap<_, _> =
            parse(log).into_iter().map(|(c, p)| (format!("own/{c}"), p)).collect();
        assert_eq!(results.len(), 3);
        let table = table(&results);
        assert!(table.contains("own 0xx") && table.contains("   1 of    2"), "{table}");
        assert_eq!(group("public/buildah-add"), "public buildah");
    }

    #[test]
    fn the_floor_of_all_is_the_sum() {
        let text = "# how many pass\nown 12\npublic 30\n";
        assert_eq!(floor(text, "own"), Some(12));
        assert_eq!(floor(text, "all"), Some(42));
        assert_eq!(floor("", "own"), None);
    }
}
