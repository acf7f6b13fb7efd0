//! What Bundler locks.

use crate::lists::text;
use crate::package::{Kind, Package};

/// Packages of `Gemfile.lock`: lines of four spaces below `specs:`.
pub fn gemfile_lock(bytes: &[u8]) -> Vec<Package> {
    let text = text(bytes);
    let mut packages = Vec::new();
    let mut in_specs = false;
    for line in text.lines() {
        if !line.starts_with(' ') || line.trim() == "specs:" {
            in_specs = line.trim() == "specs:";
            continue;
        }
        let gem = line.strip_prefix("    ").filter(|line| !line.starts_with(' '));
        if let (true, Some((name, version))) = (in_specs, gem.and_then(|gem| gem.split_once(" (")))
        {
            packages.push(Package::new(Kind::Gem, name, version.trim_end_matches(')')));
        }
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gems_themselves_count() {
        let text = "GEM\n  remote: https://rubygems.org/\n  specs:\n    rack (2.2.3)\n    \
                    sinatra (2.1.0)\n      rack (~> 2.2)\n\nDEPENDENCIES\n  rack\n    no (1)\n";
        let packages = gemfile_lock(text.as_bytes());
        let read: Vec<_> = packages.iter().map(|p| (p.name.as_str(), &*p.version)).collect();
        assert_eq!(read, [("rack", "2.2.3"), ("sinatra", "2.1.0")]);
    }
}
