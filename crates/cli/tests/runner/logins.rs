//! `login` and `logout`, against a registry that lets one user in.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};

use crate::program::Program;

/// base64 of `me:hunter2`.
const ME: &str = "bWU6aHVudGVyMg==";

/// Serves the beginning of the API to `me:hunter2` for as long as the tests run.
fn registry() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<_> =
                lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let known = head.iter().any(|line| line.ends_with(&format!("Basic {ME}")));
            let answer = match known {
                true => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
                false => {
                    "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\
                     Content-Length: 0\r\nConnection: close\r\n\r\n"
                }
            };
            // The client may have gone.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn a_login_is_tried_and_written_where_docker_looks() {
    let (program, server) = (Program::new(), registry());
    let folder = program.context();
    let variables = [("DOCKER_CONFIG", folder.to_str().unwrap())];
    let login = format!("login {server} -u me --password-stdin");
    let config = || fs_err::read_to_string(folder.join("config.json")).unwrap_or_default();

    let wrong = program.run_with(&login, "wrong\n", &variables);
    assert_eq!((wrong.code, config().as_str()), (1, ""), "{wrong:?}");
    assert!(wrong.stderr.contains("does not let me in"), "{wrong:?}");

    let good = program.run_with(&login, "hunter2\n", &variables);
    assert_eq!((good.code, good.stdout.as_str()), (0, "Login Succeeded\n"), "{good:?}");
    assert!(good.stderr.contains("unencrypted") && config().contains(ME), "{good:?}");
    assert!(!good.stderr.contains("hunter2"), "{good:?}");

    let out = program.run_with(&format!("logout {server}"), "", &variables);
    let removed = format!("Removing login credentials for {server}\n");
    assert_eq!((out.code, out.stdout), (0, removed));
    assert!(!config().contains(ME));
    let again = program.run_with(&format!("logout {server}"), "", &variables);
    assert_eq!((again.code, again.stdout), (0, format!("Not logged in to {server}\n")));
}

#[test]
fn the_file_that_is_named_gets_the_login() {
    let (program, server) = (Program::new(), registry());
    let login = |rest: &str, variables: &[(&str, &str)]| {
        let line = format!("login {rest} {server} --username me --password hunter2");
        let outcome = program.run_with(&line, "", variables);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert!(outcome.stderr.contains("--password-stdin is safer"), "{outcome:?}");
    };
    login("--authfile flag.json", &[("REGISTRY_AUTH_FILE", "variable.json")]);
    login("", &[("REGISTRY_AUTH_FILE", "variable.json")]);
    for file in ["flag.json", "variable.json"] {
        let text = fs_err::read_to_string(program.context().join(file)).unwrap();
        assert!(text.contains(ME), "{file}: {text}");
    }
}

#[test]
fn what_is_no_login_says_so() {
    let program = Program::new();
    for (line, part) in [
        ("login -u me", "no terminal"),
        ("login nothing -u me -p x", "no registry's name"),
        ("login --password-stdin", "--username"),
        ("login -u me -p x --password-stdin", "cannot be used with"),
        ("login -u me --password-stdin", "needs a password"),
        ("login --offline -u me -p x", "offline"),
        ("login --creds me:x", "--username"),
        ("pull --creds hunter2 x.example/y", "not of the form"),
        ("pull --authfile nowhere.json x.example/y", "no such file"),
        ("build --creds me:hunter2 -t x.example/y .", "HOST=USER:PASSWORD"),
    ] {
        let outcome = program.run(line);
        assert_eq!(outcome.code, 1, "{line}: {outcome:?}");
        assert!(outcome.stderr.contains(part), "{line}: {outcome:?}");
        assert!(!outcome.stderr.contains("hunter2"), "{line}: {outcome:?}");
    }
    let long = "x".repeat((64 << 10) + 1);
    let outcome = program.run_with("login r.example -u me --password-stdin", &long, &[]);
    assert!(outcome.code == 1 && outcome.stderr.contains("no password"), "{outcome:?}");
}
