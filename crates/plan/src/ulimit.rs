//! Limits of a process that `ulimit` shows.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The names that Docker takes (`github.com/docker/go-units`, `ulimit.go`).
const NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// One limit. `None` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ulimit {
    /// What is limited, such as `nofile`.
    pub name: String,
    /// Where the process starts.
    pub soft: Option<u64>,
    /// How far it may raise that.
    pub hard: Option<u64>,
}

/// A text that is no `name=soft[:hard]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid ulimit {text:?}: {why}")]
pub struct InvalidUlimit {
    text: String,
    why: &'static str,
}

impl FromStr for Ulimit {
    type Err = InvalidUlimit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why| InvalidUlimit { text: text.to_owned(), why };
        let (name, limits) =
            text.split_once('=').ok_or_else(|| invalid("the form is NAME=SOFT[:HARD]"))?;
        let name = name.to_lowercase();
        if !NAMES.contains(&name.as_str()) {
            return Err(invalid("no limit has that name"));
        }
        let limit = |text: &str| match text {
            "-1" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| invalid("a limit is a number, or -1 for no limit")),
        };
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard) = (limit(soft)?, limit(hard)?);
        let is_above = match (soft, hard) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(soft), Some(hard)) => soft > hard,
        };
        if is_above {
            return Err(invalid("the soft limit is above the hard one"));
        }
        Ok(Self { name, soft, hard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let read = |text: &str| text.parse::<Ulimit>().map(|it| (it.name, it.soft, it.hard));
        let nofile = |soft, hard| Ok(("nofile".to_owned(), soft, hard));
        assert_eq!(read("nofile=10"), nofile(Some(10), Some(10)));
        assert_eq!(read("NOFILE=10:20"), nofile(Some(10), Some(20)));
        assert_eq!(read("nofile=10:-1"), nofile(Some(10), None));
        assert_eq!(read("nofile=-1"), nofile(None, None));
        for bad in ["", "nofile", "files=1", "nofile=", "nofile=x", "nofile=2:1", "nofile=-1:5"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("a=1").unwrap_err().to_string().contains("invalid ulimit \"a=1\""));
    }
}
