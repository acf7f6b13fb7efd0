//! `--ssh default|id[=socket]`.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rbuild::SshAgents;

use crate::environment::Environment;
use crate::failure::Failure;

/// The variable that names the socket of the caller's agent.
const VARIABLE: &str = "SSH_AUTH_SOCK";

/// The agents that are asked for. A socket that is not there is better said before the build.
pub fn agents(options: &[String], environment: &Environment) -> Result<SshAgents, Failure> {
    let mut agents = SshAgents::default();
    for option in options {
        let (id, socket) = agent(option, environment)?;
        agents.insert(id, socket);
    }
    Ok(agents)
}

fn agent(option: &str, environment: &Environment) -> Result<(String, PathBuf), Failure> {
    let (id, path) = match option.split_once('=') {
        Some((id, path)) => (id, Some(path).filter(|path| !path.is_empty())),
        None => (option, None),
    };
    // `--ssh =socket` and `--ssh ""` are those of the default agent, as in buildx.
    let id = if id.is_empty() { "default" } else { id };
    let Some(path) = path.or_else(|| environment.get(VARIABLE)) else {
        return Err(Failure::usage_hint(
            format!("--ssh {option}: {VARIABLE} is not set"),
            "start an agent (`eval $(ssh-agent)`, `ssh-add`), or name its socket: --ssh NAME=SOCKET",
        ));
    };
    let wrong = |why: &str| {
        Failure::usage_hint(
            format!("--ssh {option}: {why}"),
            "add keys to an agent with `ssh-add` and give its socket: --ssh NAME=SOCKET",
        )
    };
    if path.contains(',') {
        return Err(wrong("key files are not supported yet"));
    }
    match fs_err::metadata(Path::new(path)) {
        Ok(found) if found.file_type().is_socket() => Ok((id.to_owned(), path.into())),
        Ok(_) => Err(wrong(&format!("{path} is not a socket; key files are not supported yet"))),
        Err(error) => Err(wrong(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_has_a_name_and_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let path = socket.to_str().unwrap();
        let environment = Environment::of(&[("SSH_AUTH_SOCK", path)]);
        let of = |option: &str| agent(option, &environment).map(|(id, _)| id);
        assert_eq!(of("default").unwrap(), "default");
        assert_eq!(of("").unwrap(), "default");
        assert_eq!(of("github=").unwrap(), "github");
        assert_eq!(of(&format!("github={path}")).unwrap(), "github");
        let message = |option: &str, environment: &Environment| match agent(option, environment) {
            Err(Failure::Usage { message, .. }) => message,
            other => panic!("{option}: {other:?}"),
        };
        let unset = message("default", &Environment::of(&[]));
        assert_eq!(unset, "--ssh default: SSH_AUTH_SOCK is not set");
        let key = directory.path().join("id_ed25519");
        fs_err::write(&key, "key").unwrap();
        for option in [format!("a={}", key.display()), "a=one,two".to_owned()] {
            assert!(message(&option, &environment).contains("key files are not supported yet"));
        }
        assert!(message("a=/not/there", &environment).contains("/not/there"));
    }
}
