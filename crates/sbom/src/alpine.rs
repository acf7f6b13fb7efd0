//! The database of apk.

use crate::lists::{stanzas, text};
use crate::package::{Kind, Package, Take, give};

/// Packages of `installed`: stanzas with names of one letter.
pub fn installed(bytes: &[u8], take: Take<'_>) {
    let read = |stanza: &mut dyn Iterator<Item = (&str, &str)>| {
        let mut package = Package::new(Kind::Apk, "", "");
        for (name, value) in stanza {
            let value = value.to_owned();
            match name {
                "P" => package.name = value,
                "V" => package.version = value,
                "A" => package.architecture = value,
                "L" => package.licences = vec![value],
                "o" => package.upstream = value,
                "m" => package.supplier = value,
                _ => {}
            }
        }
        package
    };
    let text = text(bytes);
    let packages = stanzas(&text).map(|mut stanza| read(&mut stanza));
    give(packages.filter(|package| !package.name.is_empty()), take);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{all, given};

    #[test]
    fn stanzas_are_packages() {
        let text = "C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nm:T <t@a>\nF:lib\n\n\
                    P:libcrypto3\nV:3.1.4-r5\no:openssl\nL:Apache-2.0\n\n";
        let packages = all(|take| installed(text.as_bytes(), take));
        assert_eq!(packages.len(), 2);
        assert_eq!(
            (packages[0].architecture.as_str(), &*packages[0].supplier),
            ("x86_64", "T <t@a>")
        );
        assert_eq!(packages[1].upstream, "openssl");
        assert_eq!(packages[1].licences, ["Apache-2.0"]);
    }

    #[test]
    fn no_more_is_read_than_is_wanted() {
        let text = "P:a\n\n".repeat(100);
        assert_eq!(given(3, |take| installed(text.as_bytes(), take)), 3);
    }
}
