//! `/etc/os-release`: what the packages of a distribution belong to.

use rbuild_rooted::Root;

use crate::limits;
use crate::lists::text;

/// The distribution of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Distro {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `VERSION_ID`, such as `12`; rolling distributions have none.
    pub version: String,
    /// `PRETTY_NAME`.
    pub name: String,
}

impl Distro {
    pub(crate) fn of(root: &Root) -> Option<Self> {
        let places = ["etc/os-release", "usr/lib/os-release"];
        let bytes = places.iter().find_map(|at| root.read_small(at, limits::DESCRIPTION).ok())?;
        let distro = Self::parse(&text(&bytes));
        (!distro.id.is_empty()).then_some(distro)
    }

    fn parse(text: &str) -> Self {
        let mut distro = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once('=') else { continue };
            let value = value.trim().trim_matches(['"', '\'']);
            if value.len() > limits::FIELD {
                continue;
            }
            match name.trim() {
                "ID" => distro.id = value.to_owned(),
                "VERSION_ID" => distro.version = value.to_owned(),
                "PRETTY_NAME" => distro.name = value.to_owned(),
                _ => {}
            }
        }
        distro
    }

    /// As package URLs say it: `debian-12`.
    pub(crate) fn qualifier(&self) -> String {
        match self.version.as_str() {
            "" => self.id.clone(),
            version => format!("{}-{version}", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_left_out() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID='12'\n";
        let distro = Distro::parse(text);
        assert_eq!(distro.qualifier(), "debian-12");
        assert_eq!(distro.name, "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(Distro::parse("ID=arch").qualifier(), "arch");
    }
}
