//! Flags of `docker build` and `docker run` that are known and not (yet) honoured. Naming them is
//! kinder than "unexpected argument", and scripts that pass what has no meaning here keep working.

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

#[derive(Debug, Clone, Copy, PartialEq)]
enum Takes {
    Nothing,
    Value,
    /// `--sbom` and `--sbom=false`.
    MaybeValue,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// An error that names it.
    NotYet,
    /// Accepted with a line on standard error: it has no meaning here.
    NoMeaning,
    /// Accepted in silence with one of these values, an error with others.
    Only(&'static [&'static str]),
}

const fn flag(long: &'static str, takes: Takes, what: What) -> Flag {
    Flag { long, short: None, takes, what }
}

const fn short(short: char, long: &'static str, takes: Takes, what: What) -> Flag {
    Flag { long, short: Some(short), takes, what }
}

/// The flags of one command.
pub trait Table {
    /// In the order of the alphabet.
    const FLAGS: &'static [Flag];
}

/// Those of `build`.
#[derive(Debug, Clone, Default)]
pub struct OfBuild;

/// Those of `run`.
#[derive(Debug, Clone, Default)]
pub struct OfRun;

use Takes::{MaybeValue, Nothing, Value};
use What::{NoMeaning, NotYet, Only};

/// What turns an attestation off, which is how it always is here.
const OFF: What = Only(&["false", "0", "disabled=true"]);

impl Table for OfBuild {
    const FLAGS: &'static [Flag] = &[
        flag("add-host", Value, NotYet),
        flag("allow", Value, NotYet),
        flag("annotation", Value, NotYet),
        flag("attest", Value, NotYet),
        flag("build-context", Value, NotYet),
        flag("builder", Value, NoMeaning),
        flag("cache-from", Value, NotYet),
        flag("cache-to", Value, NotYet),
        flag("cgroup-parent", Value, NotYet),
        flag("check", Nothing, NotYet),
        flag("compress", Nothing, NoMeaning),
        flag("cpu-period", Value, NotYet),
        flag("cpu-quota", Value, NotYet),
        short('c', "cpu-shares", Value, NotYet),
        flag("cpuset-cpus", Value, NotYet),
        flag("cpuset-mems", Value, NotYet),
        short('D', "debug", Nothing, NoMeaning),
        flag("detach", Nothing, NoMeaning),
        flag("disable-content-trust", MaybeValue, NoMeaning),
        flag("force-rm", MaybeValue, NoMeaning),
        flag("isolation", Value, NoMeaning),
        flag("layers", MaybeValue, NotYet),
        short('m', "memory", Value, NotYet),
        flag("memory-swap", Value, NotYet),
        flag("policy", Value, NotYet),
        flag("provenance", MaybeValue, OFF),
        flag("push", Nothing, NotYet),
        flag("resource", Value, NotYet),
        flag("rm", MaybeValue, NoMeaning),
        flag("sbom", MaybeValue, OFF),
        flag("security-opt", Value, NotYet),
        flag("server-config", Value, NoMeaning),
        flag("shm-size", Value, NotYet),
        flag("squash", Nothing, NotYet),
        flag("ssh", Value, NotYet),
        flag("ulimit", Value, NotYet),
    ];
}

impl Table for OfRun {
    const FLAGS: &'static [Flag] = &[
        flag("add-host", Value, NotYet),
        flag("cap-add", Value, NotYet),
        flag("cap-drop", Value, NotYet),
        flag("cidfile", Value, NotYet),
        flag("cpus", Value, NotYet),
        short('d', "detach", Nothing, NotYet),
        flag("detach-keys", Value, NotYet),
        flag("device", Value, NotYet),
        flag("dns", Value, NotYet),
        flag("env-host", Nothing, NotYet),
        flag("gpus", Value, NotYet),
        flag("group-add", Value, NotYet),
        flag("health-cmd", Value, NotYet),
        flag("init", Nothing, NoMeaning),
        flag("ip", Value, NotYet),
        short('l', "label", Value, NotYet),
        flag("log-driver", Value, NotYet),
        short('m', "memory", Value, NotYet),
        flag("mount", Value, NotYet),
        flag("network-alias", Value, NotYet),
        flag("no-healthcheck", Nothing, NoMeaning),
        flag("pid", Value, NotYet),
        flag("platform", Value, NotYet),
        flag("privileged", Nothing, NotYet),
        short('p', "publish", Value, NotYet),
        short('P', "publish-all", Nothing, NotYet),
        flag("restart", Value, Only(&["no"])),
        flag("security-opt", Value, NotYet),
        flag("shm-size", Value, NotYet),
        flag("sig-proxy", MaybeValue, Only(&["true"])),
        flag("stop-signal", Value, NotYet),
        flag("stop-timeout", Value, NotYet),
        flag("ulimit", Value, NotYet),
        flag("userns", Value, NotYet),
        flag("volumes-from", Value, NotYet),
    ];
}

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
            if flag.takes == Nothing {
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
                Nothing => arg.action(ArgAction::SetTrue),
                Value => arg.action(ArgAction::Append),
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
