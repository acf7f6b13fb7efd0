//! From the profile to a program.
//!
//! For each calling convention the profile is first laid out as *ranges*: call numbers from 0 to
//! the largest `u32`, without a gap, neighbours with the same verdict merged. A binary search over
//! the ranges' starts (`JGE`) then ends in one of a few leaves: return instructions that all
//! branches share, or the test of an argument.
//!
//! Jumps go forward only and reach 255 instructions. So the program is written back to front
//! ([`Assembler`]), where the target of every jump is known already; a leaf out of reach is
//! written again.
//!
//! Only loads, comparisons with constants and returns are used. The kernel (5.11 and later) can
//! therefore run the program in advance for every number, and skips it where the answer is "allow"
//! whatever the arguments are.

use super::super::capabilities::CapabilitySet;
use super::abi::{ARM_PRIVATE, Abi, Machine, X32_BIT};
use super::document::{Comparison, Condition, Given, Rule};
use super::profile::{ArgumentTest, DEFAULT_ERRNO, PROFILE, Verdict, When};
use super::{KernelVersion, SockFilter};

/// The program for a machine, a grant and a kernel.
pub(super) fn compile(
    machine: Machine,
    granted: CapabilitySet,
    kernel: KernelVersion,
) -> Vec<SockFilter> {
    let verdicts = verdicts(machine, granted, kernel);
    program(Assembler::default(), &machine.abis(), |abi| ranges(abi, &verdicts))
}

/// The program for a profile that was given.
///
/// # Errors
/// When the kernel would not take it for its length.
pub(super) fn compile_given(given: &Given) -> Result<Vec<SockFilter>, String> {
    let default = Verdict::Answer(given.default);
    // Whoever allows what is not named allows what nobody could name.
    let newer = match given.default {
        ALLOW | LOG => default,
        _ => Verdict::Errno(libc::ENOSYS as u16),
    };
    let assembler =
        Assembler { rules: given.rules.clone(), default: Some(default), ..Assembler::default() };
    let ranges = |abi| {
        let verdict = |name: &str| given.named.get(name).map(|rules| Verdict::Rules(*rules));
        ranges_of(abi, verdict, default, newer)
    };
    let program = program(assembler, &given.abis, ranges);
    match program.len() {
        ..=MAX_PROGRAM => Ok(program),
        length => {
            Err(format!("it makes {length} instructions, and the kernel takes {MAX_PROGRAM}"))
        }
    }
}

/// Decides by the calling convention first. Others than these kill.
fn program(
    mut assembler: Assembler,
    abis: &[Abi],
    ranges: impl Fn(Abi) -> Vec<Range>,
) -> Vec<SockFilter> {
    let mut entry = assembler.emit(RETURN, KILL_THREAD);
    // The native convention comes last, hence first in the program, with the shortest jump.
    for abi in abis.iter().rev() {
        let block = assembler.block(&ranges(*abi));
        entry = assembler.branch(JUMP_EQUAL, abi.audit_arch(), block, entry);
    }
    assembler.load(ARCH_OFFSET, entry);
    assembler.finish()
}

/// Verdicts by name, sorted, each name once.
type Verdicts = Vec<(&'static str, Verdict)>;

/// The part of the profile that applies.
fn verdicts(machine: Machine, granted: CapabilitySet, kernel: KernelVersion) -> Verdicts {
    let mut verdicts = Verdicts::with_capacity(512);
    for group in PROFILE {
        let applies = match group.when {
            When::Always => true,
            When::Granted(capability) => granted.contains(capability),
            When::NotGranted(capability) => !granted.contains(capability),
            When::Kernel(least) => kernel >= least,
            When::On(family) => machine.family() == family,
        };
        if applies {
            verdicts.extend(group.names.split_ascii_whitespace().map(|n| (n, group.verdict)));
        }
    }
    // Of a name's verdicts the greatest, which is the most permissive, comes last and stays.
    verdicts.sort();
    verdicts.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 = later.1;
        }
        same
    });
    verdicts
}

/// Call numbers from `start` to the next range's start, or to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u32,
    verdict: Verdict,
}

/// Lays the verdicts out over all numbers, beginning with 0.
fn ranges(abi: Abi, verdicts: &Verdicts) -> Vec<Range> {
    let verdict = |name: &str| {
        let found = verdicts.binary_search_by_key(&name, |entry| entry.0).ok()?;
        Some(verdicts[found].1)
    };
    let newer = Verdict::Errno(libc::ENOSYS as u16);
    ranges_of(abi, verdict, Verdict::Errno(DEFAULT_ERRNO), newer)
}

/// The same for any profile: `default` is for calls that it does not name, `newer` for those that
/// nobody could name when it was written.
fn ranges_of(
    abi: Abi,
    verdict: impl Fn(&str) -> Option<Verdict>,
    default: Verdict,
    newer: Verdict,
) -> Vec<Range> {
    let calls = abi.calls().into_iter();
    let named: Vec<(u32, Verdict)> =
        calls.filter_map(|(number, name)| Some((number, verdict(name)?))).collect();
    // Above this number no call can have been known to the profile's authors.
    let newest = named.iter().map(|call| call.0).filter(|n| *n < ARM_PRIVATE).max().unwrap_or(0);
    let unnamed = |number: u32| match number {
        _ if number <= newest => default,
        _ if abi == Abi::X86_64 && number >= X32_BIT => Verdict::Errno(DEFAULT_ERRNO),
        _ => newer,
    };

    let mut starts = Vec::with_capacity(2 * named.len() + 3);
    starts.push(Range { start: 0, verdict: unnamed(0) });
    for (number, verdict) in named {
        starts.push(Range { start: number, verdict });
        starts.push(Range { start: number + 1, verdict: unnamed(number + 1) });
    }
    if abi == Abi::X86_64 {
        starts.push(Range { start: X32_BIT, verdict: unnamed(X32_BIT) });
    }

    // Of ranges that begin at one number the last one holds (the others are empty), and one that
    // says what its predecessor says is part of it.
    let mut merged: Vec<Range> = Vec::with_capacity(starts.len());
    for range in starts {
        if merged.last().is_some_and(|last| last.start == range.start) {
            merged.pop();
        }
        if merged.last().is_none_or(|last| last.verdict != range.verdict) {
            merged.push(range);
        }
    }
    merged
}

// Operations (`linux/bpf_common.h`).
/// `BPF_LD | BPF_W | BPF_ABS`: load a word of `struct seccomp_data`.
const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JA`
const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`
const JUMP_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGE | BPF_K`, unsigned.
const JUMP_AT_LEAST: u16 = 0x35;
/// `BPF_JMP | BPF_JSET | BPF_K`
const JUMP_ANY_BIT: u16 = 0x45;
/// `BPF_JMP | BPF_JGT | BPF_K`, unsigned.
const JUMP_ABOVE: u16 = 0x25;
/// `BPF_ALU | BPF_AND | BPF_K`
const AND: u16 = 0x54;
/// `BPF_RET | BPF_K`
const RETURN: u16 = 0x06;

// Answers (`linux/seccomp.h`).
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL_THREAD: u32 = libc::SECCOMP_RET_KILL_THREAD;
const ERRNO: u32 = libc::SECCOMP_RET_ERRNO;
const LOG: u32 = libc::SECCOMP_RET_LOG;

/// Longest program that the kernel takes (`BPF_MAXINSNS`).
const MAX_PROGRAM: usize = 4096;

// `struct seccomp_data`: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6].
const NUMBER_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;
const ARGUMENTS_OFFSET: u32 = 16;

/// Offset of the lower half of an argument; the upper half follows. All machines that we build
/// for are little-endian.
const fn argument_offset(argument: u8) -> u32 {
    ARGUMENTS_OFFSET + 8 * argument as u32
}

/// Writes a program back to front.
#[derive(Default)]
struct Assembler {
    /// The program reversed: what is pushed next comes *before* all of this.
    reversed: Vec<SockFilter>,
    /// Leaves of the present block.
    leaves: Vec<(Verdict, Label)>,
    /// What [`Verdict::Rules`] stands for.
    rules: Vec<Vec<Rule>>,
    /// What holds where none of them does.
    default: Option<Verdict>,
}

/// An instruction that was written: its index in the reversed program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label(usize);

impl Assembler {
    fn emit(&mut self, code: u16, k: u32) -> Label {
        self.push(SockFilter { code, jt: 0, jf: 0, k })
    }

    fn push(&mut self, instruction: SockFilter) -> Label {
        self.reversed.push(instruction);
        Label(self.reversed.len() - 1)
    }

    /// How many instructions lie between the one to be written next and a target.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - target.0 - 1
    }

    /// A label that does what `target` does and that the next two instructions can jump to.
    fn within_reach(&mut self, target: Label) -> Label {
        // The second of them is one further away.
        if self.distance(target) < usize::from(u8::MAX) {
            return target;
        }
        let instruction = self.reversed[target.0];
        if instruction.code == RETURN {
            return self.push(instruction);
        }
        let distance = self.distance(target);
        self.emit(JUMP, distance as u32)
    }

    fn branch(&mut self, code: u16, k: u32, then: Label, otherwise: Label) -> Label {
        let otherwise = self.within_reach(otherwise);
        let then = self.within_reach(then);
        let jt = self.distance(then) as u8;
        let jf = self.distance(otherwise) as u8;
        self.push(SockFilter { code, jt, jf, k })
    }

    /// Loads a word and goes on at `next`.
    fn load(&mut self, offset: u32, next: Label) -> Label {
        self.go_on(LOAD, offset, next)
    }

    /// An instruction after which it goes on at `next`.
    fn go_on(&mut self, code: u16, k: u32, next: Label) -> Label {
        let distance = self.distance(next);
        if distance > 0 {
            self.emit(JUMP, distance as u32);
        }
        self.emit(code, k)
    }

    /// The decision over all call numbers of one calling convention.
    fn block(&mut self, ranges: &[Range]) -> Label {
        self.leaves.clear();
        let search = self.search(ranges);
        self.load(NUMBER_OFFSET, search)
    }

    /// The decision over some neighbouring ranges, the number being loaded.
    fn search(&mut self, ranges: &[Range]) -> Label {
        match ranges {
            [] => self.leaf(Verdict::Errno(DEFAULT_ERRNO)),
            [only] => self.leaf(only.verdict),
            _ => {
                let (below, above) = ranges.split_at(ranges.len() / 2);
                let upper = self.search(above);
                let lower = self.search(below);
                self.branch(JUMP_AT_LEAST, above[0].start, upper, lower)
            }
        }
    }

    fn leaf(&mut self, verdict: Verdict) -> Label {
        if let Some((_, label)) = self.leaves.iter().find(|(known, _)| *known == verdict) {
            return *label;
        }
        let label = match verdict {
            Verdict::Allow => self.emit(RETURN, ALLOW),
            Verdict::Errno(errno) => self.emit(RETURN, ERRNO | u32::from(errno)),
            Verdict::Test(test) => self.argument_test(test),
            Verdict::Answer(answer) => self.emit(RETURN, answer),
            Verdict::Rules(number) => self.rules(number),
        };
        self.leaves.push((verdict, label));
        label
    }

    fn argument_test(&mut self, test: ArgumentTest) -> Label {
        let allow = self.leaf(Verdict::Allow);
        let refuse = self.leaf(Verdict::Errno(DEFAULT_ERRNO));
        match test {
            ArgumentTest::IntNotIn { argument, refused } => {
                let first = refused
                    .iter()
                    .fold(allow, |next, value| self.branch(JUMP_EQUAL, *value, refuse, next));
                self.load(argument_offset(argument), first)
            }
            ArgumentTest::In { argument, allowed } => {
                let first = allowed
                    .iter()
                    .fold(refuse, |next, value| self.branch(JUMP_EQUAL, *value, allow, next));
                let lower = self.load(argument_offset(argument), first);
                let upper = self.branch(JUMP_EQUAL, 0, lower, refuse);
                self.load(argument_offset(argument) + 4, upper)
            }
            ArgumentTest::Clear { argument, mask } => {
                let test = self.branch(JUMP_ANY_BIT, mask, refuse, allow);
                self.load(argument_offset(argument), test)
            }
        }
    }

    /// The first of some rules whose conditions all hold decides.
    fn rules(&mut self, number: usize) -> Label {
        let rules = self.rules.get(number).cloned().unwrap_or_default();
        let mut otherwise = self.leaf(self.default.unwrap_or(Verdict::Errno(DEFAULT_ERRNO)));
        for rule in rules.iter().rev() {
            let answer = self.leaf(Verdict::Answer(rule.answer));
            let conditions = rule.conditions.iter().rev();
            otherwise = conditions
                .fold(answer, |then, condition| self.condition(condition, then, otherwise));
        }
        otherwise
    }

    /// A comparison of 64 bits, half by half.
    fn condition(&mut self, condition: &Condition, then: Label, otherwise: Label) -> Label {
        let Condition { argument, comparison, negated } = *condition;
        let (then, otherwise) = if negated { (otherwise, then) } else { (then, otherwise) };
        let lower_half = argument_offset(argument);
        let upper_half = lower_half + 4;
        let halves = |value: u64| ((value >> 32) as u32, value as u32);
        match comparison {
            Comparison::Masked { mask, value } => {
                let ((mask_upper, mask_lower), (upper, lower)) = (halves(mask), halves(value));
                let test = self.branch(JUMP_EQUAL, lower, then, otherwise);
                let masked = self.go_on(AND, mask_lower, test);
                let lower = self.load(lower_half, masked);
                let test = self.branch(JUMP_EQUAL, upper, lower, otherwise);
                let masked = self.go_on(AND, mask_upper, test);
                self.load(upper_half, masked)
            }
            Comparison::Above { value, or_equal } => {
                let (upper, lower) = halves(value);
                let code = if or_equal { JUMP_AT_LEAST } else { JUMP_ABOVE };
                let test = self.branch(code, lower, then, otherwise);
                let lower = self.load(lower_half, test);
                let equal = self.branch(JUMP_EQUAL, upper, lower, otherwise);
                let above = self.branch(JUMP_ABOVE, upper, then, equal);
                self.load(upper_half, above)
            }
        }
    }

    fn finish(mut self) -> Vec<SockFilter> {
        self.reversed.reverse();
        self.reversed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: KernelVersion = KernelVersion { major: 6, minor: 1 };

    #[test]
    fn ranges_begin_at_zero_ascend_and_differ_from_their_neighbours() {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let verdicts = verdicts(machine, CapabilitySet::docker_default(), KERNEL);
            assert!(verdicts.is_sorted_by(|a, b| a.0 < b.0));
            for abi in machine.abis() {
                let ranges = ranges(abi, &verdicts);
                assert_eq!(ranges[0].start, 0);
                assert!(ranges.is_sorted_by(|a, b| a.start < b.start), "{abi:?}");
                assert!(ranges.windows(2).all(|pair| pair[0].verdict != pair[1].verdict));
            }
        }
    }

    #[test]
    fn programs_are_small_and_every_jump_stays_inside() {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            for granted in [
                CapabilitySet::EMPTY,
                CapabilitySet::docker_default(),
                CapabilitySet::from_bits(!0),
            ] {
                let program = compile(machine, granted, KERNEL);
                assert!(program.len() < 600, "{machine:?} {granted:?}: {}", program.len());
                for (at, instruction) in program.iter().enumerate() {
                    let furthest = match instruction.code {
                        RETURN => continue,
                        LOAD => 0,
                        JUMP => instruction.k as usize,
                        _ => usize::from(instruction.jt.max(instruction.jf)),
                    };
                    assert!(at + 1 + furthest < program.len(), "{machine:?} at {at}");
                }
            }
        }
    }

    #[test]
    fn a_name_with_two_verdicts_gets_the_more_permissive() {
        let all = verdicts(Machine::X86_64, CapabilitySet::from_bits(!0), KERNEL);
        let of = |name| all.iter().find(|entry| entry.0 == name).map(|entry| entry.1);
        assert_eq!(of("clone"), Some(Verdict::Allow));
        assert_eq!(of("clone3"), Some(Verdict::Allow));
        assert_eq!(of("keyctl"), None);
    }

    #[test]
    fn far_leaves_are_written_again() {
        // More ranges than a jump can span: every second number is allowed.
        let ranges: Vec<Range> = (0..2000)
            .map(|start| {
                let allow = start % 2 == 1;
                Range { start, verdict: if allow { Verdict::Allow } else { Verdict::Errno(1) } }
            })
            .collect();
        let mut assembler = Assembler::default();
        assembler.block(&ranges);
        let program = assembler.finish();
        for number in 0..2100u32 {
            let expected = if number.min(1999) % 2 == 1 { ALLOW } else { ERRNO | 1 };
            assert_eq!(run(&program, number), expected, "{number}");
        }
    }

    /// Runs the instructions of a search.
    fn run(program: &[SockFilter], number: u32) -> u32 {
        let mut at = 0;
        loop {
            let SockFilter { code, jt, jf, k } = program[at];
            at += 1 + match code {
                LOAD => 0,
                JUMP => k as usize,
                JUMP_AT_LEAST if number >= k => usize::from(jt),
                JUMP_AT_LEAST => usize::from(jf),
                RETURN => return k,
                other => panic!("unexpected {other:#x}"),
            };
        }
    }
}
