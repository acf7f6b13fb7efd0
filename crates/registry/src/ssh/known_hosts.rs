//! Which keys hosts have, by files in the format of OpenSSH's `known_hosts` (sshd(8)).
//!
//! Names, patterns and hashed names count; a line that cannot be read counts for nothing, as in
//! OpenSSH. Authorities are not looked at: a host that is known by its certificate only is not
//! known here.

use std::io::Read as _;
use std::path::PathBuf;

use ring::hmac;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::{Algorithm, PublicKey};

/// Bytes of one file that are read.
const MAX_FILE: u64 = 16 << 20;

/// What is known of one host.
#[derive(Debug, Default)]
pub(super) struct KnownKeys {
    trusted: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
}

/// What to think of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the host's.
    Trusted,
    /// Nobody knows the host by a key of this kind.
    Unknown,
    /// The host is known by another key of this kind.
    Other,
    /// It was stolen, or lost.
    Revoked,
}

impl KnownKeys {
    /// Reads what the files say of a host; one that is not there says nothing.
    pub(super) fn read(files: &[PathBuf], host: &str, port: u16) -> std::io::Result<Self> {
        let mut known = Self::default();
        for path in files {
            let file = match fs_err::File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut bytes = Vec::new();
            file.take(MAX_FILE).read_to_end(&mut bytes)?;
            known.add(&String::from_utf8_lossy(&bytes), host, port);
        }
        Ok(known)
    }

    fn add(&mut self, text: &str, host: &str, port: u16) {
        let name = shown(host, port).to_lowercase();
        for line in text.lines() {
            let Ok(entry) = line.trim().parse::<Entry>() else { continue };
            if !names(entry.host_patterns(), &name) {
                continue;
            }
            let key = entry.public_key().clone();
            match entry.marker() {
                None => self.trusted.push(key),
                Some(Marker::Revoked) => self.revoked.push(key),
                Some(Marker::CertAuthority) => {}
            }
        }
    }

    pub(super) fn judge(&self, key: &PublicKey) -> Verdict {
        // Comments are not the key's.
        let is = |known: &&PublicKey| known.key_data() == key.key_data();
        if self.revoked.iter().any(|known| is(&known)) {
            return Verdict::Revoked;
        }
        if self.trusted.iter().any(|known| is(&known)) {
            return Verdict::Trusted;
        }
        match self.trusted.iter().any(|known| known.algorithm() == key.algorithm()) {
            true => Verdict::Other,
            false => Verdict::Unknown,
        }
    }

    /// Whether the host is known by a key of this kind: a server shows one of its keys only.
    pub(super) fn has(&self, kind: &Algorithm) -> bool {
        self.trusted.iter().any(|known| known.algorithm() == *kind)
    }
}

/// A host's name as these files have it.
pub(super) fn shown(host: &str, port: u16) -> String {
    match port {
        super::PORT => host.to_owned(),
        port => format!("[{host}]:{port}"),
    }
}

fn names(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::verify(&key, name.as_bytes(), hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let fits = |pattern: &str| fits(&pattern.to_lowercase(), name);
            let denied = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!'));
            let mut denied = denied.map(fits);
            let mut named = patterns.iter().filter(|pattern| !pattern.starts_with('!'));
            named.any(|pattern| fits(pattern)) && !denied.any(|denied| denied)
        }
    }
}

/// Whether a pattern with `*` and `?` fits the whole name.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut from) = (0, 0);
    // Where to go on after the last star that was passed.
    let mut star = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, from));
                at += 1;
            }
            Some(letter) if *letter == b'?' || Some(letter) == name.get(from) => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((after, seen)) => {
                    star = Some((after, seen + 1));
                    at = after;
                    from = seen + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|letter| *letter == b'*'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";
    const OTHER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    fn judged(text: &str, host: &str, port: u16) -> Verdict {
        let mut known = KnownKeys::default();
        known.add(text, host, port);
        known.judge(&KEY.parse().unwrap())
    }

    #[test]
    fn hosts_are_known_by_names_patterns_and_hashes() {
        for names in
            ["h.example", "a,h.example,b", "*.example", "h.e?ample", "H.EXAMPLE", "*,!x.example"]
        {
            let line = format!("{names} {KEY} me\n");
            assert_eq!(judged(&line, "h.example", 22), Verdict::Trusted, "{names}");
        }
        let hashed = "|1|O33ESRMWPVkMYIwJ1Uw+n877jTo=|nuuC5vEqXlEZ/8BXQR7m619W6Ak=";
        assert_eq!(judged(&format!("{hashed} {KEY}"), "example.com", 22), Verdict::Trusted);
        assert_eq!(judged(&format!("[h]:2222 {KEY}"), "h", 2222), Verdict::Trusted);
        for names in ["h", "[h]:22", "[h]:2223", "*,!*h*"] {
            assert_eq!(judged(&format!("{names} {KEY}"), "h", 2222), Verdict::Unknown, "{names}");
        }
    }

    #[test]
    fn other_and_revoked_keys_are_told_apart() {
        assert_eq!(judged(&format!("h {OTHER}"), "h", 22), Verdict::Other);
        assert_eq!(judged(&format!("h {OTHER}\nh {KEY}"), "h", 22), Verdict::Trusted);
        assert_eq!(judged(&format!("h {KEY}\n@revoked * {KEY}"), "h", 22), Verdict::Revoked);
        assert_eq!(judged(&format!("@cert-authority h {KEY}"), "h", 22), Verdict::Unknown);
        assert_eq!(judged(&format!("# h {KEY}\nrubbish\nh"), "h", 22), Verdict::Unknown);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(\\|1\\|)?[a*?!,@|= \\n]{0,60}", name in "[a*]{0,9}") {
            judged(&text, "a", 22);
            fits(&text, &name);
        }

        #[test]
        fn a_name_fits_itself(name in "[a-c.]{0,9}") {
            let inside = format!("*{name}*");
            prop_assert!(fits(&name, &name) && fits("*", &name) && fits(&inside, &name));
        }
    }
}
