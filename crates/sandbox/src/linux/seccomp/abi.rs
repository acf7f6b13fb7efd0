//! The calling conventions of the machines that we build for, and the numbers of their calls.

use super::profile::Family;

/// A machine that filters can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// x86-64, which also runs i386 programs.
    X86_64,
    /// aarch64, which may also run arm (EABI) programs.
    Aarch64,
}

impl Machine {
    /// The machine that this program was built for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The machine that this program was built for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// Its own calling convention and that of its 32-bit mode.
    pub(crate) const fn abis(self) -> [Abi; 2] {
        match self {
            Self::X86_64 => [Abi::X86_64, Abi::I386],
            Self::Aarch64 => [Abi::Aarch64, Abi::Arm],
        }
    }

    pub(crate) const fn family(self) -> Family {
        match self {
            Self::X86_64 => Family::X86,
            Self::Aarch64 => Family::Arm,
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the seccomp profile has been checked for x86-64 and aarch64 only");

/// One calling convention as seccomp sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abi {
    X86_64,
    I386,
    Aarch64,
    Arm,
}

/// Set in the number of an x32 call, which otherwise looks like an x86-64 one.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// Where arm has a few private calls (`__ARM_NR_BASE`), far above all others.
pub(crate) const ARM_PRIVATE: u32 = 0x000f_0000;

/// Those of them that the profile names; the table of the `syscalls` crate ends before.
const ARM_PRIVATE_CALLS: [(u32, &str); 3] = [
    (ARM_PRIVATE + 1, "breakpoint"),
    (ARM_PRIVATE + 2, "cacheflush"),
    (ARM_PRIVATE + 5, "set_tls"),
];

/// The block of calls with 64-bit times for 32-bit machines.
const TIME64_CALLS: std::ops::RangeInclusive<u32> = 403..=423;

impl Abi {
    /// Its `AUDIT_ARCH_*` value (`linux/audit.h`): the ELF machine, and flags for 64 bits and
    /// little-endian.
    pub(crate) const fn audit_arch(self) -> u32 {
        const BITS64: u32 = 0x8000_0000;
        const LITTLE_ENDIAN: u32 = 0x4000_0000;
        match self {
            Self::X86_64 => 62 | BITS64 | LITTLE_ENDIAN,
            Self::I386 => 3 | LITTLE_ENDIAN,
            Self::Aarch64 => 183 | BITS64 | LITTLE_ENDIAN,
            Self::Arm => 40 | LITTLE_ENDIAN,
        }
    }

    /// Its calls by number, ascending.
    pub(crate) fn calls(self) -> Vec<(u32, &'static str)> {
        // The four tables have the same methods but no common trait.
        macro_rules! table {
            ($module:ident) => {
                syscalls::$module::Sysno::iter()
                    .map(|call| (call.id().unsigned_abs(), call.name()))
                    .collect()
            };
        }
        match self {
            Self::X86_64 => table!(x86_64),
            Self::I386 => table!(x86),
            // The crate's table calls one by another name than the kernel and the profile do, and
            // lists calls that only 32-bit machines have.
            Self::Aarch64 => {
                let mut calls: Vec<_> = table!(aarch64);
                calls.retain(|(number, _)| !TIME64_CALLS.contains(number));
                for (_, name) in &mut calls {
                    if *name == "fstatat" {
                        *name = "newfstatat";
                    }
                }
                calls
            }
            Self::Arm => {
                let mut calls: Vec<_> = table!(arm);
                calls.extend(ARM_PRIVATE_CALLS);
                calls
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_ascend_and_hold_well_known_calls() {
        for (abi, name, number) in [
            (Abi::X86_64, "execve", 59),
            (Abi::I386, "execve", 11),
            (Abi::Aarch64, "execve", 221),
            (Abi::Arm, "execve", 11),
            (Abi::X86_64, "clone3", 435),
            (Abi::I386, "clone3", 435),
            (Abi::Aarch64, "clone3", 435),
            (Abi::Arm, "clone3", 435),
            (Abi::I386, "socketcall", 102),
            (Abi::Aarch64, "newfstatat", 79),
            (Abi::Arm, "futex_time64", 422),
            (Abi::Arm, "set_tls", 0xf0005),
        ] {
            let calls = abi.calls();
            assert!(calls.is_sorted_by(|a, b| a.0 < b.0), "{abi:?}");
            assert!(calls.contains(&(number, name)), "{abi:?} {name}");
        }
    }
}
