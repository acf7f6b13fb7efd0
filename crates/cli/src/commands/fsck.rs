//! `rbuild fsck`.

use rbuild::{Checkup, Loss};
use serde_json::{Value, json};

use crate::args::fsck::FsckArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::listing::Listing;
use crate::{exit_code, interrupt, output};

/// Titles of the fields of something that is damaged.
const TITLES: [(&str, &str); 6] = [
    ("Subject", "SUBJECT"),
    ("Problem", "PROBLEM"),
    ("Loss", "LOSS"),
    ("Images", "IMAGES"),
    ("Repaired", "REPAIRED"),
    ("WayOut", "WAY OUT"),
];

/// Checks the store, and answers 1 when something is damaged.
pub fn run(args: &FsckArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let listing = Listing::parse(args.format.as_deref())?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let checkup = context.engine()?.fsck(args.repair, &cancel)?;
    match listing {
        Some(listing) => output::data(listing.render(&TITLES, &documents(&checkup))?)?,
        None => describe(&checkup)?,
    }
    let is_damaged = checkup.damage.iter().any(|(damage, _)| damage.loss != Loss::Leftover);
    Ok(if is_damaged { exit_code::FAILURE } else { exit_code::SUCCESS })
}

fn documents(checkup: &Checkup) -> Vec<Value> {
    let document = |(damage, repaired): &(rbuild::Damage, bool)| {
        json!({
            "Subject": damage.subject,
            "Problem": damage.problem,
            "Loss": loss(damage.loss),
            "Images": damage.images,
            "Repaired": repaired,
            "WayOut": if *repaired { String::new() } else { damage.way_out() },
        })
    };
    checkup.damage.iter().map(document).collect()
}

fn loss(loss: Loss) -> &'static str {
    match loss {
        Loss::Leftover => "leftover",
        Loss::Cache => "cache",
        Loss::Image => "image",
    }
}

fn describe(checkup: &Checkup) -> Result<(), Failure> {
    for (damage, repaired) in &checkup.damage {
        let mut line = format!("{}: {}: {}", loss(damage.loss), damage.subject, damage.problem);
        if !damage.images.is_empty() {
            line.push_str(&format!(" (needed by {})", damage.images.join(", ")));
        }
        output::line(&output::visible(&line))?;
        match repaired {
            true => output::line("  repaired")?,
            false => output::line(&output::visible(&format!("  hint: {}", damage.way_out())))?,
        }
    }
    let (verified, unverified) = (checkup.verified, checkup.unverified);
    let found = match checkup.damage.len() {
        0 => "nothing is damaged".to_owned(),
        1 => "1 thing is not as it should be".to_owned(),
        count => format!("{count} things are not as they should be"),
    };
    output::line(&format!(
        "{found} (trees compared with their digests: {verified}, without one: {unverified})"
    ))
}
