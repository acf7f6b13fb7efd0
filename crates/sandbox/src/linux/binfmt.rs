//! Which processors' programs this machine runs: its own, and those that an emulator was
//! registered for (`binfmt_misc`, the kernel's `Documentation/admin-guide/binfmt-misc.rst`).
//!
//! The kernel takes a handler by the first bytes of a program. Whether it would take one is found
//! out by holding a handler's magic and mask against the head of a program as it would be.

use std::path::Path;

use rbuild_types::Platform;

/// Where handlers are listed, each as a file.
pub const DIRECTORY: &str = "/proc/sys/fs/binfmt_misc";

/// Longest file of a handler that is read: a page, as the kernel writes it.
const MAX_HANDLER: usize = 4096;

/// Bytes of a program that the kernel shows to handlers.
const HEAD: usize = 256;

/// How this machine runs programs of a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// The processor does it.
    Native,
    /// An emulator does it that the kernel holds open (flag `F`).
    Emulated,
    /// An emulator does it if it is at this path in the process' own root filesystem.
    NeedsInterpreter(String),
    /// It cannot be told before it is tried.
    Unknown,
    /// Nothing does it.
    Missing,
}

/// The emulators that the kernel knows.
#[derive(Debug, Clone, Default)]
pub struct Emulators {
    handlers: Vec<Handler>,
    /// Whether the list could be seen: in a container it often cannot, and holds all the same.
    is_visible: bool,
}

#[derive(Debug, Clone)]
struct Handler {
    interpreter: String,
    /// Whether the kernel holds the interpreter open.
    is_held: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

impl Emulators {
    /// Those of the running kernel.
    pub fn of_host() -> Self {
        Self::read(Path::new(DIRECTORY))
    }

    /// Those listed in `directory`. What cannot be read counts as not there.
    pub fn read(directory: &Path) -> Self {
        let Ok(status) = fs_err::read_to_string(directory.join("status")) else {
            return Self::default();
        };
        let mut emulators = Self { handlers: Vec::new(), is_visible: true };
        let (true, Ok(entries)) = (status.trim() == "enabled", fs_err::read_dir(directory)) else {
            return emulators;
        };
        for entry in entries.flatten() {
            let is_control = ["status", "register"].iter().any(|name| entry.file_name() == *name);
            if is_control {
                continue;
            }
            let Ok(text) = fs_err::read_to_string(entry.path()) else { continue };
            emulators.handlers.extend(Handler::parse(&text));
        }
        emulators
    }

    /// How programs of `platform` are run here.
    pub fn support(&self, platform: &Platform) -> Support {
        let host = Platform::host();
        let is_ours = platform.architecture == host.architecture
            // A kernel without this says so when it is tried.
            || platform.architecture == "386" && host.architecture == "amd64";
        match platform.os == host.os {
            false => return Support::Missing,
            true if is_ours => return Support::Native,
            true => {}
        }
        let Some(machine) = Machine::of(&platform.architecture) else { return Support::Unknown };
        let head = machine.head();
        // The kernel asks the handler that was registered last, an order that is not to be seen:
        // the one that works everywhere is hoped for.
        let fitting = || self.handlers.iter().filter(|handler| handler.takes(&head));
        if fitting().any(|handler| handler.is_held) {
            return Support::Emulated;
        }
        if let Some(handler) = fitting().next() {
            return Support::NeedsInterpreter(handler.interpreter.clone());
        }
        // Many processors of this kind run the 32-bit programs of their forebears.
        let may_run =
            (host.architecture.as_str(), platform.architecture.as_str()) == ("arm64", "arm");
        if may_run || !self.is_visible { Support::Unknown } else { Support::Missing }
    }

    /// The platforms that are run besides the machine's own, whatever the root filesystem.
    pub fn platforms(&self) -> Vec<Platform> {
        let host = Platform::host();
        let runs = |platform: &Platform| {
            matches!(self.support(platform), Support::Native | Support::Emulated)
        };
        MACHINES
            .iter()
            .map(|machine| Platform::new("linux", machine.architecture))
            .filter(|platform| *platform != host && runs(platform))
            .collect()
    }
}

impl Handler {
    /// Reads what the kernel writes about a handler; of those by file extension, and of those
    /// that are turned off, nothing is known.
    fn parse(text: &str) -> Option<Self> {
        let text = text.get(..MAX_HANDLER.min(text.len()))?;
        let mut lines = text.lines();
        lines.next().filter(|line| *line == "enabled")?;
        let (mut interpreter, mut flags, mut offset) = (None, "", 0);
        let (mut magic, mut mask) = (None, None);
        for line in lines {
            let (key, value) = line.split_once(' ')?;
            match key {
                "interpreter" => interpreter = Some(value.to_owned()),
                "flags:" => flags = value,
                "offset" => offset = value.parse().ok()?,
                "magic" => magic = hex::decode(value).ok(),
                "mask" => mask = hex::decode(value).ok(),
                _ => {}
            }
        }
        let magic: Vec<u8> = magic?;
        let mask = mask.unwrap_or_else(|| vec![0xff; magic.len()]);
        let is_held = flags.contains('F');
        Some(Self { interpreter: interpreter?, is_held, offset, magic, mask })
    }

    fn takes(&self, head: &[u8]) -> bool {
        let end = self.offset.saturating_add(self.magic.len());
        let Some(there) = head.get(self.offset..end) else { return false };
        !self.magic.is_empty()
            && self.magic.len() == self.mask.len()
            && there.iter().zip(&self.magic).zip(&self.mask).all(|((there, magic), mask)| {
                // The kernel compares under the mask, the magic as it was written too.
                (there ^ magic) & mask == 0
            })
    }
}

/// How ELF names a processor.
struct Machine {
    architecture: &'static str,
    bits: u8,
    big_endian: bool,
    number: u16,
}

const MACHINES: [Machine; 12] = [
    Machine { architecture: "amd64", bits: 64, big_endian: false, number: 62 },
    Machine { architecture: "386", bits: 32, big_endian: false, number: 3 },
    Machine { architecture: "arm64", bits: 64, big_endian: false, number: 183 },
    Machine { architecture: "arm", bits: 32, big_endian: false, number: 40 },
    Machine { architecture: "riscv64", bits: 64, big_endian: false, number: 243 },
    Machine { architecture: "ppc64le", bits: 64, big_endian: false, number: 21 },
    Machine { architecture: "s390x", bits: 64, big_endian: true, number: 22 },
    Machine { architecture: "loong64", bits: 64, big_endian: false, number: 258 },
    Machine { architecture: "mips64le", bits: 64, big_endian: false, number: 8 },
    Machine { architecture: "mips64", bits: 64, big_endian: true, number: 8 },
    Machine { architecture: "mipsle", bits: 32, big_endian: false, number: 8 },
    Machine { architecture: "mips", bits: 32, big_endian: true, number: 8 },
];

/// ELF's mark.
const ELF: [u8; 4] = *b"\x7fELF";
/// A program at a fixed place (`ET_EXEC`); handlers take the movable ones too.
const EXECUTABLE: u16 = 2;
/// Bytes up to and with the processor's number.
pub(crate) const IDENTIFIED: usize = 20;

impl Machine {
    fn of(architecture: &str) -> Option<&'static Self> {
        MACHINES.iter().find(|machine| machine.architecture == architecture)
    }

    /// The beginning of a program for it.
    fn head(&self) -> Vec<u8> {
        let half = |value: u16| match self.big_endian {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        };
        let mut head = ELF.to_vec();
        head.extend([if self.bits == 64 { 2 } else { 1 }, if self.big_endian { 2 } else { 1 }, 1]);
        head.resize(16, 0);
        head.extend(half(EXECUTABLE));
        head.extend(half(self.number));
        head.resize(HEAD, 0);
        head
    }
}

/// The processor that a program is for, by its first bytes.
pub(crate) fn architecture(program: &[u8]) -> Option<&'static str> {
    let read = program.get(..IDENTIFIED)?;
    let same = |head: &[u8]| read.get(..6) == head.get(..6) && read.get(18..) == head.get(18..20);
    MACHINES.iter().find(|machine| same(&machine.head())).map(|machine| machine.architecture)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AARCH64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\n\
        offset 0\nmagic 7f454c460201010000000000000000000200b700\n\
        mask ffffffffffffff00fffffffffffffffffeffffff\n";
    const S390X: &str = "enabled\ninterpreter /usr/bin/qemu-s390x\nflags: \n\
        offset 0\nmagic 7f454c4602020100000000000000000000020016\n\
        mask ffffffffffffff00fffffffffffffffffffeffff\n";

    fn with(files: &[(&str, &str)]) -> Emulators {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs_err::write(directory.path().join(name), text).unwrap();
        }
        Emulators::read(directory.path())
    }

    fn support(emulators: &Emulators, platform: &str) -> Support {
        emulators.support(&platform.parse().unwrap())
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_handler_counts_for_the_programs_that_it_takes() {
        let all = [("status", "enabled\n"), ("qemu-aarch64", AARCH64), ("qemu-s390x", S390X)];
        let emulators = with(&all);
        assert_eq!(support(&emulators, "linux/amd64"), Support::Native);
        assert_eq!(support(&emulators, "linux/386"), Support::Native);
        assert_eq!(support(&emulators, "linux/arm64"), Support::Emulated);
        let at = "/usr/bin/qemu-s390x".to_owned();
        assert_eq!(support(&emulators, "linux/s390x"), Support::NeedsInterpreter(at));
        assert_eq!(support(&emulators, "linux/arm/v7"), Support::Missing);
        assert_eq!(support(&emulators, "windows/amd64"), Support::Missing);
        let besides = ["386", "arm64"].map(|architecture| Platform::new("linux", architecture));
        assert_eq!(emulators.platforms(), besides);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_is_turned_off_or_no_magic_does_not_count() {
        let disabled = AARCH64.replace("enabled", "disabled");
        let by_name = "enabled\ninterpreter /usr/bin/wine\nflags: \nextension .exe\n";
        let files = [("status", "enabled"), ("a", disabled.as_str()), ("b", by_name), ("c", "")];
        assert_eq!(support(&with(&files), "linux/arm64"), Support::Missing);
        let off = [("status", "disabled"), ("a", AARCH64)];
        assert_eq!(support(&with(&off), "linux/arm64"), Support::Missing);
        // Nothing is mounted there: nobody knows.
        assert_eq!(support(&with(&[]), "linux/arm64"), Support::Unknown);
    }

    #[test]
    fn programs_say_what_they_are_for() {
        for machine in &MACHINES {
            assert_eq!(architecture(&machine.head()), Some(machine.architecture));
        }
        assert_eq!(architecture(b"#!/bin/sh\n"), None);
        assert_eq!(architecture(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xff\xff"), None);
    }
}
