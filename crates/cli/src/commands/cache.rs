//! `rbuild cache`: cache mounts as objects of their own.

use std::path::Path;

use rbuild::{BuildError, CacheMount, CopyOptions, Destination, Engine};
use serde_json::{Value, json};

use crate::args::cache::{
    CacheArgs, CacheCommand, CpArgs, ExportArgs, ImportArgs, InspectArgs, LsArgs, RmArgs,
};
use crate::commands::Context;
use crate::failure::Failure;
use crate::listing::Listing;
use crate::table::Table;
use crate::template::Template;
use crate::{exit_code, human, interrupt, output};

/// Titles of the fields that a cache mount has.
const TITLES: [(&str, &str); 12] = [
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Mode", "MODE"),
    ("Uid", "UID"),
    ("Gid", "GID"),
    ("Seeded", "SEEDED"),
    ("CreatedAt", "CREATED AT"),
    ("LastUsedAt", "LAST USED AT"),
    ("LastUsedSince", "LAST USED"),
    ("InUse", "IN USE"),
    ("Size", "SIZE"),
    ("Bytes", "BYTES"),
];

/// Does what its command says.
pub fn run(args: &CacheArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let engine = context.engine()?;
    match &args.command {
        CacheCommand::Ls(args) => list(args, &engine)?,
        CacheCommand::Inspect(args) => inspect(args, &engine)?,
        CacheCommand::Cp(args) => copy(args, &engine)?,
        CacheCommand::Export(args) => export(args, &engine)?,
        CacheCommand::Import(args) => import(args, &engine)?,
        CacheCommand::Rm(args) => remove(args, &engine)?,
    }
    Ok(exit_code::SUCCESS)
}

fn list(args: &LsArgs, engine: &Engine) -> Result<(), Failure> {
    let listing = Listing::parse(args.format.as_deref())?;
    let caches = engine.caches()?;
    let now = human::now();
    if let Some(listing) = listing {
        let rows: Vec<_> = caches.iter().map(|cache| document(cache, now)).collect();
        return output::data(listing.render(&TITLES, &rows)?);
    }
    if args.quiet {
        return caches.iter().try_for_each(|cache| output::line(meant(cache)));
    }
    let mut table = Table::new(&["ID", "NAME", "SIZE", "LAST USED"]);
    for cache in &caches {
        table.row(&[
            if cache.id.is_empty() { "<unknown>" } else { &cache.id },
            cache.name.get(..SHORT_NAME).unwrap_or(&cache.name),
            &human::bytes(cache.bytes),
            &human::ago(cache.last_used, now),
        ]);
    }
    output::data(table.render())
}

/// Letters of a name that tell one cache mount from another.
const SHORT_NAME: usize = "cache-".len() + 12;

/// The id, or the name of a cache mount whose id is not known.
fn meant(cache: &CacheMount) -> &str {
    if cache.id.is_empty() { &cache.name } else { &cache.id }
}

fn document(cache: &CacheMount, now: i64) -> Value {
    json!({
        "ID": cache.id,
        "Name": cache.name,
        "Mode": format!("{:04o}", cache.mode),
        "Uid": cache.uid,
        "Gid": cache.gid,
        "Seeded": cache.seeded,
        "CreatedAt": human::timestamp(cache.created),
        "LastUsedAt": human::timestamp(cache.last_used),
        "LastUsedSince": human::ago(cache.last_used, now),
        "InUse": cache.in_use,
        "Size": human::bytes(cache.bytes),
        "Bytes": cache.bytes,
    })
}

fn inspect(args: &InspectArgs, engine: &Engine) -> Result<(), Failure> {
    let now = human::now();
    let found = args.ids.iter().map(|id| Ok(document(&engine.cache(id)?, now)));
    let documents = found.collect::<Result<Vec<_>, Failure>>()?;
    match &args.format {
        None => output::json(&Value::from(documents)),
        Some(format) => {
            let template = Template::parse(format)?;
            documents.iter().try_for_each(|it| output::line(&template.render(it)?))
        }
    }
}

fn copy(args: &CpArgs, engine: &Engine) -> Result<(), Failure> {
    let (from, to) = args.places()?;
    // Unlike `docker cp`: what is kept there is what it leads to.
    let options = CopyOptions { archive: args.archive, follow: true };
    let cancel = interrupt::cancel_on_interrupt()?;
    Ok(engine.copy_files(&from, &to, options, &cancel)?)
}

fn export(args: &ExportArgs, engine: &Engine) -> Result<(), Failure> {
    let destination = match is_standard(&args.output) {
        true => Destination::Stdout,
        false => Destination::File(args.output.clone()),
    };
    let cancel = interrupt::cancel_on_interrupt()?;
    Ok(engine.export_cache(&args.id, &destination, &cancel)?)
}

fn import(args: &ImportArgs, engine: &Engine) -> Result<(), Failure> {
    let cancel = interrupt::cancel_on_interrupt()?;
    if is_standard(&args.file) {
        return Ok(engine.import_cache(&args.id, &mut std::io::stdin().lock(), &cancel)?);
    }
    let file = fs_err::File::open(&args.file).map_err(Failure::io("read the tar"))?;
    Ok(engine.import_cache(&args.id, &mut std::io::BufReader::new(file), &cancel)?)
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn remove(args: &RmArgs, engine: &Engine) -> Result<(), Failure> {
    for id in &args.ids {
        match engine.remove_cache(id) {
            Err(BuildError::NoSuchCache { .. }) if args.force => {}
            removed => output::line(meant(&removed?))?,
        }
    }
    Ok(())
}
