//! `rbuild diff` where a step of a past build is compared: there are files and no documents.

use rbuild::{Silent, Tree, TreeDifference};
use serde_json::{Value, json};

use super::{TITLES, add_contents, file_row, of_files};
use crate::args::diff::DiffArgs;
use crate::args::step::{Subject, is_number};
use crate::args::transfer;
use crate::commands::Context;
use crate::failure::Failure;
use crate::listing::Listing;
use crate::output::visible;
use crate::{exit_code, interrupt, output};

/// The two root filesystems, where a step is one of them. A step alone is compared with what was
/// before it.
pub fn trees(args: &DiffArgs, context: &Context<'_>) -> Result<Option<[Tree; 2]>, Failure> {
    let is_step = |name: &str| name.starts_with('@') || is_number(name);
    if ![Some(&args.before), args.after.as_ref()].into_iter().flatten().any(|name| is_step(name)) {
        return Ok(None);
    }
    let engine = context.engine()?;
    let tree = |name: &str| match is_step(name) {
        true => engine.past_step(name).map(Tree::Step),
        false => Ok(Tree::Image(name.to_owned())),
    };
    Ok(Some(match &args.after {
        Some(after) => [tree(&args.before)?, tree(after)?],
        None => match Subject::find(&engine, &args.before)? {
            Subject::Step(step) => [Tree::Before((*step).clone()), Tree::Step(*step)],
            Subject::Container(_) => return Ok(None),
        },
    }))
}

/// Says in which files they differ.
pub fn compare(
    args: &DiffArgs,
    context: &Context<'_>,
    [before, after]: [Tree; 2],
) -> Result<i32, Failure> {
    let listing = Listing::parse(args.format.as_deref())?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let platform = transfer::platform(args.platform.as_deref())?;
    let engine = context.engine()?;
    let found = engine.diff_trees(&before, &after, platform.as_ref(), &Silent, &cancel)?;
    let mut rows: Vec<Value> = found.files.iter().map(file_row).collect();
    if args.json {
        add_contents(&mut rows, &found.files);
        output::json(&json!({
            "Identical": found.files.is_empty(),
            "Before": found.before,
            "After": found.after,
            "Differences": rows,
            "MoreFiles": found.more_files,
        }))?;
    } else if let Some(listing) = listing {
        output::data(listing.render(&TITLES, &rows)?)?;
    } else if !args.quiet {
        output::data(text(&found))?;
    }
    Ok(match found.files.is_empty() {
        true => exit_code::SUCCESS,
        false => exit_code::FAILURE,
    })
}

fn text(found: &TreeDifference) -> String {
    if found.files.is_empty() {
        return String::new();
    }
    let files = of_files(&found.files, found.more_files);
    format!("--- {}\n+++ {}\n{files}", visible(&found.before), visible(&found.after))
}
