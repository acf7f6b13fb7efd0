//! `--chmod`: octal numbers and the symbolic form of chmod(1).

use super::error::CopyError;

/// A parsed `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// The bits, whatever they were.
    Octal(u32),
    /// Changes, applied in order.
    Symbolic(Vec<Change>),
}

/// One operator of the symbolic form: `go=rX` has one, `u+x-s` two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    who: Who,
    operator: Operator,
    what: What,
}

/// Which of user, group and others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Who {
    user: bool,
    group: bool,
    other: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// Letters of `rwxXst`.
    Letters(Vec<u8>),
    /// The bits that user, group or others have.
    CopyOf(u8),
}

impl Chmod {
    /// Reads the flag; an empty one is as if it were not given.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, CopyError> {
        if text.is_empty() {
            return Ok(None);
        }
        let error = || CopyError::BadChmod { text: text.to_owned() };
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Some(Self::Octal(mode))),
                _ => Err(error()),
            };
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause.as_bytes(), &mut changes).ok_or_else(error)?;
        }
        Ok(Some(Self::Symbolic(changes)))
    }

    /// The mode of directories that are made for the destination, `usual` without the flag. As in
    /// BuildKit: only a number counts for them, without its special bits.
    pub(crate) fn for_new_dirs(&self, usual: u32) -> u32 {
        match self {
            Self::Octal(bits) => bits & 0o777,
            Self::Symbolic(_) => usual,
        }
    }

    /// The mode that a file or directory with `mode` gets.
    pub(crate) fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(changes) => {
                changes.iter().fold(mode, |mode, change| change.apply(mode, is_directory))
            }
        }
    }
}

fn parse_clause(clause: &[u8], changes: &mut Vec<Change>) -> Option<()> {
    let operator_at = clause.iter().position(|byte| b"+-=".contains(byte))?;
    let (letters, mut rest) = clause.split_at(operator_at);
    let mut who = Who { user: false, group: false, other: false };
    for letter in letters {
        match letter {
            b'u' => who.user = true,
            b'g' => who.group = true,
            b'o' => who.other = true,
            b'a' => who = Who { user: true, group: true, other: true },
            _ => return None,
        }
    }
    if letters.is_empty() {
        // chmod(1) would leave out what the umask has; a build has none.
        who = Who { user: true, group: true, other: true };
    }
    while let Some((first, after)) = rest.split_first() {
        let operator = match first {
            b'+' => Operator::Add,
            b'-' => Operator::Remove,
            b'=' => Operator::Set,
            _ => return None,
        };
        let end = after.iter().position(|byte| b"+-=".contains(byte)).unwrap_or(after.len());
        let (what, next) = after.split_at(end);
        let what = match what {
            [letter @ (b'u' | b'g' | b'o')] => What::CopyOf(*letter),
            letters if letters.iter().all(|letter| b"rwxXst".contains(letter)) => {
                What::Letters(letters.to_vec())
            }
            _ => return None,
        };
        changes.push(Change { who, operator, what });
        rest = next;
    }
    Some(())
}

impl Change {
    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let everyone = |bits: u32| {
            let part = |wanted: bool, shift: u32| if wanted { bits << shift } else { 0 };
            part(self.who.user, 6) | part(self.who.group, 3) | part(self.who.other, 0)
        };
        let mut bits = 0;
        match &self.what {
            What::CopyOf(letter) => {
                let shift = match letter {
                    b'u' => 6,
                    b'g' => 3,
                    _ => 0,
                };
                bits = everyone((mode >> shift) & 0o7);
            }
            What::Letters(letters) => {
                for letter in letters {
                    bits |= match letter {
                        b'r' => everyone(0o4),
                        b'w' => everyone(0o2),
                        b'x' => everyone(0o1),
                        b'X' if is_directory || mode & 0o111 != 0 => everyone(0o1),
                        b's' => {
                            (if self.who.user { 0o4000 } else { 0 })
                                | (if self.who.group { 0o2000 } else { 0 })
                        }
                        b't' => 0o1000,
                        _ => 0,
                    };
                }
            }
        }
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => {
                // Unlike chmod(1), BuildKit takes the special bits of directories away too.
                let cleared = everyone(0o7)
                    | (if self.who.user { 0o4000 } else { 0 })
                    | (if self.who.group { 0o2000 } else { 0 });
                (mode & !cleared) | bits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rbuild_testkit::corpora::{Table, same};

    use super::*;

    fn apply(text: &str, mode: u32, is_directory: bool) -> u32 {
        Chmod::parse(text).unwrap().unwrap().apply(mode, is_directory)
    }

    #[test]
    fn octal_replaces_all_bits() {
        assert_eq!(apply("0644", 0o7777, false), 0o644);
        assert_eq!(apply("0", 0o777, true), 0);
        assert_eq!(apply("7777", 0, false), 0o7777);
        assert_eq!(Chmod::parse("").unwrap(), None);
        for bad in ["64a", "10000", "99x", "8", "u", "u=q", "rwx", "z+x", "+x,", "u=rg", "-1"] {
            let error = Chmod::parse(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("invalid chmod parameter: '{bad}'")), "{error}");
        }
    }

    #[test]
    fn symbolic_changes_what_it_names() {
        assert_eq!(apply("u=rwX,go=rX", 0o600, false), 0o644);
        assert_eq!(apply("u=rwX,go=rX", 0o700, false), 0o755);
        assert_eq!(apply("u=rwX,go=rX", 0o600, true), 0o755);
        assert_eq!(apply("+x", 0o644, false), 0o755);
        assert_eq!(apply("g=u", 0o640, false), 0o660);
        assert_eq!(apply("a+X", 0o644, false), 0o644);
        assert_eq!(apply("a+X", 0o644, true), 0o755);
        assert_eq!(apply("u+s,g-w,o=", 0o775, false), 0o4750);
        assert_eq!(apply("u=rw-w+x", 0, false), 0o500);
        assert_eq!(apply("+t", 0o777, true), 0o1777);
        assert_eq!(apply("u=rx", 0o4755, false), 0o555);
        assert_eq!(apply("ug=rx", 0o7755, true), 0o1555);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ugoa+=,rwxXst0-9-]{0,12}", mode in 0u32..0o10000) {
            if let Ok(Some(chmod)) = Chmod::parse(&text) {
                proptest::prop_assert!(chmod.apply(mode, false) <= 0o7777);
                proptest::prop_assert!(chmod.apply(mode, true) <= 0o7777);
            }
        }
    }

    /// fsutil's table: four modes after a change.
    #[test]
    fn fsutils_symbolic_modes() {
        let file = "fsutil/fsutil.tables.jsonl";
        let Some(table) = Table::open(file, "TestCopyModeTextFormat", "testCases") else { return };
        table.check(|row| {
            let text = row[1].as_str().unwrap();
            let before = [(0o644, false), (0o755, false), (0o750, true), (0o700, true)];
            let after = before.map(|(mode, is_directory)| apply(text, mode, is_directory).into());
            let expected: Vec<_> = (2..6).map(|index| row[index].as_u64().unwrap()).collect();
            same(&after.to_vec(), &expected)
        });
    }
}
