//! Instructions: from a logical line to a typed value.
//!
//! This happens in two steps, as in BuildKit, because their errors come in that order: all lines
//! of the file are first cut into words ([`shape`]), which also says whether heredocs follow, and
//! then the words of each are checked and typed ([`finish`]). What BuildKit only finds when it
//! reaches a stage is kept as a *late* fault.

mod fault;
mod finish;
mod shape;

mod flags;
pub(crate) mod words;

mod arg;
mod copy;
mod duration;
mod env;
mod from;
mod meta;
mod mount;
mod run;

pub(crate) use fault::{Fault, fault, go_quoted};
pub(crate) use finish::{Notes, Parsed, finish};
pub(crate) use meta::refused_trigger;
pub(crate) use shape::{Arguments, Node, shape};

use fault::{at_least_one, exactly_one};
use finish::{doc_of, ignored_flags};
