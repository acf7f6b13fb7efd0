//! Who `USER` and `--chown` mean: names and numbers looked up in an image's own files.
//!
//! Nothing here reads a file or asks the host (no NSS): the caller passes the bytes of the image's
//! `/etc/passwd` and `/etc/group`, opened inside the root, regular files only, at most 10 MiB
//! each; a missing file is an empty slice. Both are written by strangers, so a line that makes no
//! sense is skipped. In particular a line whose id is not a number is no entry, where Go's
//! parser, and with it Docker, reads the id as 0.
//!
//! The rules are those of BuildKit (`executor/oci/user.go`, which uses `moby/sys/user`):
//!
//! | `USER` | uid | gid | groups |
//! |---|---|---|---|
//! | empty | 0 | as for `0`, all zero when passwd has no such entry | |
//! | `name` | passwd | passwd | primary, and those of `/etc/group` that list `name` |
//! | `N` in passwd | N | passwd | as for the entry's name |
//! | `N` not in passwd | N | 0 | `0` only |
//! | `x:group` | as above | group | that group only |
//! | `N:M` | N | M | `M` only, no file is consulted |

/// The process identity that a `USER` text stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id inside the container.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// What to give to setgroups(2): the primary group first unless `/etc/group` has it further
    /// down, each once.
    pub groups: Vec<u32>,
    /// Home directory of the first passwd entry with this uid, as runc takes it for `HOME`;
    /// `None` when there is none, or it is empty, or not UTF-8. Then the default is `/`.
    pub home: Option<String>,
}

/// Why a user or group text could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// A name that `/etc/passwd` of the image does not have.
    #[error("unable to find user `{name}`: no matching entries in passwd file")]
    UnknownUser {
        /// The user part of the text.
        name: String,
    },
    /// A name that `/etc/group` of the image does not have.
    #[error("unable to find group `{name}`: no matching entries in group file")]
    UnknownGroup {
        /// The group part of the text.
        name: String,
    },
    /// A number that cannot be an id. The largest is 4294967294; the next one means "unchanged"
    /// to setuid(2), so that accepting it would leave the program root.
    #[error("user or group id `{text}` is out of range")]
    OutOfRange {
        /// The number as written.
        text: String,
    },
}

/// Resolves the text of `USER` (or of an image's `User`) for a process.
///
/// # Errors
/// A name that is not found, or a number that is no id.
pub fn resolve(spec: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, UserError> {
    let (user_text, group_text) = split(spec);
    let home_of = |uid: u32| {
        passwd_entries(passwd)
            .find(|entry| entry.uid == uid)
            .and_then(|entry| std::str::from_utf8(entry.home).ok())
            .filter(|home| !home.is_empty())
            .map(str::to_owned)
    };

    // Both given as numbers (or `root`): decided without the files, as BuildKit does, so that
    // `1000:1000` means just that whatever the image's files say.
    if let (Some(uid), Some(Some(gid))) =
        (numeric_or_root(user_text)?, group_text.map(numeric_or_root).transpose()?)
    {
        return Ok(Identity { uid, gid, groups: vec![gid], home: home_of(uid) });
    }

    let wanted = if user_text.is_empty() { Some(0) } else { number(user_text)? };
    let entry = passwd_entries(passwd).find(|entry| match wanted {
        Some(uid) => entry.uid == uid,
        None => entry.name == user_text.as_bytes(),
    });
    let uid = match (&entry, wanted) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        // An image without a passwd file still has a root.
        (None, None) if user_text == "root" => 0,
        (None, None) => return Err(UserError::UnknownUser { name: user_text.to_owned() }),
    };

    let mut groups = Vec::new();
    let gid = match (group_text, &entry) {
        (Some(text), _) => find_group(text, group)?,
        (None, Some(entry)) => {
            groups = supplementary(entry.name, group);
            entry.gid
        }
        (None, None) => 0,
    };
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    Ok(Identity { uid, gid, groups, home: home_of(uid) })
}

/// Resolves the text of `--chown` to an owner and a group.
///
/// A user alone gives its primary group for a name, and the same number for a number.
///
/// # Errors
/// A name that is not found, or a number that is no id.
pub fn lookup_owner(spec: &str, passwd: &[u8], group: &[u8]) -> Result<(u32, u32), UserError> {
    let (user_text, group_text) = split(spec);
    let (uid, primary) = if user_text.is_empty() {
        (0, 0)
    } else if let Some(uid) = number(user_text)? {
        (uid, uid)
    } else {
        let entry = passwd_entries(passwd).find(|entry| entry.name == user_text.as_bytes());
        match entry {
            Some(entry) => (entry.uid, entry.gid),
            // An image without a passwd file still has a root.
            None if user_text == "root" => (0, 0),
            None => return Err(UserError::UnknownUser { name: user_text.to_owned() }),
        }
    };
    let gid = group_text.map_or(Ok(primary), |text| find_group(text, group))?;
    Ok((uid, gid))
}

/// User part, and group part unless it is absent or empty (`name:` is `name`).
fn split(spec: &str) -> (&str, Option<&str>) {
    match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|text| !text.is_empty())),
        None => (spec, None),
    }
}

/// Resolves the name or the number of a group.
///
/// # Errors
/// A name that is not found, or a number that is no id.
pub fn find_group(text: &str, group: &[u8]) -> Result<u32, UserError> {
    if let Some(gid) = number(text)? {
        return Ok(gid);
    }
    group_entries(group)
        .find(|entry| entry.name == text.as_bytes())
        .map(|entry| entry.gid)
        .ok_or_else(|| UserError::UnknownGroup { name: text.to_owned() })
}

/// Groups that list `name` as a member, each once, in the order of the file.
fn supplementary(name: &[u8], group: &[u8]) -> Vec<u32> {
    let mut seen = std::collections::HashSet::new();
    group_entries(group)
        .filter(|entry| entry.members.split(|byte| *byte == b',').any(|member| member == name))
        .map(|entry| entry.gid)
        .filter(|gid| seen.insert(*gid))
        .take(MAX_GROUPS)
        .collect()
}

/// Linux takes no more supplementary groups (`NGROUPS_MAX`); one is left for the primary group.
const MAX_GROUPS: usize = 65_536 - 1;

/// The number that `text` is, `None` when it is a name. A text of digits is never a name.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err(UserError::OutOfRange { text: text.to_owned() }),
    }
}

fn numeric_or_root(text: &str) -> Result<Option<u32>, UserError> {
    if text == "root" { Ok(Some(0)) } else { number(text) }
}

struct PasswdEntry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

/// `name:password:uid:gid:comment:home:shell`, of which the last three may be missing.
fn passwd_entries(text: &[u8]) -> impl Iterator<Item = PasswdEntry<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next()?;
        let uid = field_number(fields.nth(1)?)?;
        let gid = field_number(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry { name, uid, gid, home })
    })
}

struct GroupEntry<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

/// `name:password:gid:member,member`, of which the last may be missing.
fn group_entries(text: &[u8]) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next()?;
        let gid = field_number(fields.nth(1)?)?;
        let members = fields.next().unwrap_or_default();
        Some(GroupEntry { name, gid, members })
    })
}

/// Lines without surrounding blanks (also the `\r` of a file edited elsewhere), less empty ones
/// and comments.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
}

fn field_number(field: &[u8]) -> Option<u32> {
    number(std::str::from_utf8(field).ok()?).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
        # comment\n\
        alice:x:1000:100:Alice,,,:/home/alice:/bin/sh\r\n\
        nohome:x:1001:1001::\n\
        short:x:7:8\n\
        toor:x:0:5::/toor:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:root,alice\nusers:x:100:\n\
        video:x:44:daemon,alice\nvideo2:x:44:alice\nbad:x:zz:alice\nstaff:x:50:bob,alice2\n";

    fn identity(uid: u32, gid: u32, groups: &[u32], home: Option<&str>) -> Identity {
        Identity { uid, gid, groups: groups.to_vec(), home: home.map(str::to_owned) }
    }

    #[track_caller]
    fn check(spec: &str, expected: Identity) {
        assert_eq!(resolve(spec, PASSWD, GROUP), Ok(expected), "{spec:?}");
    }

    #[test]
    fn users_by_name_and_number() {
        check("", identity(0, 0, &[0, 10], Some("/root")));
        check("root", identity(0, 0, &[0, 10], Some("/root")));
        check("0", identity(0, 0, &[0, 10], Some("/root")));
        check("alice", identity(1000, 100, &[100, 10, 44], Some("/home/alice")));
        check("1000", identity(1000, 100, &[100, 10, 44], Some("/home/alice")));
        check("1234", identity(1234, 0, &[0], None));
        check("nohome", identity(1001, 1001, &[1001], None));
        check("short", identity(7, 8, &[8], None));
        // runc looks HOME up by number.
        check("toor", identity(0, 5, &[5], Some("/root")));
    }

    #[test]
    fn an_explicit_group_stands_alone() {
        check("1234:1234", identity(1234, 1234, &[1234], None));
        check("1000:5", identity(1000, 5, &[5], Some("/home/alice")));
        check("root:root", identity(0, 0, &[0], Some("/root")));
        check("alice:wheel", identity(1000, 10, &[10], Some("/home/alice")));
        check("alice:77", identity(1000, 77, &[77], Some("/home/alice")));
        check("4000:users", identity(4000, 100, &[100], None));
        check(":users", identity(0, 100, &[100], Some("/root")));
        check("alice:", identity(1000, 100, &[100, 10, 44], Some("/home/alice")));
    }

    #[test]
    fn without_files_numbers_still_work() {
        let resolve = |spec| resolve(spec, b"", b"");
        assert_eq!(resolve(""), Ok(identity(0, 0, &[0], None)));
        assert_eq!(resolve("12"), Ok(identity(12, 0, &[0], None)));
        assert_eq!(resolve("root:root"), Ok(identity(0, 0, &[0], None)));
        assert_eq!(resolve("root"), Ok(identity(0, 0, &[0], None)));
        assert_eq!(resolve("1:g"), Err(UserError::UnknownGroup { name: "g".into() }));
    }

    #[test]
    fn numbers_that_are_no_ids_are_refused() {
        for spec in ["4294967295", "0:4294967295", "4294967295:0", "99999999999999999999"] {
            assert!(
                matches!(resolve(spec, PASSWD, GROUP), Err(UserError::OutOfRange { .. })),
                "{spec}"
            );
            assert!(matches!(lookup_owner(spec, b"", b""), Err(UserError::OutOfRange { .. })));
        }
        for spec in ["-1", "+1", "0x1", "1 ", "al:ice:x"] {
            assert!(resolve(spec, PASSWD, GROUP).is_err(), "{spec}");
        }
    }

    #[test]
    fn a_broken_line_is_never_root() {
        let passwd =
            b"evil:x:abc:0::/\nevil2\nevil3:x:-1:0\nevil4:x::0\n+::::::\nevil5:x:4294967295:0\n";
        for name in ["evil", "evil2", "evil3", "evil4", "evil5", "+"] {
            assert!(resolve(name, passwd, b"").is_err(), "{name}");
            assert!(lookup_owner(name, passwd, b"").is_err(), "{name}");
        }
        assert_eq!(resolve("0", passwd, b"").unwrap().home, None);
    }

    #[test]
    fn owners() {
        for (spec, expected) in [
            ("55", (55, 55)),
            ("1000", (1000, 1000)),
            ("55:mygroup", (55, 9)),
            ("alice", (1000, 100)),
            ("alice:wheel", (1000, 10)),
            ("alice:3", (1000, 3)),
            ("55:", (55, 55)),
            (":wheel", (0, 10)),
        ] {
            let group = [GROUP, b"mygroup:x:9:"].concat();
            assert_eq!(lookup_owner(spec, PASSWD, &group), Ok(expected), "{spec}");
        }
        let unknown = lookup_owner("bob", PASSWD, GROUP).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "unable to find user `bob`: no matching entries in passwd file"
        );
        assert!(lookup_owner("alice:nope", PASSWD, GROUP).is_err());
        assert_eq!(lookup_owner("root", b"", b""), Ok((0, 0)));
    }

    fn file() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            "([a-c#]{0,2}(:[a-cx0-9,:-]{0,5}){0,7}\r?\n){0,12}".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn never_panics_and_groups_hold_the_primary_one(
            spec in "[a-c0-9:]{0,8}|.{0,12}", passwd in file(), group in file(),
        ) {
            if let Ok(found) = resolve(&spec, &passwd, &group) {
                prop_assert!(found.groups.contains(&found.gid));
                prop_assert_ne!(found.uid, u32::MAX);
                prop_assert!(found.groups.iter().all(|gid| *gid != u32::MAX));
            }
            if let Ok((uid, gid)) = lookup_owner(&spec, &passwd, &group) {
                prop_assert!(uid != u32::MAX && gid != u32::MAX);
            }
        }

        #[test]
        fn a_number_never_fails(uid in 0..u32::MAX, gid in 0..u32::MAX, passwd in file()) {
            let found = resolve(&format!("{uid}:{gid}"), &passwd, b"").unwrap();
            prop_assert_eq!((found.uid, found.gid), (uid, gid));
            prop_assert_eq!(resolve(&uid.to_string(), &passwd, b"").unwrap().uid, uid);
        }
    }
}
