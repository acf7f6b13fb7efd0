//! Arguments of `rbuild events`.

use clap::Args;
use rbuild::events::Event;

use super::filter;
use crate::failure::Failure;

/// Show what happens to containers, images, networks and volumes, as it happens.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Also from this time on: 10m, 2026-01-31, 2026-01-31T12:00:00Z or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// No longer than to this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Show only events with type=TYPE, event=ACTION, container=NAME, image=NAME, network=NAME,
    /// volume=NAME or label=NAME[=VALUE]; may be repeated
    #[arg(short, long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// `json`, or text with fields such as {{.Type}} {{.Action}} {{.Actor.ID}}
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Which events are shown: of one key any, of several keys each; labels have to be there all.
#[derive(Debug, Default)]
pub struct EventFilters {
    kinds: Vec<String>,
    actions: Vec<String>,
    /// Type and name or id.
    actors: Vec<(String, String)>,
    labels: Vec<String>,
}

impl EventFilters {
    /// Reads the values of `--filter`.
    pub fn parse(texts: &[String]) -> Result<Self, Failure> {
        let mut filters = Self::default();
        for text in texts {
            let (key, value) = filter::pair(text)?;
            match key {
                "type" => filters.kinds.push(value.to_owned()),
                "event" => filters.actions.push(value.to_owned()),
                "label" => filters.labels.push(value.to_owned()),
                "container" | "image" | "network" | "volume" => {
                    filters.actors.push((key.to_owned(), value.to_owned()));
                }
                _ => {
                    let known = "type, event, container, image, network, volume and label";
                    return Err(filter::unknown(key, known));
                }
            }
        }
        Ok(filters)
    }

    /// Whether an event is shown.
    pub fn take(&self, event: &Event) -> bool {
        let attributes = &event.actor.attributes;
        // `health_status: healthy` is a health_status, `exec_start: sh` an exec_start.
        let plain = event.action.split_once(':').map_or(event.action.as_str(), |(word, _)| word);
        let is = |kind: &str, wanted: &str| {
            let said = |name: &str| attributes.get(name).is_some_and(|value| value == wanted);
            // A container's event says its image, a network's its container.
            match event.kind == kind {
                true => event.actor.id.starts_with(wanted) || said("name"),
                false => said(kind),
            }
        };
        let same_kind = |kind: &str| {
            let mut wanted = self.actors.iter().filter(|(key, _)| key == kind).peekable();
            wanted.peek().is_none() || wanted.any(|(kind, name)| is(kind, name))
        };
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && (self.actions.is_empty()
                || self.actions.iter().any(|it| *it == event.action || it == plain))
            && ["container", "image", "network", "volume"].into_iter().all(same_kind)
            && self.labels.iter().all(|label| filter::has_label(attributes, label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_take_what_they_say() {
        let event = |kind: &str, action: &str, id: &str| Event::now(kind, action, id);
        let web = event("container", "health_status: healthy", "abcdef")
            .with("name", "web")
            .with("image", "app")
            .with("l", "v");
        let joined = event("network", "connect", "net").with("container", "abcdef");
        let takes = |line: &str, event: &Event| {
            let texts: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            EventFilters::parse(&texts).unwrap().take(event)
        };
        for line in [
            "",
            "type=container",
            "type=image type=container",
            "event=health_status",
            "container=web",
            "container=abc",
            "container=nope container=web",
            "image=app",
            "label=l",
            "label=l=v",
        ] {
            assert!(takes(line, &web), "{line}");
        }
        for line in
            ["type=image", "event=start", "container=nope", "image=nope", "label=l=x", "volume=web"]
        {
            assert!(!takes(line, &web), "{line}");
        }
        assert!(takes("container=abcdef", &joined) && takes("network=net type=network", &joined));
        for bad in ["daemon=x", "x"] {
            assert!(EventFilters::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
