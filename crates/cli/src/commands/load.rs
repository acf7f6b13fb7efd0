//! `rbuild load`.

use std::io::IsTerminal as _;

use rbuild::LoadSource;

use crate::args::transfer::{self, LoadArgs};
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, interrupt, output};

/// Loads, and says what the images are called.
pub fn run(args: &LoadArgs, context: &Context<'_>) -> Result<i32, Failure> {
    args.other.settle()?;
    let platform = transfer::platform(args.platform.as_deref())?;
    let source = match args.path() {
        Some(path) => LoadSource::Path(path.clone()),
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::usage_hint(
                "there is nothing to load at standard input, which is a terminal",
                "name an archive: rbuild load -i FILE",
            ));
        }
        None => LoadSource::Stream(Box::new(std::io::stdin().lock())),
    };
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = context.engine()?;
    let loaded = context.shown(args.quiet, |progress| {
        engine.load_images(source, platform.as_ref(), progress, &cancel)
    });
    for image in loaded? {
        let names: Vec<String> = image.names.iter().map(rbuild::Reference::familiar).collect();
        let (what, names) = match names.is_empty() {
            true => ("Loaded image ID", vec![image.id.to_string()]),
            false => ("Loaded image", names),
        };
        for name in names {
            match args.quiet {
                true => output::line(&name)?,
                false => output::line(&format!("{what}: {name}"))?,
            }
        }
    }
    Ok(exit_code::SUCCESS)
}
