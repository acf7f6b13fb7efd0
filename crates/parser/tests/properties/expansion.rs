//! Variables in texts.

use proptest::prelude::*;
use rbuild_parser::expand::{self, Environment, MAX_EXPANDED};
use rbuild_testkit::property::holds;

use crate::Few;

#[test]
fn any_text_expands_without_panic() {
    let texts = "[a$\\{}'\"`:?+#%/*\\\\<> -]{0,60}|\\PC{0,40}";
    holds("expansion, any text", &texts, |text| {
        for escape in ['\\', '`'] {
            for result in [
                expand::expand_word(&text, escape, &Few).map(|found| found.text.len()),
                expand::expand_words(&text, escape, &Few).map(|found| found.0.concat().len()),
                expand::expand_heredoc(&text, &Few).map(|found| found.text.len()),
            ] {
                match result {
                    Err(error) => assert!(error.at <= text.len()),
                    Ok(length) => assert!(length <= MAX_EXPANDED.max(text.len())),
                }
            }
        }
    });
}

#[test]
fn what_has_nothing_to_expand_stays() {
    holds("expansion, plain text", &"[a-z0-9 ./:=_-]{0,60}", |text| {
        assert_eq!(expand::expand_word(&text, '\\', &Few).unwrap().text, text);
    });
}

/// A text whose value is known without reading it.
#[derive(Debug, Clone)]
enum Part {
    Plain(String),
    Quoted(String),
    Variable(&'static str),
    /// `${name` modifier parts `}`, the modifier one of `- :- + :+`.
    Choice(&'static str, &'static str, Vec<Part>),
    /// Cuts off or replaces a text without wildcards.
    Cut(&'static str, &'static str, String),
    Replace(&'static str, String, String),
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let name = || prop::sample::select(vec!["a", "empty", "unset"]);
    let leaf = prop_oneof![
        "[a-z/.]{1,4}".prop_map(Part::Plain),
        "[a-z $}]{0,4}".prop_map(Part::Quoted),
        name().prop_map(Part::Variable),
        (name(), prop::sample::select(vec!["#", "##", "%", "%%"]), "[a-z.]{0,3}")
            .prop_map(|(name, operator, text)| Part::Cut(name, operator, text)),
        (name(), "[a-z.]{1,2}", "[a-z]{0,2}")
            .prop_map(|(name, from, to)| Part::Replace(name, from, to)),
    ];
    let part = leaf.prop_recursive(4, 24, 4, move |part| {
        let operators = prop::sample::select(vec!["-", ":-", "+", ":+"]);
        (name(), operators, prop::collection::vec(part, 0..4))
            .prop_map(|(name, operator, parts)| Part::Choice(name, operator, parts))
    });
    prop::collection::vec(part, 0..6)
}

fn written(parts: &[Part]) -> String {
    let part = |part: &Part| match part {
        Part::Plain(text) => text.clone(),
        Part::Quoted(text) => format!("'{text}'"),
        Part::Variable(name) => format!("${{{name}}}"),
        Part::Choice(name, operator, parts) => format!("${{{name}{operator}{}}}", written(parts)),
        Part::Cut(name, operator, text) => format!("${{{name}{operator}{text}}}"),
        Part::Replace(name, from, to) => format!("${{{name}//{from}/{to}}}"),
    };
    parts.iter().map(part).collect()
}

fn value(parts: &[Part]) -> String {
    let of = |name: &str| Few.get(name).unwrap_or_default().to_owned();
    let part = |part: &Part| match part {
        Part::Plain(text) | Part::Quoted(text) => text.clone(),
        Part::Variable(name) => of(name),
        Part::Choice(name, operator, parts) => {
            let is_there = match operator.starts_with(':') {
                true => !of(name).is_empty(),
                false => Few.get(name).is_some(),
            };
            match (operator.ends_with('-'), is_there) {
                (true, true) => of(name),
                (true, false) | (false, true) => value(parts),
                (false, false) => String::new(),
            }
        }
        Part::Cut(name, operator, text) => {
            let all = of(name);
            let cut = match operator.starts_with('#') {
                true => all.strip_prefix(text.as_str()),
                false => all.strip_suffix(text.as_str()),
            };
            cut.unwrap_or(&all).to_owned()
        }
        Part::Replace(name, from, to) => of(name).replace(from, to),
    };
    parts.iter().map(part).collect()
}

#[test]
fn a_known_value_is_found() {
    holds("expansion, known value", &parts(), |parts| {
        let text = written(&parts);
        let found = expand::expand_word(&text, '\\', &Few);
        assert_eq!(found.map(|found| found.text), Ok(value(&parts)), "{text}");
    });
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

/// The work of an expansion is bounded by its text: every variable that is written is looked up a
/// fixed number of times, however deep it stands.
#[test]
fn no_variable_is_looked_up_over_and_over() {
    struct Counting(std::cell::Cell<usize>);
    impl Environment for Counting {
        fn get(&self, _: &str) -> Option<&str> {
            self.0.set(self.0.get() + 1);
            None
        }
    }
    for depth in [1, 10, 100] {
        for (open, close) in [("${a:-", "}"), ("${a-$b", "}"), ("${a:+", "}"), ("\"${a:-", "}\"")] {
            let text = format!("{}{}", open.repeat(depth), close.repeat(depth));
            let environment = Counting(std::cell::Cell::new(0));
            let _ = expand::expand_word(&text, '\\', &environment);
            let looked_up = environment.0.get();
            assert!(looked_up <= 4 * depth, "{looked_up} times in {depth} of {open}");
        }
    }
}
