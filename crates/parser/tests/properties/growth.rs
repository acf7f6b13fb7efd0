//! The work grows with the text, and not with its square, whatever is repeated.

use rbuild_parser::ignore_file::{MatchedAbove, Patterns, glob_match};
use rbuild_parser::{dump, expand, parse, suggest};
use rbuild_testkit::property::grows_with_its_input;

use crate::Few;

/// What is repeated, between what stands in front and behind, and how often in the smaller text.
type Repeated = (&'static str, &'static str, &'static str, usize);

fn text((before, repeated, after, _): Repeated, times: usize) -> String {
    format!("{before}{}{after}", repeated.repeat(times))
}

#[test]
fn dockerfiles() {
    let texts: [Repeated; 19] = [
        ("FROM a\n", "RUN echo hello && \\\n  echo world\n", "", 1_200),
        ("FROM a\n", "COPY <<EOF /x\nbody $a\nEOF\n", "", 800),
        ("FROM a\nRUN ", "x \\\n", "", 25_000),
        ("FROM a\nRUN ", "x", "", 1 << 18),
        ("FROM a\nENV ", "a=\"b c\" ", "", 12_000),
        ("FROM a\nARG ", "a=b ", "", 12_000),
        ("FROM a\nLABEL ", "a=b \\\n", "", 12_000),
        ("FROM a\nRUN ", "<<A ", "", 5_000),
        ("FROM a\nRUN <<A\n", "a line\n", "A\n", 25_000),
        ("FROM a\nCMD [", "\"x\", ", "\"x\"]", 12_000),
        ("FROM a\nCMD ", "[", "", 25_000),
        ("FROM a\nRUN --mount=", "a,", " x", 12_000),
        ("FROM a\nRUN ", "--mount=type=tmpfs,target=/x ", "x", 2_000),
        ("FROM a\n", "ONBUILD ", "", 12_000),
        ("FROM a\n", "# comment\n", "RUN x\n", 25_000),
        ("FROM a\n", "FO\n", "", 5_000),
        ("FROM a\nCOPY --chown=", "'a'\\ ", " x y", 12_000),
        ("", "\\\n", "", 25_000),
        ("", "FROM a\n", "", 2_500),
    ];
    for repeated in texts {
        let name = format!("{:?} again and again", repeated.1);
        grows_with_its_input(
            &name,
            repeated.3,
            |times| text(repeated, times),
            |text| {
                let (file, _) = parse(text);
                let _ = dump(text);
                let _ = file.to_string();
            },
        );
    }
}

#[test]
fn many_stages_with_names() {
    let make = |stages: usize| -> String {
        (0..stages).map(|stage| format!("FROM a AS s{stage}\nCOPY --from=s0 x y\n")).collect()
    };
    grows_with_its_input("stages with names", 2_000, make, |text| {
        let (file, _) = parse(text);
        let _ = rbuild_parser::lint::check_file(&file);
    });
}

#[test]
fn one_heredoc_for_each_of_many_words() {
    let make = |words: usize| {
        let names: Vec<String> = (0..words).map(|word| format!("E{word}")).collect();
        let line: String = names.iter().map(|name| format!(" <<{name}")).collect();
        let bodies: String = names.iter().map(|name| format!("x\n{name}\n")).collect();
        format!("FROM a\nCOPY{line} /\n{bodies}")
    };
    grows_with_its_input("heredocs of one line", 2_000, make, |text| {
        let (file, problems) = parse(text);
        assert!(problems.is_empty(), "{problems:?}");
        let _ = file.to_string();
    });
}

#[test]
fn words_with_variables() {
    let texts: [Repeated; 8] = [
        ("", "${a:-", "", 12_000),
        ("", "$b", "", 25_000),
        ("", "${a}", "", 1_000),
        ("", "\"${a}", "", 12_000),
        ("${a//", "*e", "/x}", 5_000),
        ("${a%%", "*", "}", 12_000),
        ("${a##", "?", "}", 12_000),
        ("", "'a' ", "", 25_000),
    ];
    for repeated in texts {
        let name = format!("{:?} again and again", repeated.1);
        grows_with_its_input(
            &name,
            repeated.3,
            |times| text(repeated, times),
            |text| {
                let _ = expand::expand_word(text, '\\', &Few);
                let _ = expand::expand_words(text, '\\', &Few);
                let _ = expand::expand_heredoc(text, &Few);
            },
        );
    }
    let make = |names: usize| -> String { (0..names).map(|name| format!("$b{name}")).collect() };
    grows_with_its_input("names that are not set", 12_000, make, |text| {
        let _ = expand::expand_word(text, '\\', &Few);
    });
}

#[test]
fn ignore_files() {
    for rule in ["a*b", "**/x", "!y", "a/**/b", "**/*.o", "[a-c]?"] {
        let make = |rules: usize| format!("{rule}\n").repeat(rules);
        grows_with_its_input(rule, 2_000, make, |text| {
            let (patterns, _) = Patterns::parse(text);
            let _ = patterns.matches("a/x/c.txt");
            let _ = patterns.matches_below("a/x/c.txt", &MatchedAbove::default());
        });
    }
}

#[test]
fn long_words_that_are_nearly_the_same() {
    let make = |length: usize| "x".repeat(length);
    grows_with_its_input("words to suggest", 1 << 16, make, |text| {
        let known = format!("{text}y");
        assert_eq!(suggest(text, [known.as_str()]), Some(known.as_str()));
    });
}

/// A pattern with many stars beside one path: every way through it at once.
#[test]
fn patterns_with_many_stars() {
    let path = "a/".repeat(200) + "b";
    for repeated in ["**/", "**/*", "*a", "**/*a", "[a-b]*"] {
        let make = |times: usize| format!("{}x", repeated.repeat(times));
        grows_with_its_input(repeated, 100, make, |pattern| {
            let patterns = Patterns::from_list(&[pattern]).unwrap();
            let _ = patterns.matches_below(&path, &MatchedAbove::default());
        });
    }
    let make = |times: usize| "*a".repeat(times);
    grows_with_its_input("wildcards of a name", 500, make, |pattern| {
        assert_eq!(glob_match(pattern, &"a".repeat(100)), Ok(false));
    });
}
