//! How large a store may be.
//!
//! The three numbers, and what they mean together, are those of BuildKit's garbage collection; all
//! are about the whole store, because trees of images and of the cache are the same trees.

use std::path::Path;

/// An amount of disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the file system that the store is on.
    Percent(u8),
}

/// How much a store may take; nothing is limited by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpaceLimits {
    /// Cache is never pruned below this. Alone, it is pruned down to this.
    pub reserved: Option<Space>,
    /// Cache is pruned until the store takes no more than this.
    pub max_used: Option<Space>,
    /// Cache is pruned until the file system has this much left.
    pub min_free: Option<Space>,
}

/// The file system of a store, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

impl Disk {
    /// The one that `path` is on. Of one that says nothing of itself there is plenty.
    pub(crate) fn of(path: &Path) -> Self {
        match rustix::fs::statvfs(path) {
            Ok(fs) => Self {
                total: fs.f_blocks.saturating_mul(fs.f_frsize),
                free: fs.f_bavail.saturating_mul(fs.f_frsize),
            },
            Err(_) => Self { total: u64::MAX, free: u64::MAX },
        }
    }
}

impl Disk {
    /// With what was removed since it was `before`, though the file system may say so only later:
    /// btrfs when it commits, XFS in the background.
    pub(crate) fn without(self, freed: u64, before: Self) -> Self {
        Self { free: self.free.max(before.free.saturating_add(freed)), ..self }
    }
}

impl Space {
    fn bytes(self, disk: Disk) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => disk.total / 100 * u64::from(percent),
        }
    }
}

impl SpaceLimits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Bytes that a store of `used` bytes has too many.
    pub(crate) fn excess(&self, used: u64, disk: Disk) -> u64 {
        let bytes = |space: Option<Space>| space.map(|space| space.bytes(disk));
        let reserved = bytes(self.reserved).unwrap_or(0);
        let keep = match (bytes(self.max_used), bytes(self.min_free)) {
            (None, None) => reserved,
            (max_used, min_free) => {
                let missing = min_free.unwrap_or(0).saturating_sub(disk.free);
                max_used.unwrap_or(used).min(used.saturating_sub(missing))
            }
        };
        used.saturating_sub(keep.max(reserved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_numbers_together() {
        let disk = Disk { total: 1000, free: 100 };
        let excess = |reserved, max_used, min_free| {
            let bytes = |bytes: Option<u64>| bytes.map(Space::Bytes);
            let limits = SpaceLimits {
                reserved: bytes(reserved),
                max_used: bytes(max_used),
                min_free: bytes(min_free),
            };
            limits.excess(500, disk)
        };
        assert_eq!(excess(None, Some(400), None), 100);
        assert_eq!(excess(None, Some(600), None), 0);
        assert_eq!(excess(Some(450), Some(400), None), 50, "reserved wins");
        assert_eq!(excess(Some(450), None, None), 50, "alone it is the goal");
        assert_eq!(excess(None, None, Some(90)), 0);
        assert_eq!(excess(None, None, Some(300)), 200);
        assert_eq!(excess(None, Some(450), Some(300)), 200, "the smaller one");
        assert_eq!(excess(Some(480), Some(450), Some(300)), 20);
        assert_eq!(excess(None, None, Some(9000)), 500);
    }

    #[test]
    fn what_was_removed_is_free_whatever_the_file_system_says_yet() {
        let limits = SpaceLimits { min_free: Some(Space::Bytes(300)), ..Default::default() };
        let disk = |free| Disk { total: 1000, free };
        let (before, freed) = (disk(100), 200);
        for now in [disk(100), disk(250), disk(400)] {
            assert_eq!(limits.excess(300, now.without(freed, before)), 0);
        }
        // What is missing still is the rest only.
        assert_eq!(limits.excess(450, disk(100).without(50, before)), 150);
        assert_eq!(limits.excess(450, disk(120).without(0, disk(100))), 180);
    }

    #[test]
    fn percents_are_of_the_disk() {
        let disk = Disk { total: 1000, free: 100 };
        let limits = SpaceLimits { max_used: Some(Space::Percent(20)), ..Default::default() };
        assert_eq!(limits.excess(500, disk), 300);
        let limits = SpaceLimits { min_free: Some(Space::Percent(15)), ..Default::default() };
        assert_eq!(limits.excess(500, disk), 50);
    }
}
