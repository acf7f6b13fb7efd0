//! The header of a package: an index of tags, and the data that they point into.

use std::collections::BTreeMap;

use crate::bytes_at::Order;
use crate::limits;
use crate::lists::text;
use crate::package::{Kind, Package};

const NAME: usize = 1000;
const VERSION: usize = 1001;
const RELEASE: usize = 1002;
const EPOCH: usize = 1003;
const VENDOR: usize = 1011;
const LICENSE: usize = 1014;
const ARCHITECTURE: usize = 1022;
const SOURCE_RPM: usize = 1044;

/// The tags that are asked for.
const TAGS: [usize; 8] = [NAME, VERSION, RELEASE, EPOCH, VENDOR, LICENSE, ARCHITECTURE, SOURCE_RPM];

/// The package that a header describes. Of a tag that is there several times, the first counts: no
/// part of the data is read more often than there are tags.
pub fn header(bytes: &[u8]) -> Option<Package> {
    let count = Order::Big.u32(bytes, 0)?;
    let index = bytes.get(8..count.checked_mul(16)?.checked_add(8)?)?;
    let data = bytes.get(8 + index.len()..)?;
    let mut offsets = BTreeMap::new();
    for entry in index.chunks_exact(16) {
        let (tag, offset) = (Order::Big.u32(entry, 0)?, Order::Big.u32(entry, 8)?);
        if TAGS.contains(&tag) {
            offsets.entry(tag).or_insert(offset);
        }
    }
    let string = |tag| {
        let rest = offsets.get(&tag).and_then(|offset| data.get(*offset..)).unwrap_or_default();
        // One byte more than may be kept tells that it is too long.
        let rest = &rest[..rest.len().min(limits::FIELD + 1)];
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        text(&rest[..end]).into_owned()
    };
    let (version, release) = (string(VERSION), string(RELEASE));
    let epoch = offsets.get(&EPOCH).and_then(|offset| Order::Big.u32(data, *offset));
    let package = Package {
        architecture: string(ARCHITECTURE),
        upstream: string(SOURCE_RPM),
        supplier: string(VENDOR),
        licences: vec![string(LICENSE)],
        ..Package::new(
            Kind::Rpm,
            string(NAME),
            match epoch {
                Some(epoch) => format!("{epoch}:{version}-{release}"),
                None => format!("{version}-{release}"),
            },
        )
    };
    // Keys of those who sign are kept in the form of packages.
    (!package.name.is_empty() && package.name != "gpg-pubkey").then_some(package)
}

#[cfg(test)]
pub(super) fn example(name: &str) -> Vec<u8> {
    let fields = [
        (NAME, name),
        (VERSION, "1.0"),
        (RELEASE, "2.fc40"),
        (ARCHITECTURE, "x86_64"),
        (NAME, "another"),
    ];
    let (mut index, mut data) = (Vec::new(), Vec::new());
    for (tag, value) in fields {
        for number in [tag, 6, data.len(), 1] {
            index.extend(u32::try_from(number).unwrap().to_be_bytes());
        }
        data.extend(value.as_bytes());
        data.push(0);
    }
    for number in [EPOCH, 4, data.len(), 1] {
        index.extend(u32::try_from(number).unwrap().to_be_bytes());
    }
    data.extend(3_u32.to_be_bytes());
    let sizes = [index.len() / 16, data.len()];
    let sizes: Vec<u8> =
        sizes.iter().flat_map(|size| u32::try_from(*size).unwrap().to_be_bytes()).collect();
    [sizes, index, data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_fields() {
        let package = header(&example("curl")).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("curl", "3:1.0-2.fc40"));
        assert_eq!(package.architecture, "x86_64");
        assert!(header(&example("gpg-pubkey")).is_none());
        assert!(header(&[0xff; 64]).is_none());
    }

    #[test]
    fn a_field_that_is_too_long_is_not_read_to_its_end() {
        let package = header(&example(&"n".repeat(limits::FIELD * 10))).unwrap();
        assert_eq!(package.name.len(), limits::FIELD + 1);
    }
}
