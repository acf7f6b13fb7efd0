//! What RubyGems installs and Bundler locks.

use crate::lists::text;
use crate::package::{Kind, Package, Take};

/// Packages of `Gemfile.lock`: lines of four spaces below `specs:`.
pub fn gemfile_lock(bytes: &[u8], take: Take<'_>) {
    let text = text(bytes);
    let mut in_specs = false;
    for line in text.lines() {
        if !line.starts_with(' ') || line.trim() == "specs:" {
            in_specs = line.trim() == "specs:";
            continue;
        }
        let gem = line.strip_prefix("    ").filter(|line| !line.starts_with(' '));
        if let (true, Some((name, version))) = (in_specs, gem.and_then(|gem| gem.split_once(" (")))
        {
            let version = version.trim_end_matches(')');
            if !take(Package::new(Kind::Gem, name, version)) {
                return;
            }
        }
    }
}

/// The gem whose specification a file is: `name-1.0.gemspec`, perhaps with a platform behind the
/// version. What is in the file is a program.
pub fn installed(file: &str) -> Option<Package> {
    let gem = file.strip_suffix(".gemspec")?;
    let mut dashes = gem.match_indices('-').map(|(at, _)| at);
    let is_version = |at: &usize| gem[at + 1..].starts_with(|letter: char| letter.is_ascii_digit());
    let at = dashes.find(is_version)?;
    let version = gem[at + 1..].split('-').next().unwrap_or_default();
    Some(Package::new(Kind::Gem, &gem[..at], version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{all, given};

    #[test]
    fn the_name_of_a_specification_is_all_that_is_needed() {
        let read = |file| installed(file).map(|gem| (gem.name, gem.version));
        let gem = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        assert_eq!(read("aws-sdk-s3-1.114.0.gemspec"), gem("aws-sdk-s3", "1.114.0"));
        assert_eq!(read("nokogiri-1.15.4-x86_64-linux.gemspec"), gem("nokogiri", "1.15.4"));
        assert_eq!(read("no.gemspec"), None);
    }

    #[test]
    fn only_gems_themselves_count() {
        let text = "GEM\n  remote: https://rubygems.org/\n  specs:\n    rack (2.2.3)\n    \
                    sinatra (2.1.0)\n      rack (~> 2.2)\n\nDEPENDENCIES\n  rack\n    no (1)\n";
        let packages = all(|take| gemfile_lock(text.as_bytes(), take));
        let read: Vec<_> = packages.iter().map(|p| (p.name.as_str(), &*p.version)).collect();
        assert_eq!(read, [("rack", "2.2.3"), ("sinatra", "2.1.0")]);
        assert_eq!(given(1, |take| gemfile_lock(text.as_bytes(), take)), 1);
    }
}
