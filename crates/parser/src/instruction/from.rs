//! `FROM`.

use nom::bytes::complete::take_while;
use nom::character::complete::satisfy;
use nom::combinator::all_consuming;
use nom::{IResult, Parser};
use rbuild_types::Span;

use super::flags::{Flags, Takes};
use super::words::Word;
use super::{Fault, Node, doc_of, fault, go_quoted};
use crate::ast::{Spanned, Stage, Text};
use crate::lines::Line;

pub(super) fn parse(
    node: &Node<'_>,
    line: &Line,
    span: Span,
    text: String,
    keyword: Text,
) -> Result<Stage, Fault> {
    let (base, name) = match node.words() {
        [base] => (base, None),
        [base, word, name] if word.text.eq_ignore_ascii_case("as") => {
            (base, Some(stage_name(name, line)?))
        }
        _ => {
            return Err(fault("arguments", "FROM requires either one or three arguments")
                .help("write it as FROM image or FROM image AS name"));
        }
    };
    let flags = Flags::read(line, &node.flags, &[("platform", Takes::Value)])?;
    let doc = name.as_ref().and_then(|name| doc_of(&line.comments, &name.value));
    Ok(Stage {
        span,
        text,
        base: base.spanned(line),
        platform: flags.value("platform"),
        name,
        keyword,
        comments: line.comments.clone(),
        doc,
        instructions: Vec::new(),
    })
}

/// The name in lower case.
fn stage_name(word: &Word, line: &Line) -> Result<Text, Fault> {
    let name = word.text.to_lowercase();
    if is_stage_name(&name).is_err() {
        let message = format!(
            "invalid name for build stage: {}, name can't start with a number or contain symbols",
            go_quoted(&word.text)
        );
        return Err(fault("stage-name", message).at(word));
    }
    Ok(Spanned::new(name, line.span(word.at..word.end)))
}

fn is_stage_name(name: &str) -> IResult<&str, ()> {
    let first = satisfy(|first| first.is_ascii_lowercase());
    let more = take_while(|next: char| {
        next.is_ascii_lowercase() || next.is_ascii_digit() || matches!(next, '-' | '_' | '.')
    });
    all_consuming((first, more)).map(|_| ()).parse(name)
}
