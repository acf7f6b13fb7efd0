//! The database of apk.

use crate::lists::{stanzas, text};
use crate::package::{Kind, Package};

/// Packages of `installed`: stanzas with names of one letter.
pub fn installed(bytes: &[u8]) -> Vec<Package> {
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
    let packages = stanzas(&text(bytes)).map(|mut stanza| read(&mut stanza)).collect::<Vec<_>>();
    packages.into_iter().filter(|package| !package.name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_packages() {
        let text = "C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nm:T <t@a>\nF:lib\n\n\
                    P:libcrypto3\nV:3.1.4-r5\no:openssl\nL:Apache-2.0\n\n";
        let packages = installed(text.as_bytes());
        assert_eq!(packages.len(), 2);
        assert_eq!(
            (packages[0].architecture.as_str(), &*packages[0].supplier),
            ("x86_64", "T <t@a>")
        );
        assert_eq!(packages[1].upstream, "openssl");
        assert_eq!(packages[1].licences, ["Apache-2.0"]);
    }
}
