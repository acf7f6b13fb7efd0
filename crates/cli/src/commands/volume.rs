//! `rbuild volume`.

use std::io::IsTerminal as _;

use rbuild::{ANONYMOUS_VOLUME, BuildError, VolumeRecord};
use serde_json::{Value, json};

use crate::args::volumes::{
    CreateArgs, InspectArgs, LsArgs, PruneArgs, RmArgs, VolumeArgs, VolumeCommand,
};
use crate::args::{filter, switch, volume};
use crate::commands::inspect::print_documents;
use crate::commands::{Context, each, prune};
use crate::failure::Failure;
use crate::listing::{List, Listing};
use crate::template::Template;
use crate::{exit_code, human, output, report};

/// Titles of the fields that a row has.
const TITLES: [(&str, &str); 7] = [
    ("Driver", "DRIVER"),
    ("Name", "VOLUME NAME"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
    ("Containers", "CONTAINERS"),
];

/// Does what the second word says.
pub fn run(args: &VolumeArgs, context: &Context<'_>) -> Result<i32, Failure> {
    match &args.command {
        VolumeCommand::Create(args) => create(args, context),
        VolumeCommand::Ls(args) => ls(args, context),
        VolumeCommand::Inspect(args) => inspect(args, context),
        VolumeCommand::Rm(args) => rm(args, context),
        VolumeCommand::Prune(args) => prune_unused(args, context),
    }
}

fn create(args: &CreateArgs, context: &Context<'_>) -> Result<i32, Failure> {
    args.other.settle()?;
    if args.driver != "local" {
        return Err(Failure::usage_hint(
            format!("--driver {} is not supported yet", args.driver),
            "there is local",
        ));
    }
    let labels = volume::labels(&[], &args.label)?;
    let name = args.name.as_deref().or(args.old_name.as_deref());
    let made = context.engine()?.create_volume(name.filter(|name| !name.is_empty()), labels)?;
    output::line(&made.name)?;
    Ok(exit_code::SUCCESS)
}

fn ls(args: &LsArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let listing = Listing::parse(args.format.as_deref())?;
    let takes = Takes::parse(&args.filter)?;
    let mut volumes = context.engine()?.volumes()?;
    volumes.retain(|volume| takes.take(volume));
    let rows: Vec<Value> = volumes.iter().map(row).collect();
    let list = List { titles: &TITLES, rows, key: "Name", shown: &["Driver", "Name"] };
    list.print(listing, args.json, args.quiet)?;
    Ok(exit_code::SUCCESS)
}

/// What a list shows: names of a kind are alternatives, labels have to be there all.
#[derive(Debug, Default)]
struct Takes {
    names: Vec<String>,
    drivers: Vec<String>,
    labels: Vec<String>,
    dangling: Option<bool>,
}

impl Takes {
    fn parse(texts: &[String]) -> Result<Self, Failure> {
        let mut takes = Self::default();
        for text in texts {
            match filter::pair(text)? {
                ("name", value) => takes.names.push(value.to_owned()),
                ("driver", value) => takes.drivers.push(value.to_owned()),
                ("label", value) => takes.labels.push(value.to_owned()),
                ("dangling", value) => {
                    let value = switch::parse(value)
                        .map_err(|why| Failure::usage(format!("--filter {text}: {why}")))?;
                    takes.dangling = Some(value);
                }
                (key, _) => return Err(filter::unknown(key, "name, label, driver and dangling")),
            }
        }
        Ok(takes)
    }

    fn take(&self, volume: &VolumeRecord) -> bool {
        let is_dangling = !volume.is_cache && volume.users.is_empty();
        (self.names.is_empty() || self.names.iter().any(|name| volume.name.contains(name)))
            && (self.drivers.is_empty() || self.drivers.iter().any(|it| it == driver(volume)))
            && self.labels.iter().all(|label| filter::has_label(&volume.labels, label))
            && self.dangling.is_none_or(|wanted| wanted == is_dangling)
    }
}

/// Docker's word, and ours for what only builds make.
fn driver(volume: &VolumeRecord) -> &'static str {
    if volume.is_cache { "cache" } else { "local" }
}

fn row(volume: &VolumeRecord) -> Value {
    let labels: Vec<String> =
        volume.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    json!({
        "Driver": driver(volume),
        "Name": volume.name,
        "Scope": "local",
        "Mountpoint": volume.path,
        "Labels": labels.join(","),
        "CreatedAt": human::timestamp(volume.created),
        "Containers": volume.users.join(","),
    })
}

fn inspect(args: &InspectArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let engine = context.engine()?;
    let (mut documents, mut code) = (Vec::new(), exit_code::SUCCESS);
    for name in &args.volumes {
        match engine.volume(name) {
            Ok(volume) => documents.push(json!({
                "CreatedAt": human::rfc3339(volume.created),
                "Driver": driver(&volume),
                "Labels": volume.labels,
                "Mountpoint": volume.path,
                "Name": volume.name,
                "Options": null,
                "Scope": "local",
                "Containers": volume.users,
            })),
            Err(error) => code = report::failure(&error.into()),
        }
    }
    print_documents(template, documents)?;
    Ok(code)
}

fn rm(args: &RmArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let engine = context.engine()?;
    each(&args.volumes, |name| match engine.remove_volume(name) {
        Ok(()) => output::line(name),
        Err(BuildError::NoSuchVolume { .. }) if args.force => Ok(()),
        Err(error) => Err(error.into()),
    })
}

fn prune_unused(args: &PruneArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let takes =
        args.filter.iter().map(|text| filter::label(text)).collect::<Result<Vec<_>, _>>()?;
    let what = match args.all {
        true => "all volumes that no container uses",
        false => "all volumes without a name of their own that no container uses",
    };
    if !args.force && std::io::stdin().is_terminal() && !prune::is_meant(what)? {
        return Ok(exit_code::FAILURE);
    }
    let engine = context.engine()?;
    let mut code = exit_code::SUCCESS;
    for volume in engine.volumes()? {
        let is_wanted = args.all || volume.labels.contains_key(ANONYMOUS_VOLUME);
        if volume.is_cache
            || !is_wanted
            || !volume.users.is_empty()
            || !takes.iter().all(|take| take(&volume.labels))
        {
            continue;
        }
        match engine.remove_volume(&volume.name) {
            Ok(()) => output::line(&volume.name)?,
            // Somebody else removed it.
            Err(BuildError::NoSuchVolume { .. }) => {}
            Err(error) => code = report::failure(&error.into()),
        }
    }
    Ok(code)
}
