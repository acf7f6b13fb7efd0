//! Fills a template in.

use std::borrow::Cow;

use serde_json::Value;

use super::Mistake;
use super::action::{Command, Operand, Pipeline};
use super::functions;
use super::parse::{Block, Node};

/// What is filled in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Values,
    /// Titles of columns, which functions leave as they are.
    Titles,
}

/// Renders nodes with a document.
pub(super) fn render(nodes: &[Node], root: &Value, mode: Mode) -> Result<String, Mistake> {
    let mut state =
        State { root, mode, variables: vec![(String::new(), root.clone())], text: String::new() };
    state.nodes(nodes, root)?;
    Ok(state.text)
}

/// How nodes ended.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct State<'a> {
    root: &'a Value,
    mode: Mode,
    /// The innermost last; `$` is the one without a name.
    variables: Vec<(String, Value)>,
    text: String,
}

impl State<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Mistake> {
        let outer = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(outer);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, Mistake> {
        match node {
            Node::Text(text) => self.text.push_str(text),
            Node::Show(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.text.push_str(&functions::shown(&value));
            }
            Node::Declare(name, pipeline) => {
                let value = self.pipeline(pipeline, dot)?.into_owned();
                self.variables.push((name.clone(), value));
            }
            Node::Assign(name, pipeline) => {
                let value = self.pipeline(pipeline, dot)?.into_owned();
                *self.variable(name)? = value;
            }
            Node::If(block) => {
                let outer = self.variables.len();
                let value = self.pipeline(&block.pipeline, dot)?.into_owned();
                let branch =
                    if functions::is_true(&value) { &block.body } else { &block.otherwise };
                self.declare(block, [value]);
                let flow = self.nodes(branch, dot);
                self.variables.truncate(outer);
                return flow;
            }
            Node::With(block) => {
                let outer = self.variables.len();
                let value = self.pipeline(&block.pipeline, dot)?.into_owned();
                self.declare(block, [value.clone()]);
                let flow = match functions::is_true(&value) {
                    true => self.nodes(&block.body, &value),
                    false => self.nodes(&block.otherwise, dot),
                };
                self.variables.truncate(outer);
                return flow;
            }
            Node::Range(block) => return self.range(block, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(&mut self, block: &Block, dot: &Value) -> Result<Flow, Mistake> {
        let items: Vec<(Value, Value)> = match self.pipeline(&block.pipeline, dot)?.into_owned() {
            Value::Array(items) => {
                items.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect()
            }
            Value::Object(fields) => {
                fields.into_iter().map(|(name, value)| (Value::from(name), value)).collect()
            }
            Value::Null => Vec::new(),
            other => {
                let other = functions::shown(&other);
                return Err(Mistake::new(format!("`range` wants a list or a map, not {other:?}")));
            }
        };
        if items.is_empty() {
            return self.nodes(&block.otherwise, dot);
        }
        for (key, item) in items {
            let outer = self.variables.len();
            self.declare(block, [key, item.clone()]);
            let flow = self.nodes(&block.body, &item)?;
            self.variables.truncate(outer);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    /// One variable gets the last of the values, two get both.
    fn declare<const N: usize>(&mut self, block: &Block, values: [Value; N]) {
        let skipped = N.saturating_sub(block.variables.len());
        let names = block.variables.iter().cloned();
        self.variables.extend(names.zip(values.into_iter().skip(skipped)));
    }

    fn variable(&mut self, name: &str) -> Result<&mut Value, Mistake> {
        let found = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value)
            .ok_or_else(|| Mistake::new(format!("there is no variable ${name}")))
    }

    fn pipeline<'v>(
        &mut self,
        pipeline: &'v Pipeline,
        dot: &'v Value,
    ) -> Result<Cow<'v, Value>, Mistake> {
        let mut last: Option<Cow<'v, Value>> = None;
        for command in &pipeline.0 {
            let value = match command {
                Command::Operand(operand) => self.operand(operand, dot)?,
                Command::Call(name, operands) => {
                    let mut arguments = Vec::with_capacity(operands.len() + 1);
                    for operand in operands {
                        arguments.push(self.operand(operand, dot)?.into_owned());
                    }
                    arguments.extend(last.take().map(Cow::into_owned));
                    Cow::Owned(self.call(name, arguments)?)
                }
            };
            last = Some(value);
        }
        Ok(last.unwrap_or(Cow::Owned(Value::Null)))
    }

    fn operand<'v>(
        &mut self,
        operand: &'v Operand,
        dot: &'v Value,
    ) -> Result<Cow<'v, Value>, Mistake> {
        match operand {
            Operand::Field(path) => {
                Ok(Cow::Borrowed(find(dot, path, std::ptr::eq(dot, self.root))?))
            }
            Operand::Variable(name, path) => {
                let is_root = name.is_empty();
                Ok(Cow::Owned(find(self.variable(name)?, path, is_root)?.clone()))
            }
            Operand::Literal(value) => Ok(Cow::Borrowed(value)),
            Operand::Call(name) => Ok(Cow::Owned(self.call(name, Vec::new())?)),
            Operand::Group(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                Ok(Cow::Owned(find(&value, path, false)?.clone()))
            }
        }
    }

    fn call(&self, name: &str, arguments: Vec<Value>) -> Result<Value, Mistake> {
        match self.mode {
            Mode::Titles if functions::is_about_text(name) => {
                Ok(arguments.into_iter().next().unwrap_or_default())
            }
            _ => functions::call(name, &arguments),
        }
    }
}

/// A field that the document itself does not have is a mistake. Below it, what is not set is left
/// out, and maps have keys of the user's, so a missing one is empty.
fn find<'v>(from: &'v Value, path: &[String], is_root: bool) -> Result<&'v Value, Mistake> {
    let mut here = from;
    for (depth, name) in path.iter().enumerate() {
        here = match here {
            Value::Object(fields) => match fields.get(name) {
                Some(value) => value,
                None if depth > 0 || !is_root => return Ok(&Value::Null),
                None => {
                    let known: Vec<&str> = fields.keys().map(String::as_str).collect();
                    return Err(Mistake {
                        message: format!("no field {name:?}"),
                        hint: Some(format!("there are {}", known.join(", "))),
                    });
                }
            },
            Value::Null => return Ok(&Value::Null),
            other => {
                let other = functions::shown(other);
                return Err(Mistake::new(format!("{other:?} has no field {name:?}")));
            }
        };
    }
    Ok(here)
}
