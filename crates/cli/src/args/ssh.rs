//! `--ssh default|id[=socket|key,…]`.

use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rbuild::{BuildRequest, SshAgents};

use crate::environment::Environment;
use crate::failure::Failure;

/// The variable that names the socket of the caller's agent.
const VARIABLE: &str = "SSH_AUTH_SOCK";

/// More than any key file.
const MAX_KEY: u64 = 1 << 20;

/// The agents of a request: the caller's where nothing is said and its context asks for keys, as in
/// docker.
pub fn of_request(
    options: &[String],
    request: &BuildRequest,
    environment: &Environment,
) -> Result<SshAgents, Failure> {
    let implied = options.is_empty() && request.context.needs_ssh();
    match implied && environment.get(VARIABLE).is_some() {
        true => agents(&["default".to_owned()], environment),
        false => agents(options, environment),
    }
}

/// The agents that are asked for. A socket that is not there is better said before the build.
pub fn agents(options: &[String], environment: &Environment) -> Result<SshAgents, Failure> {
    let mut agents = SshAgents::default();
    for option in options {
        add(&mut agents, option, environment)?;
    }
    Ok(agents)
}

fn add(agents: &mut SshAgents, option: &str, environment: &Environment) -> Result<(), Failure> {
    let (id, path) = match option.split_once('=') {
        Some((id, path)) => (id, Some(path).filter(|path| !path.is_empty())),
        None => (option, None),
    };
    // `--ssh =socket` and `--ssh ""` are those of the default agent, as in buildx.
    let id = if id.is_empty() { "default" } else { id };
    let Some(path) = path.or_else(|| environment.get(VARIABLE)) else {
        return Err(Failure::usage_hint(
            format!("--ssh {option}: {VARIABLE} is not set"),
            "start an agent (`eval $(ssh-agent)`, `ssh-add`), or name its socket or a key: --ssh NAME=PATH",
        ));
    };
    let wrong = |why: &str| Failure::usage(format!("--ssh {option}: {why}"));
    let is_socket = |path: &str| {
        fs_err::metadata(Path::new(path))
            .map(|found| found.file_type().is_socket())
            .map_err(|error| wrong(&error.to_string()))
    };
    if is_whole(path) && is_socket(path)? {
        agents.insert(id, path);
        return Ok(());
    }
    let paths: Vec<_> = path.split(',').collect();
    let mut keys = Vec::new();
    for path in &paths {
        if is_socket(path)? {
            return Err(wrong("a socket cannot be one of several: give it a NAME of its own"));
        }
        keys.push(read_key(path).map_err(|error| wrong(&error.to_string()))?);
    }
    agents.insert_keys(id, &keys).map_err(|(number, error)| {
        let path = paths.get(number).copied().unwrap_or_default();
        wrong(&format!("{path}: {error}"))
    })
}

/// Whether there is a file of that name, comma and all.
fn is_whole(path: &str) -> bool {
    !path.contains(',') || Path::new(path).exists()
}

fn read_key(path: &str) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    fs_err::File::open(path)?.take(MAX_KEY).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = include_str!("../../../solver/tests/keys/ed25519");

    #[test]
    fn an_agent_is_a_socket_or_has_keys() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let path = socket.to_str().unwrap();
        let environment = Environment::of(&[("SSH_AUTH_SOCK", path)]);
        let key = directory.path().join("id_ed25519");
        fs_err::write(&key, KEY).unwrap();
        let key = key.display();
        let of = |options: &[&str]| {
            let options: Vec<_> = options.iter().map(ToString::to_string).collect();
            agents(&options, &environment).map(|agents| format!("{agents:?}"))
        };
        let shown = of(&["default", &format!("a={path}"), &format!("b={key},{key}")]).unwrap();
        for part in
            ["\"default\": Socket", "\"a\": Socket", "\"b\": Keys([Key(\"test ed25519\"), Key"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert_eq!(of(&["", "x="]).unwrap().matches("Socket").count(), 2);
        let message = |option: &str, environment: &Environment| match agents(
            &[option.to_owned()],
            environment,
        ) {
            Err(Failure::Usage { message, .. }) => message,
            other => panic!("{option}: {other:?}"),
        };
        let unset = message("default", &Environment::of(&[]));
        assert_eq!(unset, "--ssh default: SSH_AUTH_SOCK is not set");
        assert!(message("a=/not/there", &environment).contains("/not/there"));
        assert!(message(&format!("a={key},{path}"), &environment).contains("one of several"));
        let wrong = directory.path().join("wrong");
        fs_err::write(&wrong, "no key").unwrap();
        let told = message(&format!("a={}", wrong.display()), &environment);
        assert!(told.contains("no private key in OpenSSH's format"), "{told}");
    }
}
