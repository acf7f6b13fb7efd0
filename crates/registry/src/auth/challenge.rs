//! Reads `WWW-Authenticate` (RFC 9110, 11.6.1): what a registry wants to see.

/// One accepted way to authenticate. Other schemes are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token from a token server.
    Bearer {
        /// URL of the token server.
        realm: String,
        /// Name of the registry towards the token server.
        service: Option<String>,
        /// What the token should be good for.
        scope: Option<String>,
    },
    /// User name and password with each request.
    Basic,
}

/// Longest header that is looked at, bytes.
const MAX_HEADER: usize = 16 << 10;

/// The challenges of one header, in its order. Never fails: what cannot be read is no challenge.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut schemes: Vec<Scheme> = Vec::new();
    let mut reader = Reader { rest: header.get(..MAX_HEADER).unwrap_or(header) };
    if header.len() > MAX_HEADER {
        return Vec::new();
    }
    while let Some(word) = reader.word() {
        if !reader.take('=') {
            schemes.push(Scheme { name: word.to_ascii_lowercase(), ..Scheme::default() });
            continue;
        }
        let value = reader.value();
        let Some(scheme) = schemes.last_mut() else { continue };
        match word.to_ascii_lowercase().as_str() {
            "realm" => scheme.realm = Some(value),
            "service" => scheme.service = Some(value),
            "scope" => scheme.scope = Some(value),
            _ => {}
        }
    }
    schemes.into_iter().filter_map(Scheme::known).collect()
}

#[derive(Default)]
struct Scheme {
    name: String,
    realm: Option<String>,
    service: Option<String>,
    scope: Option<String>,
}

impl Scheme {
    fn known(self) -> Option<Challenge> {
        match self.name.as_str() {
            "bearer" => Some(Challenge::Bearer {
                realm: self.realm?,
                service: self.service,
                scope: self.scope,
            }),
            "basic" => Some(Challenge::Basic),
            _ => None,
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// The next token, after skipping whatever is none.
    fn word(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start_matches(|letter| !is_token(letter));
        let end = self.rest.find(|letter| !is_token(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.rest.trim_start_matches([' ', '\t']).strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A token or a quoted string; a missing end quote ends at the header's end.
    fn value(&mut self) -> String {
        if !self.take('"') {
            let trimmed = self.rest.trim_start_matches([' ', '\t']);
            let end = trimmed.find([',', ' ', '\t']).unwrap_or(trimmed.len());
            let (value, rest) = trimmed.split_at(end);
            self.rest = rest;
            return value.to_owned();
        }
        let mut value = String::new();
        let mut letters = self.rest.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '"' => break,
                '\\' => value.extend(letters.next()),
                letter => value.push(letter),
            }
        }
        self.rest = letters.as_str();
        value
    }
}

fn is_token(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    #[test]
    fn headers_of_the_field() {
        assert_eq!(
            parse(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/python:pull""#
            ),
            [bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:library/python:pull")
            )]
        );
        assert_eq!(parse(r#"Basic realm="Registry Realm""#), [Challenge::Basic]);
        assert_eq!(
            parse(
                r#"Negotiate, BEARER realm=https://a/t , service="x\"y", basic realm="b, Bearer c=d""#
            ),
            [bearer("https://a/t", Some("x\"y"), None), Challenge::Basic]
        );
        for none in
            ["", "Bearer", "Bearer scope=\"x\"", "realm=\"x\"", "Digest realm=\"x\"", "=,=\""]
        {
            assert_eq!(parse(none), [], "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends(header in ".{0,300}") {
            parse(&header);
        }

        #[test]
        fn near_misses_end(header in "(Bearer|Basic|realm|scope|=|\"|\\\\|,| ){0,60}") {
            parse(&header);
        }

        #[test]
        fn what_is_quoted_comes_back(
            realm in "[ -~]{1,60}", service in "[ -~]{0,60}", before in "(Basic realm=\"x\", )?"
        ) {
            let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!(
                "{before}Bearer realm=\"{}\",service=\"{}\"", quote(&realm), quote(&service)
            );
            let expected = bearer(&realm, Some(&service), None);
            prop_assert_eq!(parse(&header).pop(), Some(expected));
        }
    }
}
