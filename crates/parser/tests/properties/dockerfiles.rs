//! Whole Dockerfiles.

use proptest::prelude::*;
use rbuild_parser::{dump, lint, parse, parse_trigger, suggest};
use rbuild_testkit::property::holds;

use crate::common::{self, errors, without_spans};

/// Pieces that Dockerfiles are made of; joined at random they reach far more of the grammar than
/// random characters do.
const PIECES: [&str; 64] = [
    "\n",
    "\n",
    "\n",
    " ",
    " ",
    "\t",
    "\\\n",
    "\\",
    "`",
    "\r\n",
    "\n\n",
    "#",
    "# syntax=x\n",
    "# escape=`\n",
    "# check=skip=all\n",
    "FROM ",
    "FROM a AS b\n",
    "from scratch\n",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "LABEL ",
    "ARG ",
    "CMD ",
    "ENTRYPOINT ",
    "SHELL ",
    "EXPOSE ",
    "HEALTHCHECK ",
    "NONE",
    "ONBUILD ",
    "VOLUME ",
    "USER ",
    "WORKDIR ",
    "STOPSIGNAL ",
    "MAINTAINER ",
    "--mount=type=cache,target=/x ",
    "--from=b ",
    "--chown=a:b ",
    "--link ",
    "--interval=5s ",
    "-- ",
    "<<EOF",
    "<<-\"E\"",
    "EOF\n",
    "E\n",
    "\tE\n",
    "[\"a\", \"b\"]",
    "[",
    "]",
    "\"",
    "'",
    "=",
    "a=b",
    "$a",
    "${a",
    "${a:-b}",
    "}",
    "x",
    "/y",
    "é",
    "\u{feff}",
    "\u{a0}",
    "\u{c}",
];

/// Pieces at random; mostly few, sometimes many.
fn joined() -> impl Strategy<Value = String> {
    let pieces = |most| prop::collection::vec(prop::sample::select(&PIECES[..]), 0..most);
    prop_oneof![9 => pieces(60), 1 => pieces(600)].prop_map(|all| all.concat())
}

/// A text near to a good Dockerfile: some bytes of one replaced.
fn mutated() -> impl Strategy<Value = String> {
    let seeds: Vec<String> = ["testdata/dockerfiles", "testdata/dockerfiles-invalid"]
        .into_iter()
        .flat_map(|folder| common::folders(&common::root().join(folder)))
        .map(|folder| common::read(folder.join("Dockerfile")))
        .collect();
    let edit = (any::<prop::sample::Index>(), prop::sample::select(&PIECES[..]), 0..4_usize);
    let edits = prop::collection::vec(edit, 0..6);
    (prop::sample::select(seeds), edits).prop_map(|(seed, edits)| {
        let mut characters: Vec<char> = seed.chars().collect();
        for (place, piece, removed) in edits {
            let at = place.index(characters.len().max(1)).min(characters.len());
            let end = (at + removed).min(characters.len());
            characters.splice(at..end, piece.chars());
        }
        characters.into_iter().collect()
    })
}

/// What holds of every text.
fn check(text: &str) {
    let (file, mut problems) = parse(text);
    problems.extend(lint::check_file(&file));
    problems.extend(file.stages.iter().flat_map(lint::check_stage));
    match lint::Filter::new(&file, None) {
        Ok((filter, warnings)) => {
            let _ = problems.iter().filter(|problem| filter.allows(problem)).count();
            problems.extend(warnings);
        }
        Err(error) => assert!(error.span().unwrap().end <= text.len()),
    }
    for problem in &problems {
        for label in &problem.labels {
            assert!(label.span.start <= label.span.end && label.span.end <= text.len());
            assert!(text.is_char_boundary(label.span.start), "{problem:?}");
            assert!(text.is_char_boundary(label.span.end), "{problem:?}");
        }
    }
    let _ = dump(text);
    let _ = parse_trigger(text);
    if errors(&problems).is_empty() {
        let printed = file.to_string();
        let (again, problems) = parse(&printed);
        assert!(errors(&problems).is_empty(), "{printed:?}: {problems:?}");
        assert_eq!(without_spans(&again), without_spans(&file), "{printed:?}");
        assert_eq!(again.to_string(), printed);
    }
}

#[test]
fn any_text_parses_without_panic() {
    holds("dockerfile, any text", &any::<String>(), |text| check(&text));
}

#[test]
fn joined_pieces_parse_and_print() {
    holds("dockerfile, pieces", &joined(), |text| {
        check(&text);
        check(&format!("FROM a\n{text}"));
    });
}

#[test]
fn mutated_dockerfiles_parse_and_print() {
    holds("dockerfile, changed", &mutated(), |text| check(&text));
}

#[test]
fn any_settings_of_checks_are_read_or_refused() {
    let settings = "([a-z;=, ]|skip|error|experimental|all|true|UndefinedVar|é){0,12}";
    holds("settings of checks", &settings, |text| {
        if let Ok(settings) = lint::Settings::parse(&text) {
            settings.allow("UndefinedVar");
        }
        check(&format!("# check={text}\nFROM a\n# check={text}\nENV a b\n"));
    });
}

/// The distance by its definition.
fn edits(left: &[char], right: &[char]) -> usize {
    match (left, right) {
        ([], rest) | (rest, []) => rest.len(),
        ([one, left @ ..], [other, right @ ..]) if one == other => edits(left, right),
        ([_, left_rest @ ..], [_, right_rest @ ..]) => {
            let taken = edits(left_rest, right).min(edits(left, right_rest));
            1 + taken.min(edits(left_rest, right_rest))
        }
    }
}

#[test]
fn suggestions_are_near() {
    holds("suggestions", &("[a-cé]{0,6}", "[a-cé]{0,6}"), |(word, known)| {
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        let is_near = (1..=2).contains(&edits(&letters(&word), &letters(&known)));
        let expected = is_near.then_some(known.as_str());
        assert_eq!(suggest(&word, [known.as_str()]), expected);
    });
}
