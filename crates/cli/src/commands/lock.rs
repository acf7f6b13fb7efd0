//! `rbuild lock`.

use rbuild::Silent;

use crate::args::lock::LockArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::visible;
use crate::{exit_code, interrupt, output};

/// Writes the lock file, and says what moved.
pub fn run(args: &LockArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let request = args.request(context.environment)?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let locked = context.engine()?.lock(&request, &Silent, &cancel)?;
    for change in &locked.changes {
        let before = change.before.as_deref().unwrap_or("new");
        let after = change.after.as_deref().unwrap_or("gone");
        output::say(&visible(&format!("{}: {before} → {after}", change.reference)));
    }
    let (path, references) = (locked.path.display(), locked.references);
    let references = match references {
        1 => "1 reference".to_owned(),
        many => format!("{many} references"),
    };
    output::say(&visible(&format!("{path}: {references}, {} changed", locked.changes.len())));
    Ok(exit_code::SUCCESS)
}
