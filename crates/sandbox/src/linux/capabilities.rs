//! Capability sets: names, Docker's default, and what the child gives up.
//!
//! # Order in the child
//!
//! A process changes from full root to what an image's program may have in this order, and no
//! other order works:
//!
//! 1. Everything that needs privilege: mounts, names, devices, and the seccomp filter, which
//!    without `no_new_privs` may be loaded only while `CAP_SYS_ADMIN` is still effective.
//! 2. [`drop_bounding`], which needs `CAP_SETPCAP`. The bounding set is what an `execve` by root,
//!    a set-user-id program or a file with capabilities can reach at most, so this is the step
//!    that holds for good.
//! 3. `setgroups`, `setgid`, `setuid`, which need `CAP_SETGID` and `CAP_SETUID`. For a user other
//!    than root the kernel empties the effective, permitted and ambient sets here.
//! 4. [`set_thread`] with [`CapabilitySet::for_uid`]: exactly the granted set for root, the empty
//!    set for everybody else. Nothing is kept across `setuid` (no `PR_SET_KEEPCAPS`, no ambient
//!    capability): as with Docker, a non-root program has no capability, but `sudo` and files
//!    with capabilities work up to the bounding set.
//!
//! Inheritable and ambient sets are always left empty (CVE-2022-24769 is what happens otherwise).
//!
//! The functions that act on the thread neither allocate nor take locks.

use std::fmt;
use std::io;
use std::ops::{BitAnd, BitOr, Sub};
use std::str::FromStr;

use rustix::thread::CapabilitySet as KernelSet;
use serde::{Deserialize, Serialize};

/// Capability names in the order of their numbers, without `CAP_`
/// (`include/uapi/linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One capability with a name that this program knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

impl Capability {
    /// Change the owner of any file.
    pub const CHOWN: Self = Self(0);
    /// Read, write and execute any file.
    pub const DAC_OVERRIDE: Self = Self(1);
    /// Read any file and search any directory; open files by handle.
    pub const DAC_READ_SEARCH: Self = Self(2);
    /// Act as the owner of any file.
    pub const FOWNER: Self = Self(3);
    /// Keep set-id bits on files that are changed.
    pub const FSETID: Self = Self(4);
    /// Signal any process.
    pub const KILL: Self = Self(5);
    /// Take any group id.
    pub const SETGID: Self = Self(6);
    /// Take any user id.
    pub const SETUID: Self = Self(7);
    /// Drop from the bounding set, raise inheritable capabilities.
    pub const SETPCAP: Self = Self(8);
    /// Bind ports below 1024.
    pub const NET_BIND_SERVICE: Self = Self(10);
    /// Open raw and packet sockets.
    pub const NET_RAW: Self = Self(13);
    /// Load and unload kernel modules.
    pub const SYS_MODULE: Self = Self(16);
    /// Reach I/O ports and raw memory.
    pub const SYS_RAWIO: Self = Self(17);
    /// Change the root directory.
    pub const SYS_CHROOT: Self = Self(18);
    /// Trace any process.
    pub const SYS_PTRACE: Self = Self(19);
    /// Switch process accounting.
    pub const SYS_PACCT: Self = Self(20);
    /// Mount, unshare, and much else.
    pub const SYS_ADMIN: Self = Self(21);
    /// Reboot.
    pub const SYS_BOOT: Self = Self(22);
    /// Raise priorities and place memory.
    pub const SYS_NICE: Self = Self(23);
    /// Set the clock.
    pub const SYS_TIME: Self = Self(25);
    /// Hang up and configure terminals.
    pub const SYS_TTY_CONFIG: Self = Self(26);
    /// Make device nodes.
    pub const MKNOD: Self = Self(27);
    /// Write to the audit log.
    pub const AUDIT_WRITE: Self = Self(29);
    /// Give capabilities to files.
    pub const SETFCAP: Self = Self(31);
    /// Read and clear the kernel's log.
    pub const SYSLOG: Self = Self(34);
    /// Observe performance events.
    pub const PERFMON: Self = Self(38);
    /// Load BPF programs.
    pub const BPF: Self = Self(39);

    /// The capability of this number, if it has a name.
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < NAMES.len() { Some(Self(number)) } else { None }
    }

    /// Its number, as in `linux/capability.h`.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its name in upper case without `CAP_`.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CAP_{}", self.name())
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A text that names no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability `{name}`")]
pub struct UnknownCapability {
    /// The text as it was given.
    pub name: String,
}

impl FromStr for Capability {
    type Err = UnknownCapability;

    /// Reads a name in any case, with or without `CAP_`. `ALL` is not a capability: see
    /// [`CapabilitySet::all`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = match text.get(..4) {
            Some(prefix) if prefix.eq_ignore_ascii_case("cap_") => &text[4..],
            _ => text,
        };
        NAMES
            .iter()
            .zip(0u8..)
            .find(|(name, _)| name.eq_ignore_ascii_case(bare))
            .map(|(_, number)| Self(number))
            .ok_or_else(|| UnknownCapability { name: text.to_owned() })
    }
}

/// A set of capabilities, bit n standing for capability number n.
///
/// Serialised as that number. May hold bits that have no name here, when they came from a newer
/// kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// No capability.
    pub const EMPTY: Self = Self(0);

    /// The set with this bit mask.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bit mask.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The 14 capabilities that Docker and BuildKit grant by default.
    pub const fn docker_default() -> Self {
        Self::EMPTY
            .with(Capability::CHOWN)
            .with(Capability::DAC_OVERRIDE)
            .with(Capability::FSETID)
            .with(Capability::FOWNER)
            .with(Capability::MKNOD)
            .with(Capability::NET_RAW)
            .with(Capability::SETGID)
            .with(Capability::SETUID)
            .with(Capability::SETFCAP)
            .with(Capability::SETPCAP)
            .with(Capability::NET_BIND_SERVICE)
            .with(Capability::SYS_CHROOT)
            .with(Capability::KILL)
            .with(Capability::AUDIT_WRITE)
    }

    /// Every capability that the running kernel knows, named here or not.
    ///
    /// The kernel is asked with `PR_CAPBSET_READ`, which answers `EINVAL` above
    /// `/proc/sys/kernel/cap_last_cap` and works where `/proc` is not mounted.
    pub fn all() -> Self {
        Self((0..u64::BITS).take_while(|n| in_bounding(*n).is_ok()).map(|n| 1 << n).sum())
    }

    /// This set and `capability`.
    pub const fn with(self, capability: Capability) -> Self {
        Self(self.0 | 1 << capability.0)
    }

    /// This set less `capability`.
    pub const fn without(self, capability: Capability) -> Self {
        Self(self.0 & !(1 << capability.0))
    }

    /// Whether `capability` is in this set.
    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & 1 << capability.0 != 0
    }

    /// Whether this set has no member.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members that have a name here, by number.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        (0..NAMES.len() as u8).map(Capability).filter(move |c| self.contains(*c))
    }

    /// What [`set_thread`] is to be given for a program of this user: the set itself for root,
    /// nothing for anybody else.
    pub const fn for_uid(self, uid: u32) -> Self {
        if uid == 0 { self } else { Self::EMPTY }
    }

    /// Reduces the calling thread to this set, for a program that stays root.
    ///
    /// Does [`drop_bounding`] and then [`set_thread`]. A capability that the caller itself lacks
    /// is left out silently, so that a build works where the host's root has been limited.
    ///
    /// # Errors
    /// As the two functions.
    pub fn apply(&self) -> io::Result<()> {
        drop_bounding(*self)?;
        set_thread(*self)
    }
}

impl BitOr for CapabilitySet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for CapabilitySet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for CapabilitySet {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl FromIterator<Capability> for CapabilitySet {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        capabilities.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unnamed = self.0 >> NAMES.len();
        let mut set = formatter.debug_set();
        set.entries(self.iter());
        if unnamed != 0 {
            set.entry(&format_args!("{:#x}", unnamed << NAMES.len()));
        }
        set.finish()
    }
}

/// Removes every capability outside `keep` from the calling thread's bounding set.
///
/// Cannot be undone, and cannot add: what is already missing stays missing, silently. To be called
/// before `setuid` (see the module's order).
///
/// # Errors
/// `EPERM` when something is to be dropped and the thread lacks `CAP_SETPCAP`.
pub fn drop_bounding(keep: CapabilitySet) -> io::Result<()> {
    for number in 0..u64::BITS {
        match in_bounding(number) {
            Ok(true) if keep.bits() & 1 << number == 0 => {
                rustix::thread::remove_capability_from_bounding_set(single(number))?;
            }
            Ok(_) => {}
            // The first number past the kernel's last capability.
            Err(_) => break,
        }
    }
    Ok(())
}

/// Sets the calling thread's effective and permitted sets to `granted`, as far as the thread still
/// has it, and empties its inheritable and ambient sets.
///
/// To be called after `setuid`, with [`CapabilitySet::for_uid`] (see the module's order).
///
/// # Errors
/// Those of capget(2) and capset(2); not expected, since nothing is ever raised that the thread
/// did not have.
pub fn set_thread(granted: CapabilitySet) -> io::Result<()> {
    let held = rustix::thread::capabilities(None)?;
    let kept = KernelSet::from_bits_retain(granted.bits() & held.permitted.bits());
    match rustix::thread::clear_ambient_capability_set() {
        // Kernels before 4.3 have no ambient set to clear.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::thread::set_capabilities(
        None,
        rustix::thread::CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: KernelSet::empty(),
        },
    )?;
    Ok(())
}

/// The calling thread's permitted set: the most that it can pass on.
///
/// # Errors
/// Those of capget(2).
pub fn permitted() -> io::Result<CapabilitySet> {
    Ok(CapabilitySet(rustix::thread::capabilities(None)?.permitted.bits()))
}

/// The calling thread's bounding set.
pub fn bounding() -> CapabilitySet {
    CapabilitySet(
        (0..u64::BITS)
            .map_while(|n| in_bounding(n).ok().map(|present| u64::from(present) << n))
            .sum(),
    )
}

/// Whether a number is in the bounding set; an error for numbers that the kernel does not know.
fn in_bounding(number: u32) -> rustix::io::Result<bool> {
    rustix::thread::capability_is_in_bounding_set(single(number))
}

fn single(number: u32) -> KernelSet {
    KernelSet::from_bits_retain(1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_the_kernel_headers() {
        // rustix takes its numbers from the kernel's headers.
        for (name, set) in KernelSet::all().iter_names() {
            let capability: Capability = name.parse().unwrap();
            assert_eq!(1u64 << capability.number(), set.bits(), "{name}");
        }
        assert_eq!(KernelSet::all().iter_names().count(), NAMES.len());
    }

    #[test]
    fn constants_are_at_the_number_of_their_name() {
        for (capability, name) in [
            (Capability::CHOWN, "CHOWN"),
            (Capability::DAC_OVERRIDE, "DAC_OVERRIDE"),
            (Capability::DAC_READ_SEARCH, "DAC_READ_SEARCH"),
            (Capability::FOWNER, "FOWNER"),
            (Capability::FSETID, "FSETID"),
            (Capability::KILL, "KILL"),
            (Capability::SETGID, "SETGID"),
            (Capability::SETUID, "SETUID"),
            (Capability::SETPCAP, "SETPCAP"),
            (Capability::NET_BIND_SERVICE, "NET_BIND_SERVICE"),
            (Capability::NET_RAW, "NET_RAW"),
            (Capability::SYS_MODULE, "SYS_MODULE"),
            (Capability::SYS_RAWIO, "SYS_RAWIO"),
            (Capability::SYS_CHROOT, "SYS_CHROOT"),
            (Capability::SYS_PTRACE, "SYS_PTRACE"),
            (Capability::SYS_PACCT, "SYS_PACCT"),
            (Capability::SYS_ADMIN, "SYS_ADMIN"),
            (Capability::SYS_BOOT, "SYS_BOOT"),
            (Capability::SYS_NICE, "SYS_NICE"),
            (Capability::SYS_TIME, "SYS_TIME"),
            (Capability::SYS_TTY_CONFIG, "SYS_TTY_CONFIG"),
            (Capability::MKNOD, "MKNOD"),
            (Capability::AUDIT_WRITE, "AUDIT_WRITE"),
            (Capability::SETFCAP, "SETFCAP"),
            (Capability::SYSLOG, "SYSLOG"),
            (Capability::PERFMON, "PERFMON"),
            (Capability::BPF, "BPF"),
        ] {
            assert_eq!(capability.name(), name);
        }
    }

    #[test]
    fn names_are_read_in_any_form() {
        for text in ["CAP_NET_RAW", "net_raw", "Cap_Net_Raw", "NET_RAW"] {
            assert_eq!(text.parse(), Ok(Capability::NET_RAW));
        }
        for text in ["", "CAP_", "cap", "NET RAW", "ALL", "é_ï", "CAP_CAP_KILL"] {
            assert!(text.parse::<Capability>().is_err(), "{text}");
        }
        assert_eq!(Capability::MKNOD.to_string(), "CAP_MKNOD");
    }

    #[test]
    fn docker_default_has_the_known_mask() {
        // CapBnd of /proc/1/status in a container of Docker's defaults.
        assert_eq!(CapabilitySet::docker_default().bits(), 0x0000_0000_a804_25fb);
        assert_eq!(CapabilitySet::docker_default().iter().count(), 14);
    }

    #[test]
    fn sets_combine() {
        let set: CapabilitySet = [Capability::KILL, Capability::BPF].into_iter().collect();
        assert!(set.contains(Capability::BPF) && !set.contains(Capability::CHOWN));
        assert_eq!(set.without(Capability::KILL) | CapabilitySet::from_bits(1 << 5), set);
        assert_eq!((set - set) & set, CapabilitySet::EMPTY);
        assert_eq!(set.for_uid(0), set);
        assert!(set.for_uid(1).is_empty());
        assert_eq!(format!("{set:?}"), "{CAP_KILL, CAP_BPF}");
        assert_eq!(serde_json::to_string(&set).unwrap(), set.bits().to_string());
    }

    #[test]
    fn all_ends_where_the_kernel_does() {
        let Ok(text) = fs_err::read_to_string("/proc/sys/kernel/cap_last_cap") else {
            eprintln!("skipped: no /proc");
            return;
        };
        let last: u32 = text.trim().parse().unwrap();
        assert_eq!(CapabilitySet::all().bits(), u64::MAX >> (63 - last));
        assert_eq!(bounding() - CapabilitySet::all(), CapabilitySet::EMPTY);
    }

    /// Capabilities are a thread's own, so a thread can be reduced and thrown away.
    #[test]
    fn apply_reduces_the_thread_for_good() {
        if !permitted().unwrap().contains(Capability::SETPCAP) {
            eprintln!("skipped: needs root");
            return;
        }
        std::thread::spawn(|| {
            let before = permitted().unwrap();
            let wanted = CapabilitySet::docker_default();
            wanted.apply().unwrap();
            let held = rustix::thread::capabilities(None).unwrap();
            assert_eq!(held.permitted.bits(), (before & wanted).bits());
            assert_eq!(held.effective, held.permitted);
            assert!(held.inheritable.is_empty());
            assert_eq!(bounding() - wanted, CapabilitySet::EMPTY);
            assert!(!rustix::thread::capability_is_in_ambient_set(KernelSet::KILL).unwrap());
            // Nothing comes back.
            CapabilitySet::all().apply().unwrap();
            assert_eq!(permitted().unwrap(), before & wanted);
            set_thread(CapabilitySet::EMPTY).unwrap();
            assert!(permitted().unwrap().is_empty());
            let error = drop_bounding(CapabilitySet::EMPTY).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        })
        .join()
        .unwrap();
    }
}
