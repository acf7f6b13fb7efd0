//! Arguments of `du` and `prune`.

use clap::Args;
use rbuild::PruneOptions;

use crate::args::filter;
use crate::args::flag_tables::{OfDu, OfPrune};
use crate::args::other_flags::OtherFlags;
use crate::failure::Failure;

/// Show what takes space in the store.
#[derive(Debug, Args)]
pub struct DuArgs {
    /// Also each snapshot, record and blob
    #[arg(short, long)]
    pub verbose: bool,
    /// `json`, or text with fields such as {{.What}}: {{.Size}}
    #[arg(long, value_name = "FORMAT", conflicts_with = "verbose")]
    pub format: Option<String>,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfDu>,
}

/// Remove build cache that no image uses.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Also images without a name, and everything that can be had again
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only cache with until=TIME, id=ID or type=KIND; TIME is a date or a duration ago, such as
    /// 24h; may be repeated. Images stay
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Keep this much cache, such as 10GB. Images stay
    #[arg(long, alias = "keep-storage", value_name = "BYTES")]
    pub reserved_space: Option<String>,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfPrune>,
}

impl PruneArgs {
    /// Whether something among the cache was chosen, which images have no part in.
    pub fn chooses(&self) -> bool {
        !self.filter.is_empty() || self.reserved_space.is_some()
    }

    /// The arguments as the engine wants them. `now` is in milliseconds since 1970.
    pub fn options(&self, now: i64) -> Result<PruneOptions, Failure> {
        self.other.settle()?;
        let mut options = PruneOptions { all: self.all, ..PruneOptions::default() };
        for text in &self.filter {
            let (key, value) = filter::pair(text)?;
            match key {
                "until" | "unused-for" => options.until = Some(filter::time(value, now)?),
                "id" => options.ids.push(value.to_owned()),
                "type" => options.kinds.push(value.to_owned()),
                _ => return Err(filter::unknown(key, "until, id and type")),
            }
        }
        if let Some(text) = &self.reserved_space {
            let bytes = bytes(text).ok_or_else(|| {
                Failure::usage_hint(
                    format!("--reserved-space {text}: not a number of bytes"),
                    "for example 500MB or 10GB",
                )
            })?;
            options.keep_bytes = Some(bytes);
        }
        Ok(options)
    }
}

/// `10GB` and `512mb` are powers of 1000, `1GiB` of 1024.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = text[digits.len()..].trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (base, unit) = match unit.strip_suffix('i') {
        Some(unit) if !unit.is_empty() => (1024_f64, unit),
        _ => (1000_f64, unit),
    };
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    let value = digits.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)?;
    // Whatever is above the highest number is the highest number.
    Some((value * base.powi(power)) as u64)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        prune: PruneArgs,
    }

    fn options(line: &str) -> Result<PruneOptions, Failure> {
        let words = std::iter::once("prune").chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().prune.options(1_000_000_000)
    }

    #[test]
    fn filters_choose_among_the_cache() {
        let chosen = options("--filter until=1h --filter id=ab --filter type=regular").unwrap();
        assert_eq!(chosen.until, Some(1_000_000_000 - 3_600_000));
        assert_eq!((chosen.ids, chosen.kinds), (vec!["ab".into()], vec!["regular".into()]));
        assert_eq!(options("--keep-storage 1.5GB").unwrap().keep_bytes, Some(1_500_000_000));
        assert_eq!(options("--reserved-space 2GiB").unwrap().keep_bytes, Some(2 << 30));
        for bad in ["--filter until", "--filter shared=1", "--filter until=x", "--keep-storage x"] {
            assert!(options(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("0"), Some(0));
        assert_eq!(bytes("10 kB"), Some(10_000));
        assert_eq!(bytes("512m"), Some(512_000_000));
        assert_eq!(bytes("1e400"), None);
        for bad in ["", "B", "-1", "inf", "1x", "1.2.3", "NaN", "1i"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
