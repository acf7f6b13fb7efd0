//! Templates as trees of text, values and blocks.

use super::Mistake;
use super::action::{DEEPEST, Pipeline, Token, tokens};

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Show(Pipeline),
    /// `$name := …`
    Declare(String, Pipeline),
    /// `$name = …`
    Assign(String, Pipeline),
    If(Block),
    With(Block),
    Range(Block),
    Break,
    Continue,
}

/// `{{if …}}…{{else}}…{{end}}` and its like.
#[derive(Debug)]
pub(super) struct Block {
    /// `$value := …` or `$index, $value := …`.
    pub variables: Vec<String>,
    pub pipeline: Pipeline,
    pub body: Vec<Node>,
    pub otherwise: Vec<Node>,
}

#[derive(Debug, PartialEq)]
enum Item {
    Text(String),
    Action(Vec<Token>),
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, Mistake> {
    let items = items(text)?;
    let mut reader = Reader { items: items.into_iter(), depth: 0, ranges: 0 };
    match reader.nodes()? {
        (nodes, Stop::End) => Ok(nodes),
        (_, Stop::BlockEnd) => Err(Mistake::new("an `end` without its block")),
        (_, Stop::Else(_)) => Err(Mistake::new("an `else` without its block")),
    }
}

/// Texts and actions in turn.
fn items(mut rest: &str) -> Result<Vec<Item>, Mistake> {
    let is_space = |text: &str| text.starts_with([' ', '\t', '\n', '\r']);
    let mut items = Vec::new();
    let mut trims = false;
    while let Some((before, mut inside)) = rest.split_once("{{") {
        let before = if trims { before.trim_start() } else { before };
        let trims_before = inside.starts_with('-') && is_space(&inside[1..]);
        let before = if trims_before { before.trim_end() } else { before };
        items.push(Item::Text(unescape(before)));
        if trims_before {
            inside = &inside[1..];
        }
        let behind = if let Some(comment) = inside.trim_start().strip_prefix("/*") {
            let open = || Mistake::new("a comment without its end");
            let behind = comment.split_once("*/").ok_or_else(open)?.1;
            let trimmed = behind.trim_start();
            let behind = if trimmed.len() < behind.len() && trimmed.starts_with("-}}") {
                trims = true;
                trimmed.strip_prefix("-}}")
            } else {
                trims = false;
                trimmed.strip_prefix("}}")
            };
            behind.ok_or_else(open)?
        } else {
            let (words, behind) = tokens(inside)?;
            let action = inside[..inside.len() - behind.len()].trim_end_matches("}}");
            trims = action.ends_with(" -") || action.ends_with("\t-") || action.ends_with("\n-");
            items.push(Item::Action(words));
            behind
        };
        rest = behind;
    }
    items.push(Item::Text(unescape(if trims { rest.trim_start() } else { rest })));
    Ok(items)
}

/// Shells leave `\t` and `\n` alone inside quotes; Docker reads them.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Why nodes came to an end.
enum Stop {
    End,
    BlockEnd,
    /// With the words behind it.
    Else(Vec<Token>),
}

struct Reader {
    items: std::vec::IntoIter<Item>,
    depth: usize,
    ranges: usize,
}

impl Reader {
    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), Mistake> {
        let mut nodes = Vec::new();
        while let Some(item) = self.items.next() {
            let words = match item {
                Item::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Item::Action(words) => words,
            };
            let keyword = match words.first() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            let node = match (keyword, words.as_slice()) {
                ("end", [_]) => return Ok((nodes, Stop::BlockEnd)),
                ("else", [_, rest @ ..]) => return Ok((nodes, Stop::Else(rest.to_vec()))),
                ("if", [_, rest @ ..]) => Node::If(self.block(rest)?),
                ("with", [_, rest @ ..]) => Node::With(self.block(rest)?),
                ("range", [_, rest @ ..]) => {
                    self.ranges += 1;
                    let block = self.block(rest)?;
                    self.ranges -= 1;
                    Node::Range(block)
                }
                ("break", [_]) if self.ranges > 0 => Node::Break,
                ("continue", [_]) if self.ranges > 0 => Node::Continue,
                ("define" | "block" | "template", _) => {
                    return Err(Mistake::new(format!("`{keyword}` is not supported")));
                }
                (_, [Token::Variable(name, fields), Token::Declare, rest @ ..])
                    if fields.is_empty() =>
                {
                    Node::Declare(name.clone(), Pipeline::parse(rest)?)
                }
                (_, [Token::Variable(name, fields), Token::Assign, rest @ ..])
                    if fields.is_empty() =>
                {
                    Node::Assign(name.clone(), Pipeline::parse(rest)?)
                }
                (_, words) => Node::Show(Pipeline::parse(words)?),
            };
            nodes.push(node);
        }
        Ok((nodes, Stop::End))
    }

    /// What is behind `if`, `with` or `range`, up to its `end`.
    fn block(&mut self, words: &[Token]) -> Result<Block, Mistake> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Mistake::new("too many blocks in each other"));
        }
        let (variables, words) = match words {
            [Token::Variable(value, none), Token::Declare, rest @ ..] if none.is_empty() => {
                (vec![value.clone()], rest)
            }
            [
                Token::Variable(index, none),
                Token::Comma,
                Token::Variable(value, nothing),
                Token::Declare,
                rest @ ..,
            ] if none.is_empty() && nothing.is_empty() => {
                (vec![index.clone(), value.clone()], rest)
            }
            words => (Vec::new(), words),
        };
        let pipeline = Pipeline::parse(words)?;
        let (body, stop) = self.nodes()?;
        let otherwise = self.otherwise(stop)?;
        self.depth -= 1;
        Ok(Block { variables, pipeline, body, otherwise })
    }

    fn otherwise(&mut self, stop: Stop) -> Result<Vec<Node>, Mistake> {
        let words = match stop {
            Stop::BlockEnd => return Ok(Vec::new()),
            Stop::End => return Err(Mistake::new("a block without its `end`")),
            Stop::Else(words) => words,
        };
        match words.as_slice() {
            [] => match self.nodes()? {
                (nodes, Stop::BlockEnd) => Ok(nodes),
                (_, Stop::End) => Err(Mistake::new("a block without its `end`")),
                (_, Stop::Else(_)) => Err(Mistake::new("a second `else`")),
            },
            // The `end` of the inner block is that of the outer one too.
            [Token::Word(word), rest @ ..] if word == "if" => Ok(vec![Node::If(self.block(rest)?)]),
            [Token::Word(word), rest @ ..] if word == "with" => {
                Ok(vec![Node::With(self.block(rest)?)])
            }
            _ => Err(Mistake::new("behind `else` there can be `if` or `with`")),
        }
    }
}
