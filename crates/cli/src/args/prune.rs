//! Arguments of `du` and `prune`.

use clap::Args;
use rbuild::{PruneOptions, RowFilter, SpaceLimits};

use crate::args::flag_tables::{OfDu, OfPrune};
use crate::args::other_flags::OtherFlags;
use crate::args::{filter, switch};
use crate::failure::Failure;

/// The keys of [`row_filter`].
const KEYS: &str = "until, id, type, parents, description, inuse, shared, private, mutable and \
                    immutable";

/// Show what takes space in the store.
#[derive(Debug, Args)]
pub struct DuArgs {
    /// Everything that is known of each part of the cache
    #[arg(short, long)]
    pub verbose: bool,
    /// `json`, or text with fields such as {{.ID}}: {{.Size}}
    #[arg(long, value_name = "FORMAT", conflicts_with = "verbose")]
    pub format: Option<String>,
    /// Only parts of the cache with until=TIME, id=ID, type=KIND, inuse=BOOL, shared=BOOL or the
    /// like; may be repeated
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfDu>,
}

/// Remove build cache that no image uses.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Also cache mounts, images without a name, and everything that can be had again
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only cache with until=TIME, id=ID, type=KIND, shared=BOOL or the like; TIME is a date or a
    /// duration ago, such as 24h; may be repeated. Images stay
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Only cache that was not used for this long, such as 24h
    #[arg(long, value_name = "DURATION")]
    pub keep_duration: Option<String>,
    /// Everything that is known of what was removed
    #[arg(long)]
    pub verbose: bool,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfPrune>,
}

impl PruneArgs {
    /// The arguments as the engine wants them; `limits` are those of the command line. `now` is in
    /// milliseconds since 1970.
    pub fn options(&self, limits: SpaceLimits, now: i64) -> Result<PruneOptions, Failure> {
        self.other.settle()?;
        let mut filter = row_filter(&self.filter, now)?;
        if let Some(text) = &self.keep_duration {
            let ago = filter::milliseconds(text).ok_or_else(|| {
                Failure::usage_hint(
                    format!("--keep-duration {text}: not a duration"),
                    "for example 24h or 7d",
                )
            })?;
            filter.until = Some(now.saturating_sub(ago));
        }
        Ok(PruneOptions { all: self.all, filter, limits })
    }
}

/// Filters of `du` and `prune`.
pub fn row_filter(texts: &[String], now: i64) -> Result<RowFilter, Failure> {
    let mut chosen = RowFilter::default();
    for text in texts {
        // A key alone asks whether it is so.
        let text = if text.contains('=') { text.clone() } else { format!("{text}=true") };
        let (key, value) = filter::pair(&text)?;
        let flag = || {
            switch::parse(value)
                .map_err(|why| Failure::usage(format!("--filter {key}={value}: {why}")))
        };
        match key {
            "until" | "unused-for" => chosen.until = Some(filter::time(value, now)?),
            "id" => chosen.ids.push(value.to_owned()),
            "type" => chosen.kinds.push(value.to_owned()),
            "parents" => chosen.parents.push(value.to_owned()),
            "description" => chosen.descriptions.push(value.to_owned()),
            "inuse" => chosen.in_use = Some(flag()?),
            "shared" => chosen.shared = Some(flag()?),
            "private" => chosen.shared = Some(!flag()?),
            "mutable" => chosen.mutable = Some(flag()?),
            "immutable" => chosen.mutable = Some(!flag()?),
            _ => return Err(filter::unknown(key, KEYS)),
        }
    }
    Ok(chosen)
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
        let line = Line::try_parse_from(words).unwrap();
        line.prune.options(SpaceLimits::default(), 1_000_000_000)
    }

    #[test]
    fn filters_choose_among_the_cache() {
        let line = "--filter until=1h --filter id=ab --filter type=regular --filter shared=0";
        let chosen = options(line).unwrap().filter;
        assert_eq!(chosen.until, Some(1_000_000_000 - 3_600_000));
        assert_eq!((chosen.ids, chosen.kinds), (vec!["ab".into()], vec!["regular".into()]));
        assert_eq!((chosen.shared, chosen.mutable), (Some(false), None));
        let chosen = options("--filter private --filter immutable=false").unwrap().filter;
        assert_eq!((chosen.shared, chosen.mutable, chosen.in_use), (Some(false), Some(true), None));
        let kept = options("--keep-duration 2h").unwrap().filter;
        assert_eq!(kept.until, Some(1_000_000_000 - 7_200_000));
        for bad in ["--filter until", "--filter color=1", "--filter until=x", "--filter inuse=x"] {
            assert!(options(bad).is_err(), "{bad}");
        }
        for bad in ["x", "99999999999999999999d"] {
            assert!(options(&format!("--keep-duration {bad}")).is_err(), "{bad}");
        }
    }
}
