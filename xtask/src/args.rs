//! The few argument forms the chores take: `--name VALUE`, `--name=VALUE`, `--switch`, words.

use crate::failure::{Failure, Outcome, fail};

/// What is left of the command line; every reader takes its part out.
#[derive(Debug)]
pub(crate) struct Args(Vec<String>);

impl Args {
    /// The arguments of this process, without its name.
    pub(crate) fn from_env() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// Takes the first word that is left.
    pub(crate) fn positional(&mut self) -> Option<String> {
        if self.0.is_empty() { None } else { Some(self.0.remove(0)) }
    }

    /// Takes `--name VALUE` or `--name=VALUE`.
    pub(crate) fn value(&mut self, name: &str) -> Outcome<Option<String>> {
        let joined = format!("{name}=");
        let Some(at) = self.0.iter().position(|a| a == name || a.starts_with(&joined)) else {
            return Ok(None);
        };
        let argument = self.0.remove(at);
        if let Some(value) = argument.strip_prefix(&joined) {
            return Ok(Some(value.to_owned()));
        }
        if at == self.0.len() {
            return fail(format!("{name} needs a value"));
        }
        Ok(Some(self.0.remove(at)))
    }

    /// Takes `--name NUMBER`.
    pub(crate) fn number(&mut self, name: &str) -> Outcome<Option<u64>> {
        let parse = |text: String| {
            text.parse().map_err(|_| Failure::new(format!("{name} takes a number, not `{text}`")))
        };
        self.value(name)?.map(parse).transpose()
    }

    /// Takes `--name`, and says whether it was there.
    pub(crate) fn switch(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|a| a != name);
        self.0.len() != before
    }

    /// The words that are left; an option among them is one that nobody knows.
    pub(crate) fn words(&mut self) -> Outcome<Vec<String>> {
        match self.0.iter().find(|a| a.starts_with('-')) {
            Some(unknown) => fail(format!("unknown option `{unknown}`")),
            None => Ok(std::mem::take(&mut self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Args {
        Args(text.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn options_are_taken_in_either_form() {
        let mut a = args("bench --runs 3 b1 --json=x.json --fast b4");
        assert_eq!(a.positional().as_deref(), Some("bench"));
        assert_eq!(a.number("--runs").unwrap(), Some(3));
        assert_eq!(a.value("--json").unwrap().as_deref(), Some("x.json"));
        assert!(a.switch("--fast"));
        assert_eq!(a.words().unwrap(), ["b1", "b4"]);
    }

    #[test]
    fn a_value_that_is_missing_or_no_number_is_refused() {
        assert!(args("--runs").value("--runs").is_err());
        assert!(args("--runs x").number("--runs").is_err());
        assert!(args("--what").words().is_err());
    }
}
