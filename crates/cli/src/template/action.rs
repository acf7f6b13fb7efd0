//! What stands between `{{` and `}}`: words, and pipelines made of them.

use serde_json::{Number, Value};

use super::Mistake;

/// Deeper parentheses and blocks are refused.
pub(super) const DEEPEST: usize = 100;

/// A word of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `.`, `.Field`, `.Outer.Inner`.
    Field(Vec<String>),
    /// `$`, `$name`, `$name.Field`.
    Variable(String, Vec<String>),
    /// A keyword or a function.
    Word(String),
    Literal(Value),
    Pipe,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    Open,
    /// `)`, and the fields that are asked of what is inside.
    Close(Vec<String>),
}

/// Commands of which each gets the value of the one before as its last argument.
#[derive(Debug)]
pub(super) struct Pipeline(pub Vec<Command>);

/// An operand, or a function and its arguments.
#[derive(Debug)]
pub(super) enum Command {
    Operand(Operand),
    Call(String, Vec<Operand>),
}

/// One value.
#[derive(Debug)]
pub(super) enum Operand {
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Literal(Value),
    /// A function without arguments.
    Call(String),
    Group(Pipeline, Vec<String>),
}

/// Splits off the words of an action up to its `}}`. The answer has them, and what is behind.
pub(super) fn tokens(mut rest: &str) -> Result<(Vec<Token>, &str), Mistake> {
    let whole = rest;
    let mut tokens = Vec::new();
    loop {
        let trimmed = rest.trim_start();
        // A hyphen behind a blank also takes the blanks behind the action away.
        if let Some(behind) = trimmed.strip_prefix("-}}")
            && trimmed.len() < rest.len()
        {
            return Ok((tokens, behind));
        }
        rest = trimmed;
        let open = || Mistake::new(format!("no end of {:?}", cut(&format!("{{{{{whole}"))));
        let first = rest.chars().next().ok_or_else(open)?;
        let token;
        (token, rest) = if let Some(behind) = rest.strip_prefix("}}") {
            return Ok((tokens, behind));
        } else if let Some(behind) = rest.strip_prefix(":=") {
            (Token::Declare, behind)
        } else if let Some(token) = sign(first) {
            (token, &rest[1..])
        } else if first == ')' {
            let (fields, behind) = fields(&rest[1..])?;
            (Token::Close(fields), behind)
        } else if first == '.' {
            let (fields, behind) = fields(rest)?;
            match fields.is_empty() {
                true => (Token::Field(fields), &behind[1..]),
                false => (Token::Field(fields), behind),
            }
        } else if first == '$' {
            let (name, behind) = word(&rest[1..]);
            let (fields, behind) = fields(behind)?;
            (Token::Variable(name.to_owned(), fields), behind)
        } else if first == '"' {
            quoted(&rest[1..]).ok_or_else(open)?
        } else if first == '`' {
            let (text, behind) = rest[1..].split_once('`').ok_or_else(open)?;
            (Token::Literal(Value::from(text)), behind)
        } else if first.is_ascii_digit() || first == '-' {
            number(rest)?
        } else {
            match word(rest) {
                ("", _) => return Err(Mistake::new(format!("cannot read {:?}", cut(rest)))),
                ("true", behind) => (Token::Literal(Value::Bool(true)), behind),
                ("false", behind) => (Token::Literal(Value::Bool(false)), behind),
                ("nil", behind) => (Token::Literal(Value::Null), behind),
                (word, behind) => (Token::Word(word.to_owned()), behind),
            }
        };
        tokens.push(token);
    }
}

fn sign(letter: char) -> Option<Token> {
    match letter {
        '|' => Some(Token::Pipe),
        ',' => Some(Token::Comma),
        '=' => Some(Token::Assign),
        '(' => Some(Token::Open),
        _ => None,
    }
}

/// The beginning of a text, for messages.
fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Letters, digits and underscores.
fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()))
}

/// `.A.B` as its names; nothing for a dot on its own, which is left.
fn fields(mut rest: &str) -> Result<(Vec<String>, &str), Mistake> {
    let (whole, mut fields) = (rest, Vec::new());
    while let Some(behind) = rest.strip_prefix('.') {
        match word(behind) {
            ("", _) if fields.is_empty() && !behind.starts_with('.') => break,
            ("", _) => return Err(Mistake::new(format!("cannot read {:?}", cut(whole)))),
            (name, behind) => {
                fields.push(name.to_owned());
                rest = behind;
            }
        }
    }
    Ok((fields, rest))
}

/// A text in double quotes, whose first is gone.
fn quoted(rest: &str) -> Option<(Token, &str)> {
    let mut text = String::new();
    let mut letters = rest.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((Token::Literal(Value::from(text)), &rest[at + 1..])),
            '\\' => text.push(match letters.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            other => text.push(other),
        }
    }
    None
}

fn number(rest: &str) -> Result<(Token, &str), Mistake> {
    let length = rest[1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let (text, behind) = rest.split_at(length.map_or(rest.len(), |length| length + 1));
    let number = match text.parse::<i64>() {
        Ok(number) => Some(Number::from(number)),
        Err(_) => text.parse::<f64>().ok().and_then(Number::from_f64),
    };
    match number {
        Some(number) => Ok((Token::Literal(Value::Number(number)), behind)),
        None => Err(Mistake::new(format!("{:?} is no number", cut(text)))),
    }
}

impl Pipeline {
    /// All the words are one pipeline.
    pub fn parse(tokens: &[Token]) -> Result<Self, Mistake> {
        let mut rest = tokens;
        let pipeline = Self::read(&mut rest, DEEPEST)?;
        match rest {
            [] => Ok(pipeline),
            [Token::Close(_), ..] => Err(Mistake::new("a `)` without its `(`")),
            _ => Err(Mistake::new("an assignment is not understood here")),
        }
    }

    /// Reads up to the end or a sign that belongs to what is around.
    fn read(rest: &mut &[Token], depth: usize) -> Result<Self, Mistake> {
        let mut commands = vec![Command::read(rest, depth)?];
        while let [Token::Pipe, behind @ ..] = *rest {
            *rest = behind;
            commands.push(Command::read(rest, depth)?);
        }
        let is_call = |command: &Command| matches!(command, Command::Call(..));
        match commands[1..].iter().all(is_call) {
            true => Ok(Self(commands)),
            false => Err(Mistake::new("behind a `|` there must be a function")),
        }
    }
}

impl Command {
    fn read(rest: &mut &[Token], depth: usize) -> Result<Self, Mistake> {
        let mut operands = Vec::new();
        while let Some(operand) = Operand::read(rest, depth)? {
            operands.push(operand);
        }
        let mut operands = operands.into_iter();
        match operands.next() {
            None => Err(Mistake::new("an action without a value")),
            Some(Operand::Call(name)) => Ok(Self::Call(name, operands.collect())),
            Some(operand) if operands.len() == 0 => Ok(Self::Operand(operand)),
            Some(_) => Err(Mistake::new("two values without a function before them")),
        }
    }
}

impl Operand {
    fn read(rest: &mut &[Token], depth: usize) -> Result<Option<Self>, Mistake> {
        let [first, behind @ ..] = *rest else { return Ok(None) };
        let operand = match first {
            Token::Field(fields) => Self::Field(fields.clone()),
            Token::Variable(name, fields) => Self::Variable(name.clone(), fields.clone()),
            Token::Literal(value) => Self::Literal(value.clone()),
            Token::Word(name) => Self::Call(name.clone()),
            Token::Open => {
                let depth = depth.checked_sub(1);
                let depth = depth.ok_or_else(|| Mistake::new("too many parentheses"))?;
                let mut inside = behind;
                let pipeline = Pipeline::read(&mut inside, depth)?;
                let [Token::Close(fields), behind @ ..] = inside else {
                    return Err(Mistake::new("a `(` without its `)`"));
                };
                *rest = behind;
                return Ok(Some(Self::Group(pipeline, fields.clone())));
            }
            Token::Pipe | Token::Comma | Token::Declare | Token::Assign | Token::Close(_) => {
                return Ok(None);
            }
        };
        *rest = behind;
        Ok(Some(operand))
    }
}
