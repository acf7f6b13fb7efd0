//! `rbuild logout`.

use rbuild::{BuildError, Ctx, LoginStore, Silent};

use crate::args::login::LogoutArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, interrupt, output};

/// Forgets a login. That there was none is no error.
pub fn run(args: &LogoutArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let registry = &context.global.registry;
    let file = registry.login_file(context.environment)?;
    let options = registry.options(context.environment)?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let store = LoginStore { file: &file, options: &options };
    let forgotten =
        store.log_out(&args.server, Ctx::new(&Silent, &cancel)).map_err(BuildError::from)?;
    let server = output::visible(&args.server);
    if let Some(error) = forgotten.kept_by_helper {
        output::say(&format!("warning: the credential helper may still have it: {error}"));
    }
    output::line(&match forgotten.found {
        true => format!("Removing login credentials for {server}"),
        false => format!("Not logged in to {server}"),
    })?;
    Ok(exit_code::SUCCESS)
}
