//! Flags of Docker's commands that are known and not (yet) honoured. Naming them is kinder than
//! "unexpected argument", and scripts that pass what has no meaning here keep working. Which they
//! are is in [`flag_tables`](super::flag_tables).

use std::marker::PhantomData;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::failure::Failure;
use crate::output;

/// One such flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    long: &'static str,
    short: Option<char>,
    takes: Takes,
    what: What,
}

/// What may stand behind a flag.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Takes {
    /// A boolean flag.
    Switch,
    /// A value, even if it begins with a hyphen.
    Value,
    /// `--sbom` and `--sbom=false`.
    MaybeValue,
}

/// What becomes of a flag.
#[derive(Debug, Clone, Copy)]
pub enum What {
    /// An error that names it.
    NotYet,
    /// Accepted with a line on standard error: it has no meaning here.
    NoMeaning,
    /// Accepted in silence with one of these values, an error with others.
    Only(&'static [&'static str]),
}

/// A flag without a short form.
pub const fn flag(long: &'static str, takes: Takes, what: What) -> Flag {
    Flag { long, short: None, takes, what }
}

/// A flag with a short form.
pub const fn short(short: char, long: &'static str, takes: Takes, what: What) -> Flag {
    Flag { long, short: Some(short), takes, what }
}

/// The flags of one command.
pub trait Table {
    /// In the order of the alphabet.
    const FLAGS: &'static [Flag];
}

use Takes::{MaybeValue, Switch, Value};
use What::{NoMeaning, NotYet, Only};

/// Those flags of a table that stood on the command line, with their values.
#[derive(Debug, Clone, Default)]
pub struct OtherFlags<T> {
    given: Vec<(Flag, Vec<String>)>,
    table: PhantomData<T>,
}

impl<T> OtherFlags<T> {
    /// Refuses what cannot be honoured, and says so of what has no meaning.
    pub fn settle(&self) -> Result<(), Failure> {
        for (flag, values) in &self.given {
            let name = format!("--{}", flag.long);
            let is = |value: &String, known: &[&str]| {
                known.iter().any(|known| value.split(',').any(|part| part == *known))
            };
            match flag.what {
                NotYet => return Err(Failure::usage(format!("{name} is not supported yet"))),
                NoMeaning => output::note(&format!("{name} has no meaning here and is ignored")),
                Only(known) if values.iter().all(|value| is(value, known)) => {}
                Only(_) => {
                    let value = values.join(" ");
                    return Err(Failure::usage(format!("{name}={value} is not supported yet")));
                }
            }
        }
        Ok(())
    }
}

impl<T: Table> clap::FromArgMatches for OtherFlags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut found = Self { given: Vec::new(), table: PhantomData };
        found.update_from_arg_matches(matches)?;
        Ok(found)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for flag in T::FLAGS {
            if flag.takes == Switch {
                if matches.get_flag(flag.long) {
                    self.given.push((*flag, Vec::new()));
                }
            } else if let Some(values) = matches.get_many::<String>(flag.long) {
                self.given.push((*flag, values.cloned().collect()));
            }
        }
        Ok(())
    }
}

impl<T: Table> clap::Args for OtherFlags<T> {
    fn augment_args(command: Command) -> Command {
        T::FLAGS.iter().fold(command, |command, flag| {
            let mut arg = Arg::new(flag.long).long(flag.long).hide(true);
            if let Some(short) = flag.short {
                arg = arg.short(short);
            }
            arg = match flag.takes {
                Switch => arg.action(ArgAction::SetTrue),
                Value => arg.action(ArgAction::Append).allow_hyphen_values(true),
                MaybeValue => arg
                    .action(ArgAction::Append)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
            };
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
