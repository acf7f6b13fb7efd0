//! `rbuild image prune`.

use std::io::IsTerminal as _;

use rbuild::{ImagePrune, Silent};

use crate::args::filter::ImageFilters;
use crate::args::images::ImagePruneArgs;
use crate::commands::{Context, prune};
use crate::failure::Failure;
use crate::{exit_code, human, interrupt, output};

/// Removes images without a name, or with `--all` all of them.
pub fn run(args: &ImagePruneArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let which = which(args)?;
    let what = match which.all {
        true => "all images that no container runs from",
        false => "all images without a name",
    };
    if !args.force && std::io::stdin().is_terminal() && !prune::is_meant(what)? {
        return Ok(exit_code::FAILURE);
    }
    let cancel = interrupt::cancel_on_interrupt()?;
    let (removed, pruned) = context.engine()?.prune_images(&which, &Silent, &cancel)?;
    for name in &removed.untagged {
        output::line(&format!("Untagged: {name}"))?;
    }
    for id in &removed.deleted {
        output::line(&format!("Deleted: {id}"))?;
    }
    output::line(&format!("Total reclaimed space: {}", human::bytes(pruned.bytes)))?;
    Ok(exit_code::SUCCESS)
}

fn which(args: &ImagePruneArgs) -> Result<ImagePrune, Failure> {
    let mut which = ImagePrune { all: args.all, ..ImagePrune::default() };
    for text in &args.filter {
        // As in Docker, `label!=` keeps what has it.
        if let Some(label) = text.strip_prefix("label!=") {
            let filters = ImageFilters::parse(&[format!("label={label}")], human::now())?;
            which.without.extend(filters.labels);
            continue;
        }
        let filters = ImageFilters::parse(std::slice::from_ref(text), human::now())?;
        let key = text.split('=').next().unwrap_or_default().trim();
        match key {
            "until" => which.until = filters.until,
            "label" => which.labels.extend(filters.labels),
            "dangling" => which.all = filters.dangling == Some(false),
            _ => {
                return Err(Failure::usage_hint(
                    format!("--filter {text}: there is no such filter here"),
                    "there are until, label, label! and dangling",
                ));
            }
        }
    }
    Ok(which)
}
