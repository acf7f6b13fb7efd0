//! As much of URLs as a Dockerfile's sources need; what a URL means to a server is the client's
//! business.

/// A URL in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    /// In lower case.
    pub(crate) scheme: String,
    /// With user and port, as written.
    pub(crate) authority: &'a str,
    /// From the first `/`, as written; may be empty.
    pub(crate) path: &'a str,
    /// As written.
    pub(crate) query: Option<&'a str>,
    /// Decoded.
    pub(crate) fragment: String,
}

impl<'a> Url<'a> {
    /// Splits `scheme://authority/path?query#fragment`; `None` when it is none.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        if text.contains(|letter: char| letter.is_ascii_control()) {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let port = host.rsplit(']').next().unwrap_or_default().rsplit_once(':');
        let no_port = port.is_some_and(|(_, port)| !port.bytes().all(|one| one.is_ascii_digit()));
        if no_port || host.contains(|letter: char| " \"<>\\^`{|}".contains(letter)) {
            return None;
        }
        decoded(path)?;
        let fragment = decoded(fragment)?;
        Some(Self { scheme: scheme.to_lowercase(), authority, path, query, fragment })
    }

    /// The name of the file that the path leads to, decoded; `None` when it leads to none.
    pub(crate) fn file_name(&self) -> Option<String> {
        let path = decoded(self.path)?;
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        (!name.is_empty()).then(|| name.to_owned())
    }
}

/// `text` with `%XX` undone; `None` when that gives no text.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// The pairs of a query, decoded. As in Go, what cannot be read is left out.
pub(crate) fn query_pairs(query: &str) -> Vec<(String, String)> {
    let pair = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let plain = |text: &str| decoded(&text.replace('+', " "));
        Some((plain(key)?, plain(value)?))
    };
    query
        .split('&')
        .filter(|text| !text.is_empty() && !text.contains(';'))
        .filter_map(pair)
        .collect()
}

/// A text with the passwords of its URLs replaced, for whatever is shown or kept.
pub fn without_passwords(text: &str) -> String {
    with_users(text, |_, user| match user.split_once(':') {
        Some((name, _)) => format!("{name}:xxxxx@"),
        None => format!("{user}@"),
    })
}

/// A text without the users of its web URLs, who may be tokens, and without passwords, for what
/// everybody reads.
pub fn without_users(text: &str) -> String {
    with_users(text, |before, user| {
        let is_web = before.ends_with("http://") || before.ends_with("https://");
        match (is_web, user.split_once(':')) {
            (true, _) => String::new(),
            (false, Some((name, _))) => format!("{name}:xxxxx@"),
            (false, None) => format!("{user}@"),
        }
    })
}

/// A text in which `change` says what stands for the user of each URL, `@` included; it is given
/// what lies between the URL before and the user, scheme included.
fn with_users(text: &str, change: impl Fn(&str, &str) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|letter: char| "/?#".contains(letter) || letter.is_whitespace());
        let (authority, behind) = after.split_at(end.unwrap_or(after.len()));
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                out.push_str(&change(before, user));
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_names() {
        let url = Url::parse("HTTPS://u:p@h:80/a%20b/c?x=1#f%3a").unwrap();
        assert_eq!(
            (url.scheme.as_str(), url.authority, url.path),
            ("https", "u:p@h:80", "/a%20b/c")
        );
        assert_eq!((url.query, url.fragment.as_str()), (Some("x=1"), "f:"));
        let name = |text: &str| Url::parse(text).and_then(|url| url.file_name());
        assert_eq!(name("http://h/a/b%2ac?q#f").as_deref(), Some("b*c"));
        assert_eq!(name("http://h/a/b/").as_deref(), Some("b"));
        assert_eq!(name("http://h/a%2Fb").as_deref(), Some("b"));
        assert_eq!(
            (name("http://h"), name("http://h/"), name("http://h?x=/y")),
            (None, None, None)
        );
        for bad in
            ["http://h/%", "http://h/%zz", "http://h/%ff", "http://h:x/", "http://a b/", "h/x"]
        {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = without_passwords("ADD https://u:p@h/x http://t@h/ https://h/a@b:c /d@e");
        assert_eq!(shown, "ADD https://u:xxxxx@h/x http://t@h/ https://h/a@b:c /d@e");
        assert_eq!(without_passwords("://:@"), "://:xxxxx@");
    }

    #[test]
    fn users_are_left_out() {
        for (url, kept) in [
            ("https://token@h:1/a@b?c@d#e", "https://h:1/a@b?c@d#e"),
            ("http://u:p@h", "http://h"),
            ("https://h/x", "https://h/x"),
            ("ssh://git:p@h/r.git", "ssh://git:xxxxx@h/r.git"),
            ("git@h:r.git", "git@h:r.git"),
            ("a=https://t@h b=\"http://u:p@h/x\"", "a=https://h b=\"http://h/x\""),
        ] {
            assert_eq!(without_users(url), kept);
        }
    }
}
