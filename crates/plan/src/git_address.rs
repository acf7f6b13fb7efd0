//! Where a repository is that is not behind a web server: `git://`, `ssh://`, `user@host:path`.

use crate::url::{self, Url};

/// A server that speaks git's own protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitAddress {
    /// How it is reached.
    pub way: GitWay,
    /// A name or an address; one of IPv6 stands in brackets.
    pub host: String,
    /// The port, where one is given.
    pub port: Option<u16>,
    /// Path of the repository on the server; one that does not begin with `/` is relative to the
    /// user's home.
    pub path: String,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitWay {
    /// By TCP, with neither encryption nor login.
    Git,
    /// By SSH.
    Ssh {
        /// Who logs in.
        user: String,
    },
}

impl GitAddress {
    /// Reads the remote of a [`crate::git_ref::GitRef`]; `None` for a web server's.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(remote: &str) -> Result<Option<Self>, &'static str> {
        let found = match remote.split_once("://") {
            Some(("http" | "https", _)) => return Ok(None),
            Some(_) => of_url(remote)?,
            None => of_scp(remote).ok_or("it is neither a URL nor user@host:path")?,
        };
        if found.host.is_empty() {
            return Err("it names no host");
        }
        if found.path.is_empty() || found.path == "/" {
            return Err("it names no repository");
        }
        if found.path.contains(|letter: char| letter.is_control()) {
            return Err("its path has bytes that none may have");
        }
        Ok(Some(found))
    }
}

fn of_url(remote: &str) -> Result<GitAddress, &'static str> {
    let url = Url::parse(remote).ok_or("it is no URL")?;
    let (user, host) = match url.authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, url.authority),
    };
    // A password is of no use: nobody would type it in.
    let user = user.map(|user| user.split_once(':').map_or(user, |(name, _)| name));
    let user = user.and_then(url::decoded).filter(|user| !user.is_empty());
    let after_brackets = host.rfind(']').unwrap_or_default();
    let (host, port) = match host.rfind(':').filter(|at| *at > after_brackets) {
        Some(at) => (&host[..at], &host[at + 1..]),
        None => (host, ""),
    };
    let port = match port {
        "" => None,
        port => Some(port.parse().map_err(|_| "its port is none")?),
    };
    let path = url::decoded(url.path).ok_or("its path is no text")?;
    let (way, path) = match url.scheme.as_str() {
        "git" => (GitWay::Git, path),
        // As git: `/~user` is a home.
        "ssh" => {
            let path = path.strip_prefix('/').filter(|path| path.starts_with('~')).unwrap_or(&path);
            // Whoever builds is seldom known there.
            let user = user.ok_or("it names no user: ssh://git@HOST/PATH")?;
            (GitWay::Ssh { user }, path.to_owned())
        }
        _ => return Err("its scheme is none of git, ssh, http and https"),
    };
    Ok(GitAddress { way, host: host.to_owned(), port, path })
}

fn of_scp(remote: &str) -> Option<GitAddress> {
    let (user, rest) = remote.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let way = GitWay::Ssh { user: user.to_owned() };
    Some(GitAddress { way, host: host.to_owned(), port: None, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses() {
        let parsed = |remote: &str| {
            let address = GitAddress::parse(remote).unwrap().unwrap();
            let user = match address.way {
                GitWay::Git => "-".to_owned(),
                GitWay::Ssh { user } => user,
            };
            let port = address.port.map(|port| port.to_string()).unwrap_or_default();
            format!("{user} {} {port} {}", address.host, address.path)
        };
        assert_eq!(parsed("git://h/a%20b.git"), "- h  /a b.git");
        assert_eq!(parsed("git://[::1]:1234/x"), "- [::1] 1234 /x");
        assert_eq!(parsed("git@h.example:team/r.git"), "git h.example  team/r.git");
        assert_eq!(parsed("ssh://me:pass@h:22/r"), "me h 22 /r");
        assert_eq!(parsed("ssh://me@h/~you/r"), "me h  ~you/r");
        assert_eq!(GitAddress::parse("https://h/x.git"), Ok(None));
        for bad in [
            "git:///x",
            "git://h",
            "git://h/",
            "git://h:99999/x",
            "ssh://a@h/%00",
            "ssh://h/x",
            "file:///x",
            "x",
        ] {
            assert!(GitAddress::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(git://|ssh://|a@)?[a-z@:\\[\\]/%~.]{0,20}") {
            let _ = GitAddress::parse(&text);
        }
    }
}
