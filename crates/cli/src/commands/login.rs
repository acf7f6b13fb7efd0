//! `rbuild login`.

use std::io::{IsTerminal as _, Read as _, Write as _};

use rbuild::{BuildError, Ctx, Kept, Login, LoginStore, Secret, Silent};

use crate::args::login::LoginArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, interrupt, output};

/// Longest password that is read from standard input, bytes. Tokens have a few thousand.
const MAX_PASSWORD: u64 = 64 << 10;

/// Tries the login at its registry, and keeps it where Docker does.
pub fn run(args: &LoginArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let registry = &context.global.registry;
    if !registry.creds.is_empty() {
        return Err(Failure::usage("--creds: a login has --username and --password-stdin"));
    }
    if context.global.offline(context.environment)? {
        return Err(Failure::usage("a login is tried at its registry, which is not asked offline"));
    }
    let file = registry.login_file(context.environment)?;
    let options = registry.options(context.environment)?;
    let login = Login { user: user(args)?, password: Secret::new(password(args)?) };
    let cancel = interrupt::cancel_on_interrupt()?;
    let store = LoginStore { file: &file, options: &options };
    let kept =
        store.log_in(&args.server, &login, Ctx::new(&Silent, &cancel)).map_err(BuildError::from)?;
    if kept == Kept::InFile {
        output::say(&format!(
            "warning: the password is stored unencrypted in {}; a credential helper \
             (credsStore there) would keep it safe",
            output::visible(&file.display().to_string())
        ));
    }
    output::line("Login Succeeded")?;
    Ok(exit_code::SUCCESS)
}

fn user(args: &LoginArgs) -> Result<String, Failure> {
    match &args.username {
        Some(user) if user.is_empty() => Err(Failure::usage("--username: it is empty")),
        Some(user) => Ok(user.clone()),
        None if args.password_stdin => {
            Err(Failure::usage("--password-stdin needs --username, which could not be asked for"))
        }
        None => {
            ask("Username")?;
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map_err(Failure::io("read the user name"))?;
            match line.trim() {
                "" => Err(Failure::usage("a login needs a user name")),
                user => Ok(user.to_owned()),
            }
        }
    }
}

fn password(args: &LoginArgs) -> Result<String, Failure> {
    let password = if let Some(password) = &args.password {
        output::say("warning: others can see --password; --password-stdin is safer");
        password.clone()
    } else if args.password_stdin {
        let mut text = String::new();
        let mut stdin = std::io::stdin().take(MAX_PASSWORD + 1);
        stdin.read_to_string(&mut text).map_err(Failure::io("read the password"))?;
        if text.len() as u64 > MAX_PASSWORD {
            let most = format!("--password-stdin: more than {MAX_PASSWORD} bytes are no password");
            return Err(Failure::usage(most));
        }
        text.trim_end_matches(['\n', '\r']).to_owned()
    } else {
        ask("Password")?;
        let terminal = console::Term::stderr();
        terminal.read_secure_line().map_err(Failure::io("read the password"))?
    };
    match password.as_str() {
        "" => Err(Failure::usage("a login needs a password")),
        _ => Ok(password),
    }
}

/// Asks for something, if there is somebody to answer.
fn ask(what: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::usage_hint(
            format!("there is no terminal to ask for the {}", what.to_lowercase()),
            "give --username, and the password by --password-stdin",
        ));
    }
    let mut stderr = std::io::stderr();
    // Nobody would see a failure either.
    let _ = write!(stderr, "{what}: ").and_then(|()| stderr.flush());
    Ok(())
}
