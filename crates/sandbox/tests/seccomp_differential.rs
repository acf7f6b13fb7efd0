//! Our seccomp compiler held against libseccomp.
//!
//! Both compile the same rules; both programs are then run, by a small interpreter, for every call
//! number from 0 to 600 (and some above) of each calling convention, with arguments at both sides
//! of every boundary that a rule has. Every difference must be one of those that
//! `linux/seccomp.rs` promises, which [`expected`] lists.
//!
//! The rules come from our own profile data. When `RBUILD_MOBY_PROFILE` names a copy of moby's
//! `seccomp/default.json`, they come from that file too, so that the data is compared as well.
//!
//! libseccomp is called through python3 and its shared library (`libseccomp.so.2`, which Debian
//! and Ubuntu have installed), since our test programs are static and cannot load it. Where that
//! is missing the test says so and passes, unless `RBUILD_REQUIRE_LIBSECCOMP` is set.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test, also in its helpers")]

// The modules as they are, rather than the crate: the test needs their insides.
#[path = "../src/linux"]
#[allow(dead_code, reason = "the test calls only some of it")]
mod linux {
    pub mod capabilities;
    pub mod seccomp;
}

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use linux::capabilities::{Capability, CapabilitySet};
use linux::seccomp::abi::{ARM_PRIVATE, Abi, X32_BIT};
use linux::seccomp::profile::{ArgumentTest, Family, PROFILE, Verdict, When};
use linux::seccomp::{KernelVersion, Machine, SockFilter, filter_for, profile_filter_for};
use serde::{Deserialize, Serialize};

const ALLOW: u32 = 0x7fff_0000;
const KILL_THREAD: u32 = 0;
const EPERM: u32 = 0x0005_0000 | 1;
const ENOSYS: u32 = 0x0005_0000 | 38;

/// Calls newer than some libseccomp that may be installed, from the kernel's
/// `scripts/syscall.tbl`: they have one number everywhere.
const NEW_CALLS: [(&str, u32); 17] = [
    ("set_mempolicy_home_node", 450),
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
];

/// The exception: added to x86-64 only, in a gap.
const URETPROBE: (&str, u32) = ("uretprobe", 335);

/// A name of the profile that none of our machines has, in any libseccomp.
const FOREIGN: &str = "riscv_hwprobe";

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Rule {
    names: Vec<String>,
    /// Allowed if `None`.
    errno: Option<u32>,
    /// Argument, operator and its two operands; for `MASKED_EQ` the mask and the value.
    args: Vec<(u32, &'static str, u64, u64)>,
}

#[derive(Serialize)]
struct Job {
    arches: [&'static str; 2],
    rules: Vec<Rule>,
}

#[derive(Serialize)]
struct Request {
    names: BTreeSet<String>,
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Reference {
    /// By calling convention and name; negative where there is no such call.
    numbers: BTreeMap<String, BTreeMap<String, i64>>,
    /// Hexadecimal.
    programs: Vec<String>,
}

/// One situation to compile for.
#[derive(Debug, Clone, Copy)]
struct Setting {
    machine: Machine,
    granted: CapabilitySet,
    kernel: KernelVersion,
}

#[test]
fn our_profile_decides_as_libseccomp_does() {
    compare(own_rules);
}

#[test]
fn our_profile_decides_as_moby_s_does() {
    let Some(path) = std::env::var_os("RBUILD_MOBY_PROFILE") else {
        eprintln!("skipped: RBUILD_MOBY_PROFILE does not name moby's seccomp/default.json");
        return;
    };
    let text = fs_err::read_to_string(path).unwrap();
    let profile: moby::Profile = serde_json::from_str(&text).unwrap();
    compare(|setting| moby::rules(&profile, setting));
}

fn compare(rules_of: impl Fn(Setting) -> Vec<Rule>) {
    let settings = settings();
    let jobs: Vec<Job> = settings
        .iter()
        .map(|setting| Job {
            arches: setting.machine.abis().map(arch_name),
            rules: rules_of(*setting),
        })
        .collect();
    let names = jobs.iter().flat_map(|j| &j.rules).flat_map(|r| r.names.iter().cloned()).collect();
    let request = Request { names, jobs };
    let Some(reference) = libseccomp(&request) else { return };

    compare_numbers(&reference);
    for (index, setting) in settings.iter().enumerate() {
        let theirs = parse_program(&reference.programs[index]);
        let Setting { machine, granted, kernel } = *setting;
        let ours = filter_for(machine, granted, kernel);
        let rules = &request.jobs[index].rules;
        let given =
            profile_filter_for(&document(machine, rules), machine, granted, kernel).unwrap();
        let mut compared = 0usize;
        for abi in setting.machine.abis() {
            let table = NumberTable::new(abi, &reference, rules);
            let arguments = boundary_arguments(rules, is_64_bit(abi));
            let mut looked_at = 0;
            for number in call_numbers() {
                for argument in &arguments {
                    let data = Data { number, arch: abi.audit_arch(), arguments: *argument };
                    let want = expected(abi, data, &theirs, &table);
                    let got = run(&ours, data);
                    assert_eq!(
                        got.value, want.value,
                        "{setting:?} {abi:?} {data:x?}: got {:#x}",
                        got.value
                    );
                    let want_given = expected_of_any(abi, data, &theirs, &table).value;
                    let got_given = run(&given, data).value;
                    assert_eq!(
                        got_given, want_given,
                        "as a document: {setting:?} {abi:?} {data:x?}: got {got_given:#x}"
                    );
                    compared += 1;
                    // Neither program looked at an argument, so no other one changes anything.
                    if !got.read_argument && !want.read_argument {
                        break;
                    }
                    looked_at += 1;
                }
            }
            // `socket` and `personality` at least.
            assert!(looked_at >= 2 * arguments.len(), "{setting:?} {abi:?}");
        }
        // Neither program lets a foreign calling convention pass.
        for arch in [0, 1, 0x4000_0008, 0xc000_00f3, u32::MAX] {
            let data = Data { number: 0, arch, arguments: [0; 6] };
            assert_eq!(run(&ours, data).value, KILL_THREAD);
            assert_eq!(run(&theirs, data).value, KILL_THREAD);
        }
        assert!(compared > 2 * 1200, "only {compared} decisions for {setting:?}");
    }
}

/// Both machines, kernels on both sides of the one version that matters, and of grants: none,
/// Docker's, all, and each capability alone.
fn settings() -> Vec<Setting> {
    let alone = CapabilitySet::from_bits(!0).iter().map(|c| CapabilitySet::EMPTY.with(c));
    let grants: Vec<CapabilitySet> =
        [CapabilitySet::EMPTY, CapabilitySet::docker_default(), CapabilitySet::from_bits(!0)]
            .into_iter()
            .chain(alone)
            .collect();
    let mut settings = Vec::new();
    for machine in [Machine::X86_64, Machine::Aarch64] {
        for granted in &grants {
            let kernel = KernelVersion { major: 6, minor: 18 };
            settings.push(Setting { machine, granted: *granted, kernel });
        }
        for (major, minor) in [(3, 19), (4, 7), (4, 8), (5, 0)] {
            let kernel = KernelVersion { major, minor };
            settings.push(Setting { machine, granted: CapabilitySet::docker_default(), kernel });
        }
    }
    settings
}

/// The rules as a profile that a user gives.
fn document(machine: Machine, rules: &[Rule]) -> String {
    let group = |rule: &Rule| {
        let args = rule.args.iter().map(|(index, op, value, two)| {
            serde_json::json!({
                "index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{op}"),
            })
        });
        serde_json::json!({
            "names": rule.names,
            "action": if rule.errno.is_some() { "SCMP_ACT_ERRNO" } else { "SCMP_ACT_ALLOW" },
            "errnoRet": rule.errno,
            "args": args.collect::<Vec<_>>(),
            "includes": null,
        })
    };
    let document = serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": match machine {
            Machine::X86_64 => ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            Machine::Aarch64 => ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        },
        "syscalls": rules.iter().map(group).collect::<Vec<_>>(),
    });
    document.to_string()
}

/// What our program has to answer, given libseccomp's.
fn expected(abi: Abi, mut data: Data, theirs: &[SockFilter], table: &NumberTable) -> Answer {
    // Promise 2: a socket's family is the `int` that the kernel takes it for.
    let is_native = abi != Abi::X86_64 || data.number < X32_BIT;
    if is_native && data.number == socket_number(abi) {
        data.arguments[0] &= 0xffff_ffff;
    }
    expected_of_any(abi, data, theirs, table)
}

/// The same of any profile, of whose rules nothing is known.
fn expected_of_any(abi: Abi, data: Data, theirs: &[SockFilter], table: &NumberTable) -> Answer {
    // Promise 1: no x32. libseccomp, too, takes every number from here on for x32.
    if abi == Abi::X86_64 && data.number >= X32_BIT {
        return Answer { value: EPERM, read_argument: false };
    }
    // Calls that this libseccomp is too old to know by name.
    if table.unknown_but_allowed.contains(&data.number) {
        return Answer { value: ALLOW, read_argument: false };
    }
    let answer = run(theirs, data);
    // Promise 3: what is newer than the profile is unknown, not forbidden.
    let newer = data.number > table.newest;
    if newer && answer.value == EPERM { Answer { value: ENOSYS, ..answer } } else { answer }
}

/// What the numbers of one calling convention mean under some rules.
struct NumberTable {
    newest: u32,
    unknown_but_allowed: BTreeSet<u32>,
}

impl NumberTable {
    fn new(abi: Abi, reference: &Reference, rules: &[Rule]) -> Self {
        let numbers = &reference.numbers[arch_name(abi)];
        let known = |name: &str| {
            numbers.get(name).and_then(|n| u32::try_from(*n).ok()).filter(|n| *n < ARM_PRIVATE)
        };
        let mut unknown_but_allowed = BTreeSet::new();
        let mut newest = 0;
        for rule in rules {
            for name in &rule.names {
                // -1: no such name at all; other negative numbers: not in this convention.
                let number = if numbers[name] == -1 { new_number(abi, name) } else { known(name) };
                newest = newest.max(number.unwrap_or(0));
                if numbers[name] == -1 {
                    assert!(rule.errno.is_none() && rule.args.is_empty(), "{name}");
                    unknown_but_allowed.extend(number);
                }
            }
        }
        Self { newest, unknown_but_allowed }
    }
}

fn new_number(abi: Abi, name: &str) -> Option<u32> {
    if name == URETPROBE.0 {
        return (abi == Abi::X86_64).then_some(URETPROBE.1);
    }
    if name == FOREIGN {
        return None;
    }
    let found = NEW_CALLS.iter().find(|call| call.0 == name);
    Some(found.unwrap_or_else(|| panic!("libseccomp does not know `{name}`")).1)
}

/// The `syscalls` crate and libseccomp must number every name of the rules alike.
fn compare_numbers(reference: &Reference) {
    let mut differences = Vec::new();
    for abi in [Abi::X86_64, Abi::I386, Abi::Aarch64, Abi::Arm] {
        let ours: BTreeMap<&str, u32> =
            abi.calls().into_iter().map(|(n, name)| (name, n)).collect();
        for (name, number) in &reference.numbers[arch_name(abi)] {
            let theirs = match number {
                -1 => new_number(abi, name),
                // Reached through `socketcall` or `ipc` as well as directly, which libseccomp
                // marks with a number of its own. The decisions show what it takes them for.
                -299..=-101 if abi == Abi::I386 => continue,
                _ => u32::try_from(*number).ok(),
            };
            let ours = ours.get(name.as_str()).copied();
            if ours != theirs {
                differences.push((abi, name, ours, theirs));
            }
        }
    }
    assert_eq!(differences, [], "convention, name, our number, libseccomp's");
}

fn arch_name(abi: Abi) -> &'static str {
    match abi {
        Abi::X86_64 => "x86_64",
        Abi::I386 => "i386",
        Abi::Aarch64 => "aarch64",
        Abi::Arm => "arm",
    }
}

fn socket_number(abi: Abi) -> u32 {
    match abi {
        Abi::X86_64 => 41,
        Abi::I386 => 359,
        Abi::Aarch64 => 198,
        Abi::Arm => 281,
    }
}

fn is_64_bit(abi: Abi) -> bool {
    matches!(abi, Abi::X86_64 | Abi::Aarch64)
}

/// Our own profile as rules of libseccomp's kind, by reading the data and nothing else.
fn own_rules(setting: Setting) -> Vec<Rule> {
    let mut rules = Vec::new();
    for group in PROFILE {
        let applies = match group.when {
            When::Always => true,
            When::Granted(capability) => setting.granted.contains(capability),
            When::NotGranted(capability) => !setting.granted.contains(capability),
            When::Kernel(least) => {
                (setting.kernel.major, setting.kernel.minor) >= (least.major, least.minor)
            }
            When::On(family) => {
                (family == Family::X86) == matches!(setting.machine, Machine::X86_64)
            }
        };
        if !applies {
            continue;
        }
        let names: Vec<String> = group.names.split_whitespace().map(str::to_owned).collect();
        let mut add = |errno, args| rules.push(Rule { names: names.clone(), errno, args });
        match group.verdict {
            Verdict::Allow => add(None, Vec::new()),
            Verdict::Errno(errno) => add(Some(u32::from(errno)), Vec::new()),
            Verdict::Test(ArgumentTest::In { argument, allowed }) => {
                for value in allowed {
                    add(None, vec![(argument.into(), "EQ", u64::from(*value), 0)]);
                }
            }
            Verdict::Test(ArgumentTest::Clear { argument, mask }) => {
                add(None, vec![(argument.into(), "MASKED_EQ", u64::from(mask), 0)]);
            }
            Verdict::Test(ArgumentTest::IntNotIn { argument, refused }) => {
                let refused: BTreeSet<u32> = refused.iter().copied().collect();
                let (least, most) = (refused.first().unwrap(), refused.last().unwrap());
                add(None, vec![(argument.into(), "LT", u64::from(*least), 0)]);
                for value in (*least..=*most).filter(|v| !refused.contains(v)) {
                    add(None, vec![(argument.into(), "EQ", u64::from(value), 0)]);
                }
                add(None, vec![(argument.into(), "GT", u64::from(*most), 0)]);
            }
            Verdict::Answer(_) | Verdict::Rules(_) => unreachable!("the profile is Docker's"),
        }
    }
    rules
}

/// Moby's profile file and its rules of inclusion (`seccomp_linux.go`).
mod moby {
    use super::*;

    #[derive(Deserialize)]
    pub struct Profile {
        #[serde(rename = "defaultErrnoRet")]
        default_errno: u32,
        syscalls: Vec<Entry>,
    }

    #[derive(Deserialize)]
    struct Entry {
        names: Vec<String>,
        action: String,
        #[serde(rename = "errnoRet")]
        errno: Option<u32>,
        #[serde(default)]
        args: Vec<Arg>,
        #[serde(default)]
        includes: Condition,
        #[serde(default)]
        excludes: Condition,
    }

    #[derive(Deserialize)]
    struct Arg {
        index: u32,
        value: u64,
        #[serde(rename = "valueTwo", default)]
        value_two: u64,
        op: String,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Condition {
        caps: Vec<String>,
        arches: Vec<String>,
        #[serde(rename = "minKernel")]
        min_kernel: Option<String>,
    }

    pub fn rules(profile: &Profile, setting: Setting) -> Vec<Rule> {
        assert_eq!(profile.default_errno, 1);
        let arch = match setting.machine {
            Machine::X86_64 => "amd64",
            Machine::Aarch64 => "arm64",
        };
        let has = |name: &String| {
            setting.granted.contains(name.parse::<Capability>().expect("a capability"))
        };
        let reached = |version: &String| {
            let (major, minor) = version.split_once('.').expect("a version");
            let least = (major.parse().unwrap(), minor.parse().unwrap());
            (setting.kernel.major, setting.kernel.minor) >= least
        };
        profile
            .syscalls
            .iter()
            .filter(|entry| {
                let (yes, no) = (&entry.includes, &entry.excludes);
                let included = yes.caps.iter().all(has)
                    && (yes.arches.is_empty() || yes.arches.iter().any(|a| a == arch))
                    && yes.min_kernel.iter().all(reached);
                let excluded = no.caps.iter().any(has)
                    || no.arches.iter().any(|a| a == arch)
                    || no.min_kernel.iter().any(reached);
                included && !excluded
            })
            .map(|entry| Rule {
                names: entry.names.clone(),
                errno: match entry.action.as_str() {
                    "SCMP_ACT_ALLOW" => None,
                    "SCMP_ACT_ERRNO" => Some(entry.errno.unwrap_or(1)),
                    other => panic!("unexpected action {other}"),
                },
                args: entry.args.iter().map(comparison).collect(),
            })
            .collect()
    }

    fn comparison(arg: &Arg) -> (u32, &'static str, u64, u64) {
        let operator = match arg.op.as_str() {
            "SCMP_CMP_LT" => "LT",
            "SCMP_CMP_EQ" => "EQ",
            "SCMP_CMP_GT" => "GT",
            "SCMP_CMP_MASKED_EQ" => "MASKED_EQ",
            other => panic!("unexpected operator {other}"),
        };
        (arg.index, operator, arg.value, arg.value_two)
    }
}

/// 0 to 600, the same with the x32 bit, arm's private ones, and the ends of what there is.
fn call_numbers() -> impl Iterator<Item = u32> {
    let low = 0..=600u32;
    let x32 = low.clone().map(|number| number | X32_BIT);
    let private = ARM_PRIVATE - 1..ARM_PRIVATE + 16;
    let ends = [1024, 0x7fff, X32_BIT - 1, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, u32::MAX];
    low.chain(x32).chain(private).chain(ends)
}

/// Arguments at, below and above each operand of the rules, and with each bit of each mask, in
/// every argument that a rule looks at. A 32-bit program cannot set the upper half.
fn boundary_arguments(rules: &[Rule], wide: bool) -> Vec<[u64; 6]> {
    let mut values = BTreeSet::from([0, 1, 0xffff_ffff]);
    let mut positions = BTreeSet::from([0]);
    for (argument, operator, a, b) in rules.iter().flat_map(|rule| &rule.args) {
        positions.insert(*argument as usize);
        for value in [*a, *b] {
            values.extend([value.wrapping_sub(1), value, value.wrapping_add(1)]);
        }
        if *operator == "MASKED_EQ" {
            values.extend((0..32).map(|bit| 1u64 << bit));
            values.extend([!*a & 0xffff_ffff, *a | 0x11, *a & 0x5555_5555]);
        }
    }
    let halves: &[u64] = if wide { &[0, 1, 0x8000_0000, 0xffff_ffff] } else { &[0] };
    let mut arguments = BTreeSet::new();
    for value in values.iter().map(|value| value & 0xffff_ffff) {
        for upper in halves {
            for position in &positions {
                for background in [0, 0xdead_beef] {
                    let mut set = [background; 6];
                    set[*position] = value | upper << 32;
                    arguments.insert(set);
                }
            }
        }
    }
    arguments.into_iter().collect()
}

/// Runs the reference, or says why it cannot.
fn libseccomp(request: &Request) -> Option<Reference> {
    let started = Command::new("python3")
        .args(["-c", include_str!("seccomp_differential/reference.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let output = match started {
        Ok(mut child) => {
            let mut stdin = child.stdin.take().unwrap();
            // The script reads everything before it writes; if it has left, its status says why.
            let _ = stdin.write_all(&serde_json::to_vec(request).unwrap());
            drop(stdin);
            child.wait_with_output().unwrap()
        }
        Err(error) => return skip(&format!("python3: {error}")),
    };
    let message = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) {
        return skip(message.trim());
    }
    assert!(output.status.success(), "reference failed: {message}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn skip(reason: &str) -> Option<Reference> {
    assert!(
        std::env::var_os("RBUILD_REQUIRE_LIBSECCOMP").is_none(),
        "RBUILD_REQUIRE_LIBSECCOMP is set, but {reason}"
    );
    eprintln!("skipped: needs python3 and libseccomp.so.2: {reason}");
    None
}

/// Eight bytes an instruction, in the byte order of this machine.
fn parse_program(hex: &str) -> Vec<SockFilter> {
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    assert!(!bytes.is_empty() && bytes.len().is_multiple_of(8));
    bytes
        .chunks_exact(8)
        .map(|raw| SockFilter {
            code: u16::from_ne_bytes([raw[0], raw[1]]),
            jt: raw[2],
            jf: raw[3],
            k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
        })
        .collect()
}

/// `struct seccomp_data`, less the instruction pointer.
#[derive(Debug, Clone, Copy)]
struct Data {
    number: u32,
    arch: u32,
    arguments: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 if offset.is_multiple_of(4) => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
            _ => panic!("load at {offset}"),
        }
    }
}

/// What a program returned, and whether it looked at an argument on the way.
#[derive(Debug, Clone, Copy)]
struct Answer {
    value: u32,
    read_argument: bool,
}

/// A classic BPF interpreter for what seccomp programs use (`linux/bpf_common.h`).
fn run(program: &[SockFilter], data: Data) -> Answer {
    let (mut accumulator, mut index) = (0u32, 0u32);
    let mut memory = [0u32; 16];
    let mut at = 0usize;
    let mut read_argument = false;
    loop {
        let SockFilter { code, jt, jf, k } = program[at];
        let taken = |test: bool| usize::from(if test { jt } else { jf });
        at += 1;
        match code {
            0x20 => {
                accumulator = data.word(k);
                read_argument |= k >= 16;
            }
            0x00 => accumulator = k,
            0x01 => index = k,
            0x60 => accumulator = memory[k as usize],
            0x61 => index = memory[k as usize],
            0x02 => memory[k as usize] = accumulator,
            0x03 => memory[k as usize] = index,
            0x54 => accumulator &= k,
            0x5c => accumulator &= index,
            0x44 => accumulator |= k,
            0x07 => index = accumulator,
            0x87 => accumulator = index,
            0x05 => at += k as usize,
            0x15 => at += taken(accumulator == k),
            0x25 => at += taken(accumulator > k),
            0x35 => at += taken(accumulator >= k),
            0x45 => at += taken(accumulator & k != 0),
            0x1d => at += taken(accumulator == index),
            0x06 => return Answer { value: k, read_argument },
            0x16 => return Answer { value: accumulator, read_argument },
            other => panic!("instruction {other:#x} at {}", at - 1),
        }
    }
}
