//! Boolean flags take what Docker's take: `--flag`, `--flag=true`, `--flag=0`. Declared they are
//! as clap has them, a plain `bool`; [`with_values`] changes all of a command at once, so that
//! none is forgotten.

use clap::{Arg, ArgAction, Command};

/// The spellings of `true`, which are those of Go's `strconv.ParseBool`.
pub const TRUE: [&str; 6] = ["1", "t", "T", "true", "TRUE", "True"];
/// The spellings of `false`.
pub const FALSE: [&str; 6] = ["0", "f", "F", "false", "FALSE", "False"];

/// Reads the value of a boolean flag.
pub fn parse(text: &str) -> Result<bool, String> {
    match text {
        text if TRUE.contains(&text) => Ok(true),
        text if FALSE.contains(&text) => Ok(false),
        _ => Err("it is neither `true` nor `false`".to_owned()),
    }
}

/// The command and those below it, whose boolean flags take a value behind `=`. Flags may be
/// given again, and the last one counts.
pub fn with_values(command: Command) -> Command {
    command.args_override_self(true).mut_args(with_value).mut_subcommands(with_values)
}

fn with_value(arg: Arg) -> Arg {
    match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .value_parser(parse)
            .value_name("true|false")
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .hide_default_value(true),
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(line: &str) -> Result<[bool; 3], String> {
        let switch = |name: &'static str, short| {
            Arg::new(name).long(name).short(short).action(ArgAction::SetTrue)
        };
        let command = Command::new("x")
            .arg(switch("interactive", 'i'))
            .arg(switch("tty", 't'))
            .arg(switch("rm", 'r'))
            .arg(Arg::new("env").short('e').action(ArgAction::Append))
            .arg(Arg::new("image").trailing_var_arg(true).num_args(1..));
        let words = std::iter::once("x").chain(line.split_whitespace());
        let matches = with_values(command)
            .try_get_matches_from(words)
            .map_err(|error| error.render().to_string())?;
        Ok(["interactive", "tty", "rm"].map(|name| matches.get_flag(name)))
    }

    #[test]
    fn a_flag_stands_alone_or_has_a_value() {
        for (line, expected) in [
            ("image", [false, false, false]),
            ("-it image true", [true, true, false]),
            ("-it=false image", [true, false, false]),
            ("-i=1 -t=t --rm=TRUE", [true, true, true]),
            ("--tty=F --interactive --rm=0", [true, false, false]),
            ("--tty --tty=false --rm=false --rm", [false, false, true]),
            ("-itr -e a -e b image", [true, true, true]),
        ] {
            assert_eq!(values(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_its_flag() {
        for line in ["--rm=maybe", "--rm=", "--rm=yes", "-i=x", "-ir=2"] {
            let error = values(line).unwrap_err();
            let flag = if line.starts_with("-i=") { "--interactive" } else { "--rm" };
            assert!(error.contains(flag) && error.contains("neither"), "{line}: {error}");
        }
        assert!(values("--rm=maybe").unwrap_err().contains("'maybe'"));
    }

    #[test]
    fn lists_keep_all_their_items() {
        let command = Command::new("x").arg(Arg::new("env").short('e').action(ArgAction::Append));
        let matches = with_values(command).get_matches_from(["x", "-e", "a", "-e", "b"]);
        assert_eq!(matches.get_many::<String>("env").unwrap().len(), 2);
    }
}
