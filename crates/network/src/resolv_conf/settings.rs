//! What `--dns`, `--dns-search` and `--dns-option` give.

use super::Nameserver;

/// What is to take the place of what the host's `resolv.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// Nameservers; the host's if there are none.
    pub(super) servers: Vec<Nameserver>,
    /// Domains in which short names are looked for.
    pub(super) search: Vec<String>,
    /// Options of the container's resolver library.
    pub(super) options: Vec<String>,
}

/// Why a setting cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsSettingsError {
    /// A nameserver that is no address.
    #[error("invalid --dns {server}: not an IP address")]
    Server {
        /// It.
        server: String,
    },
    /// What is no domain.
    #[error("invalid --dns-search {domain}: not a domain (\".\" alone asks for none)")]
    Search {
        /// It.
        domain: String,
    },
    /// An option that would be several, or none.
    #[error("invalid --dns-option {option:?}: not one word")]
    Option {
        /// It.
        option: String,
    },
}

impl DnsSettings {
    /// Takes the values of the three flags.
    ///
    /// # Errors
    ///
    /// When one of them would be something else in the file than it was meant to be.
    pub fn parse<S: AsRef<str>>(
        servers: &[S],
        search: &[S],
        options: &[S],
    ) -> Result<Self, DnsSettingsError> {
        let server = |text: &S| {
            let text = text.as_ref().trim();
            // A zone would be written into the file as it is.
            let is_word = !text.contains(char::is_whitespace);
            let server = is_word.then(|| text.parse().ok()).flatten();
            server.ok_or_else(|| DnsSettingsError::Server { server: text.to_owned() })
        };
        let domain = |text: &S| {
            let text = text.as_ref().trim();
            match text == "." || is_domain(text) {
                true => Ok(text.to_owned()),
                false => Err(DnsSettingsError::Search { domain: text.to_owned() }),
            }
        };
        let option = |text: &S| {
            let option = text.as_ref().to_owned();
            match option.is_empty()
                || option.contains(|c: char| c.is_whitespace() || c.is_control())
            {
                true => Err(DnsSettingsError::Option { option }),
                false => Ok(option),
            }
        };
        Ok(Self {
            servers: servers.iter().map(server).collect::<Result<_, _>>()?,
            search: search.iter().map(domain).collect::<Result<_, _>>()?,
            options: options.iter().map(option).collect::<Result<_, _>>()?,
        })
    }
}

/// As Docker's command line sees it: labels of letters, digits and hyphens, one letter at least.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        is_edge(bytes.first()) && is_edge(bytes.last()) && bytes.iter().all(|b| is_inner(*b))
    };
    let labels = text.strip_suffix('.').unwrap_or(text);
    text.len() < 255
        && text.contains(|c: char| c.is_ascii_alphabetic())
        && labels.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_something_else_in_the_file_is_refused() {
        for (servers, search, options) in [
            (&["dns.google"][..], &[][..], &[][..]),
            (&["1.1.1"], &[], &[]),
            (&["fe80::1%a b"], &[], &[]),
            (&["fe80::1%a\nsearch x"], &[], &[]),
            (&[], &["-a.com"], &[]),
            (&[], &["a..com"], &[]),
            (&[], &["1.2"], &[]),
            (&[], &["a b"], &[]),
            (&[], &[""], &[]),
            (&[], &[], &[""]),
            (&[], &[], &["a b"]),
            (&[], &[], &["a\nnameserver 1.1.1.1"]),
        ] {
            let error = DnsSettings::parse(servers, search, options);
            assert!(error.is_err(), "{servers:?} {search:?} {options:?}");
        }
        let fine = DnsSettings::parse(
            &["1.1.1.1", "fe80::1%eth0"],
            &["example.com.", " a-b ", "."],
            &["ndots:2", "single-request-reopen"],
        );
        assert_eq!(fine.unwrap().search, ["example.com.", "a-b", "."]);
    }
}
