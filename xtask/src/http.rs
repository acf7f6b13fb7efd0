//! The least that can ask a server on this machine for a page.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};

const LIMIT: Duration = Duration::from_secs(5);

/// The loopback address with this port.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind(loopback(0))?.local_addr()?.port())
}

/// Whether something listens there.
pub(crate) fn answers(port: u16) -> bool {
    TcpStream::connect_timeout(&loopback(port), LIMIT).is_ok()
}

/// The body of `http://127.0.0.1:PORT/PATH`; any status but 200 is a failure.
pub(crate) fn get(port: u16, path: &str) -> Outcome<String> {
    let mut stream = TcpStream::connect_timeout(&loopback(port), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // HTTP/1.0, so that the answer is not chunked and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(Failure::new(format!(
            "http://127.0.0.1:{port}{path} answered `{}`",
            head.lines().next().unwrap_or_default()
        ))),
    }
}

/// Asks again and again until there is an answer.
pub(crate) fn get_within(port: u16, path: &str, patience: Duration) -> Outcome<String> {
    let until = Instant::now() + patience;
    loop {
        match get(port, path) {
            Ok(body) => return Ok(body),
            Err(failure) if Instant::now() > until => return Err(failure),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_and_an_error_is_told() {
        for (answer, expected) in
            [("HTTP/1.0 200 OK\r\n\r\nhi", Some("hi")), ("HTTP/1.0 404 No\r\n\r\n", None)]
        {
            let listener = TcpListener::bind(loopback(0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(get(port, "/").ok().as_deref(), expected);
            server.join().unwrap();
        }
    }
}
