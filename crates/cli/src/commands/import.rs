//! `rbuild import`.

use std::io::Read;

use rbuild::ImageWords;

use crate::args::container::ImportArgs;
use crate::args::transfer;
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, interrupt, output};

/// Makes an image of a tar.
pub fn run(args: &ImportArgs, context: &Context<'_>) -> Result<i32, Failure> {
    if ["http://", "https://"].iter().any(|scheme| args.file.starts_with(scheme)) {
        return Err(Failure::usage_hint(
            "import of a URL is not supported yet",
            "download it and name the file, or pipe it into `rbuild import -`",
        ));
    }
    let platform = transfer::platform(args.platform.as_deref())?;
    let words = ImageWords {
        name: args.name.clone(),
        author: String::new(),
        // Docker's words.
        message: match args.words.message.as_str() {
            "" => format!("Imported from {}", args.file),
            message => message.to_owned(),
        },
        changes: args.words.change.clone(),
    };
    let mut tar: Box<dyn Read> = match args.file.as_str() {
        "-" => Box::new(std::io::stdin().lock()),
        path => {
            let file = fs_err::File::open(path).map_err(Failure::io("read the tar"))?;
            Box::new(std::io::BufReader::new(file))
        }
    };
    let cancel = interrupt::cancel_on_interrupt()?;
    let id = context.engine()?.import_image(&mut tar, platform.as_ref(), &words, &cancel)?;
    output::line(&id.to_string())?;
    Ok(exit_code::SUCCESS)
}
