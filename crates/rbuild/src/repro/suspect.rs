//! Rules that know why a file differs. The first one that applies counts; most are about one path
//! or one format, those about any text come last.

use std::ops::Range;

use rbuild_rooted::FileKind;

use super::cause::Cause;
use super::{elf, members};
use crate::inspect::{Aspect, FileDifference};

/// What is known of a difference.
pub(crate) struct Suspect<'a> {
    pub(crate) difference: &'a FileDifference,
    /// Both contents, where both are regular files that are not too large.
    pub(crate) contents: Option<(&'a [u8], &'a [u8])>,
    /// Host names of the steps of the two builds.
    pub(crate) host_names: (&'a str, &'a str),
    /// All differences of the layer, for names that are there once in each build.
    pub(crate) all: &'a [FileDifference],
}

/// Bytes around the first difference that text is looked for in.
const AROUND: usize = 80;

type Rule = (fn(&Suspect<'_>) -> bool, Cause);

const RULES: [Rule; 16] = [
    (only_the_time_differs, Cause::FileTime),
    (|it| it.is_below("var/log/"), Cause::Log),
    (|it| it.path() == b"var/cache/ldconfig/aux-cache", Cause::LoaderCache),
    (|it| it.is_below("var/lib/apt/lists/") || it.is_below("var/cache/apt/"), Cause::AptCache),
    (is_machine_id, Cause::MachineId),
    (is_ssh_host_key, Cause::SshHostKey),
    (only_the_day_of_passwords_differs, Cause::PasswordDay),
    (is_backup, Cause::Backup),
    (|it| it.name().ends_with(b".pyc") && it.differs_first_in(8..12), Cause::PycTime),
    (only_the_time_in_gzip_differs, Cause::GzipTime),
    (only_the_build_id_differs, Cause::BuildId),
    (only_the_order_of_members_differs, Cause::ArchiveOrder),
    (times_of_members_differ, Cause::ArchiveTime),
    (holds_the_host_name, Cause::HostName),
    (has_a_counterpart_of_another_name, Cause::RandomName),
    (holds_the_time, Cause::TimeInContent),
];

/// Why it differs, if that is known.
pub(crate) fn cause(suspect: &Suspect<'_>) -> Option<Cause> {
    RULES.iter().find(|(applies, _)| applies(suspect)).map(|(_, cause)| *cause)
}

impl Suspect<'_> {
    fn path(&self) -> &[u8] {
        &self.difference.path
    }

    fn name(&self) -> &[u8] {
        self.path().rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    fn is_below(&self, directory: &str) -> bool {
        self.path().starts_with(directory.as_bytes())
    }

    fn differs_first_in(&self, range: Range<u64>) -> bool {
        let content = self.difference.content.as_ref();
        content.is_some_and(|content| range.contains(&content.offset))
    }

    /// Both contents around the first difference.
    fn window(&self) -> Option<(&[u8], &[u8])> {
        let (before, after) = self.contents?;
        let offset = usize::try_from(self.difference.content.as_ref()?.offset).ok()?;
        let start = offset.saturating_sub(AROUND);
        let cut = |bytes: &'_ [u8]| -> Range<usize> { start..(offset + AROUND).min(bytes.len()) };
        Some((before.get(cut(before))?, after.get(cut(after))?))
    }

    /// Whether the contents differ, and nowhere but there.
    fn differs_only_in(&self, ranges: &[Range<usize>]) -> bool {
        let Some((before, after)) = self.contents else { return false };
        let mut places = before.iter().zip(after).enumerate().filter(|(_, (a, b))| a != b);
        let inside = |at: usize| ranges.iter().any(|range| range.contains(&at));
        before.len() == after.len() && before != after && places.all(|(at, _)| inside(at))
    }
}

fn only_the_time_differs(it: &Suspect<'_>) -> bool {
    it.difference.aspects == [Aspect::Time]
}

fn is_machine_id(it: &Suspect<'_>) -> bool {
    [b"etc/machine-id".as_slice(), b"var/lib/dbus/machine-id"].contains(&it.path())
}

fn is_ssh_host_key(it: &Suspect<'_>) -> bool {
    it.is_below("etc/ssh/") && it.name().starts_with(b"ssh_host_")
}

/// `passwd-` and relatives, `status-old` and whatever else dpkg and debconf keep.
fn is_backup(it: &Suspect<'_>) -> bool {
    let of_users = ["etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-"];
    let of_packages = it.is_below("var/lib/dpkg/") || it.is_below("var/cache/debconf/");
    (of_packages && it.name().ends_with(b"-old"))
        || of_users.iter().any(|path| path.as_bytes() == it.path())
        || it.path() == b"etc/subgid-"
}

fn only_the_day_of_passwords_differs(it: &Suspect<'_>) -> bool {
    if !matches!(it.path(), b"etc/shadow" | b"etc/shadow-") {
        return false;
    }
    let Some((before, after)) = it.contents else { return false };
    let without_day = |bytes: &[u8]| -> Vec<Vec<Vec<u8>>> {
        let lines = bytes.split(|byte| *byte == b'\n');
        let fields = lines.map(|line| line.split(|byte| *byte == b':'));
        fields
            .map(|fields| {
                let others = fields.enumerate().filter(|(index, _)| *index != 2);
                others.map(|(_, field)| field.to_vec()).collect()
            })
            .collect()
    };
    before != after && without_day(before) == without_day(after)
}

/// Bytes 4 to 7 of RFC 1952.
fn only_the_time_in_gzip_differs(it: &Suspect<'_>) -> bool {
    it.contents.is_some_and(|(before, _)| before.starts_with(b"\x1f\x8b"))
        && it.differs_only_in(std::slice::from_ref(&(4..8)))
}

fn only_the_build_id_differs(it: &Suspect<'_>) -> bool {
    let ids = it.contents.map(|(before, _)| elf::build_ids(before));
    ids.is_some_and(|ids| it.differs_only_in(&ids))
}

fn only_the_order_of_members_differs(it: &Suspect<'_>) -> bool {
    let Some((before, after)) = members_of(it) else { return false };
    let names = |members: &[members::Member]| -> Vec<(Vec<u8>, u64)> {
        members.iter().map(|member| (member.name.clone(), member.size)).collect()
    };
    let (before, after) = (names(&before), names(&after));
    let sorted = |mut names: Vec<(Vec<u8>, u64)>| {
        names.sort();
        names
    };
    before != after && sorted(before) == sorted(after)
}

fn times_of_members_differ(it: &Suspect<'_>) -> bool {
    let Some((before, after)) = members_of(it) else { return false };
    let without = |members: &[members::Member]| -> Vec<members::Member> {
        let none =
            |member: &members::Member| members::Member { time: Vec::new(), ..member.clone() };
        members.iter().map(none).collect()
    };
    before != after && without(&before) == without(&after)
}

fn members_of(it: &Suspect<'_>) -> Option<(Vec<members::Member>, Vec<members::Member>)> {
    let (before, after) = it.contents?;
    Some((members::members(before)?, members::members(after)?))
}

fn holds_the_host_name(it: &Suspect<'_>) -> bool {
    let (first, second) = it.host_names;
    let holds = |bytes: &[u8], name: &str| {
        bytes.windows(name.len().max(1)).any(|word| word == name.as_bytes())
    };
    first != second
        && it.window().is_some_and(|(before, after)| holds(before, first) && holds(after, second))
}

/// Each build has a file in this directory that the other does not have, with as long a name that
/// begins or ends in the same way.
fn has_a_counterpart_of_another_name(it: &Suspect<'_>) -> bool {
    let (own, name) = (it.difference, it.name());
    let is_alone = own.before.is_some() != own.after.is_some();
    let directory = &it.path()[..it.path().len() - name.len()];
    let is_counterpart = |other: &FileDifference| {
        let Some(other_name) = other.path.strip_prefix(directory) else { return false };
        let mirrored = other.before.is_some() == own.after.is_some()
            && other.after.is_some() == own.before.is_some();
        mirrored
            && kind(own) == kind(other)
            && other_name.len() == name.len()
            && !other_name.contains(&b'/')
            && (other_name.first() == name.first()
                || other_name.last() == name.last()
                || it.is_below("tmp/"))
    };
    is_alone && it.all.iter().any(is_counterpart)
}

fn kind(difference: &FileDifference) -> Option<FileKind> {
    difference.before.as_ref().or(difference.after.as_ref()).and_then(|facts| facts.kind)
}

/// Text that differs in digits only, and has the form of a time: `12:34:56`, or seconds since 1970
/// in this century.
fn holds_the_time(it: &Suspect<'_>) -> bool {
    let Some((before, after)) = it.window() else { return false };
    // Other words of a date follow the digits: the day of the week, the month.
    is_time(before) && is_time(after) && is_text(before) && is_text(after)
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~') || *byte >= 0x80)
}

fn is_time(bytes: &[u8]) -> bool {
    let clock = bytes.windows(8).any(|word| {
        word.iter().enumerate().all(|(index, byte)| match index {
            2 | 5 => *byte == b':',
            _ => byte.is_ascii_digit(),
        })
    });
    let seconds = bytes.split(|byte| !byte.is_ascii_digit()).any(|digits| {
        // 1 000 000 000 was in 2001; 13 digits are milliseconds, 19 nanoseconds.
        matches!(digits.len(), 10 | 13 | 16 | 19) && matches!(digits[0], b'1'..=b'3')
    });
    clock || seconds
}
