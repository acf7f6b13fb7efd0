//! What holds for any text: nothing panics, time grows with length, printing loses nothing.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

mod common;

use std::time::{Duration, Instant};

use common::{errors, without_spans};
use proptest::prelude::*;
use rbuild_parser::expand::{self, Environment};
use rbuild_parser::ignore_file::{MatchedAbove, Patterns, glob_match};
use rbuild_parser::{dump, lint, parse, parse_trigger, suggest};

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

fn dockerfile() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&PIECES[..]), 0..60).prop_map(|all| all.concat())
}

/// A text near to a good Dockerfile: some bytes of one replaced.
fn mutated() -> impl Strategy<Value = String> {
    let seeds = common::folders(&common::root().join("testdata/dockerfiles"));
    let seeds: Vec<String> =
        seeds.iter().map(|folder| common::read(folder.join("Dockerfile"))).collect();
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
    }
}

struct Few;

impl Environment for Few {
    fn get(&self, name: &str) -> Option<&str> {
        match name {
            "a" => Some("one/two\nthree.tar.gz"),
            "empty" => Some(""),
            _ => None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_parses_without_panic(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn joined_pieces_parse_and_print(text in dockerfile()) {
        check(&text);
        check(&format!("FROM a\n{text}"));
    }

    #[test]
    fn mutated_dockerfiles_parse_and_print(text in mutated()) {
        check(&text);
    }

    #[test]
    fn any_settings_of_checks_are_read_or_refused(
        text in "([a-z;=, ]|skip|error|experimental|all|true|UndefinedVar|é){0,12}"
    ) {
        if let Ok(settings) = lint::Settings::parse(&text) {
            settings.allow("UndefinedVar");
        }
        check(&format!("# check={text}\nFROM a\n# check={text}\nENV a b\n"));
    }

    #[test]
    fn any_text_expands_without_panic(text in "[a$\\{}'\"`:?+#%/*\\\\<> -]{0,60}|\\PC{0,40}") {
        for escape in ['\\', '`'] {
            for result in [
                expand::expand_word(&text, escape, &Few).map(|_| ()),
                expand::expand_words(&text, escape, &Few).map(|_| ()),
                expand::expand_heredoc(&text, &Few).map(|_| ()),
            ] {
                if let Err(error) = result {
                    prop_assert!(error.at <= text.len());
                }
            }
        }
    }

    #[test]
    fn what_has_nothing_to_expand_stays(text in "[a-z0-9 ./:=_-]{0,60}") {
        let expanded = expand::expand_word(&text, '\\', &Few).unwrap();
        prop_assert_eq!(expanded.text, text);
    }

    #[test]
    fn ignore_files_match_both_ways_alike(
        rules in "([!a-c*?/\\[\\]\\\\^. -]{1,8}\n){0,6}",
        path in "[a-c.]{1,3}(/[a-c.]{1,3}){0,4}",
    ) {
        let (patterns, _) = Patterns::parse(&rules);
        let mut above = MatchedAbove::default();
        let mut walked = None;
        for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            let (verdict, matched) = patterns.matches_below(&path[..end], &above);
            (walked, above) = (Some(verdict), matched);
        }
        prop_assert_eq!(walked, Some(patterns.matches(&path)));
    }

    #[test]
    fn any_pattern_is_matched_without_panic(pattern in any::<String>(), name in any::<String>()) {
        let _ = glob_match(&pattern, &name);
        let (patterns, _) = Patterns::parse(&pattern);
        patterns.matches(&name);
    }

    #[test]
    fn a_name_matches_itself_escaped(name in "[a-z*?\\[\\]\\\\/^-]{0,12}") {
        let escaped: String = name.chars().flat_map(|next| ['\\', next]).collect();
        prop_assert_eq!(glob_match(&escaped, &name), Ok(true));
    }

    #[test]
    fn suggestions_are_near(word in "[a-e]{0,6}", known in "[a-e]{0,6}") {
        if let Some(found) = suggest(&word, [known.as_str()]) {
            prop_assert!(found == known && found != word);
            prop_assert!(known.len().abs_diff(word.len()) <= 2);
        }
    }
}

/// Far above what any of these takes (milliseconds), far below what a quadratic one would.
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn time_grows_with_length_only() {
    let texts = [
        format!("FROM a\n{}", "RUN echo hello && \\\n  echo world\n".repeat(5_000)),
        format!("FROM a\n{}", "COPY <<EOF /x\nbody $a\nEOF\n".repeat(3_400)),
        format!("FROM a\nRUN {}", "x \\\n".repeat(100_000)),
        format!("FROM a\nENV {}", "a=\"b c\" ".repeat(50_000)),
        format!("FROM a\nRUN {}", "<<A ".repeat(20_000)),
        format!("FROM a\nCMD [{}\"x\"]", "\"x\", ".repeat(50_000)),
        format!("FROM a\nCMD {}", "[".repeat(100_000)),
        format!("FROM a\nRUN --mount={} x", "a,".repeat(50_000)),
        format!("FROM a\n{}", "ONBUILD ".repeat(50_000)),
        format!("FROM a\n{}", "# comment\n".repeat(100_000)),
        format!("FROM a\n{}", "FO\n".repeat(20_000)),
        format!("FROM a\nARG {}", "\"".repeat(100_001)),
        format!("FROM a\nCOPY --chown={} x y", "'a'\\ ".repeat(50_000)),
        "\\\n".repeat(100_000),
        format!(
            "FROM a\nCOPY {} /\n{}{}",
            "<<A ".repeat(20_000),
            "A\n".repeat(19_999),
            "x".repeat(1 << 20) + "\nA\n"
        ),
    ];
    for text in &texts {
        let start = Instant::now();
        let _ = parse(text);
        let _ = dump(text);
        let took = start.elapsed();
        assert!(took < LIMIT, "{took:?} for {:?}…", text.get(..40));
    }
    let texts = [
        "${a:-".repeat(50_000),
        "$b".repeat(100_000),
        (0..50_000).map(|index| format!("$b{index}")).collect(),
        format!("${{a//{}/x}}", "*e".repeat(20_000)),
        format!("${{a%%{}}}", "*".repeat(50_000)),
        "\"${a}".repeat(50_000),
    ];
    for text in &texts {
        let start = Instant::now();
        let _ = expand::expand_word(text, '\\', &Few);
        let took = start.elapsed();
        assert!(took < LIMIT, "{took:?} for {:?}…", text.get(..40));
    }
    let pattern = "*a".repeat(2_000);
    let start = Instant::now();
    assert_eq!(glob_match(&pattern, &"a".repeat(1_000)), Ok(false));
    assert!(!Patterns::from_list(&[&pattern]).unwrap().matches(&"a".repeat(1_000)).excluded);
    assert!(start.elapsed() < LIMIT);
}

#[test]
fn expansion_is_bounded() {
    struct Big(String);
    impl Environment for Big {
        fn get(&self, _: &str) -> Option<&str> {
            Some(&self.0)
        }
    }
    let big = Big("x".repeat(1 << 20));
    let error = expand::expand_word(&"$a".repeat(100), '\\', &big).unwrap_err();
    assert!(error.message.contains("longer than"), "{error:?}");
    let error = expand::expand_word("${a//x/$a}", '\\', &big).unwrap_err();
    assert!(error.message.contains("longer than"), "{error:?}");
    let error = expand::expand_word(&"${a:-".repeat(1000), '\\', &Few).unwrap_err();
    assert!(error.message.contains("nested") || error.message.contains("missing '}'"));
}
