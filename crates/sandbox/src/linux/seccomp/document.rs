//! Profiles that users give: the JSON documents of `docker run --security-opt seccomp=FILE`.
//!
//! The rules are those of moby and runc. A group of names counts when its `includes` and `excludes`
//! hold; a name that a machine does not have is skipped. Of the rules of a call one without
//! conditions holds, or else the first whose conditions all do. Conditions upon one argument twice
//! are alternatives. Where nothing is said of a call the default action holds.
//!
//! What cannot be kept is refused: notifications, which need somebody who is notified, and flags of
//! the filter.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

use super::abi::{Abi, Machine};
use super::{CapabilitySet, KernelVersion};

/// Most conditions of one rule: six arguments, each with a few alternatives.
const MAX_CONDITIONS: usize = 32;
/// What an action `SCMP_ACT_ERRNO` answers where no number is given.
const EPERM: u32 = libc::EPERM as u32;

/// A profile for one machine, ready to be compiled.
#[derive(Debug)]
pub(super) struct Given {
    /// The calling conventions that it is for, the native one first.
    pub(super) abis: Vec<Abi>,
    /// The kernel's number of what holds where nothing else does.
    pub(super) default: u32,
    /// Which of `rules` are those of a call.
    pub(super) named: BTreeMap<String, usize>,
    pub(super) rules: Vec<Vec<Rule>>,
}

/// An answer to a call, and when it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Which all have to hold.
    pub(super) conditions: Vec<Condition>,
    /// The kernel's number.
    pub(super) answer: u32,
}

/// A condition upon an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// From 0 to 5.
    pub(super) argument: u8,
    pub(super) comparison: Comparison,
    /// Whether the comparison has to fail.
    pub(super) negated: bool,
}

/// A comparison of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The argument's bits under a mask are those of a value.
    Masked { mask: u64, value: u64 },
    /// The argument is larger than a value, or at least as large.
    Above { value: u64, or_equal: bool },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    arch_map: Vec<ArchMap>,
    #[serde(default, deserialize_with = "or_default")]
    flags: Vec<String>,
    #[serde(default)]
    listener_path: String,
    #[serde(default, deserialize_with = "or_default")]
    syscalls: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    sub_architectures: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "or_default")]
    args: Vec<Argument>,
    #[serde(default, deserialize_with = "or_default")]
    includes: When,
    #[serde(default, deserialize_with = "or_default")]
    excludes: When,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct When {
    #[serde(default, deserialize_with = "or_default")]
    arches: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    caps: Vec<String>,
    min_kernel: Option<String>,
}

/// What Go writes for an empty list is `null`.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

impl Given {
    /// Reads a document for a machine, a grant and a kernel.
    ///
    /// # Errors
    /// What is wrong with it, or cannot be kept.
    pub(super) fn read(
        text: &str,
        machine: Machine,
        granted: CapabilitySet,
        kernel: KernelVersion,
    ) -> Result<Self, String> {
        let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if let Some(flag) = document.flags.first() {
            return Err(format!("the flag {flag} is not supported yet"));
        }
        if !document.listener_path.is_empty() {
            return Err("a listenerPath is not supported yet".to_owned());
        }
        let default = answer(&document.default_action, document.default_errno_ret)?;
        let mut given = Self {
            abis: abis(&document, machine),
            default,
            named: BTreeMap::new(),
            rules: Vec::new(),
        };
        let known: BTreeSet<_> = given.abis.iter().flat_map(|abi| abi.calls()).collect();
        let known: BTreeSet<&str> = known.into_iter().map(|(_, name)| name).collect();
        for group in &document.syscalls {
            let rules = group.rules()?;
            if !group.applies(machine, granted, kernel)? {
                continue;
            }
            let names: BTreeSet<&str> = group.names.iter().map(String::as_str).collect();
            let names = names.into_iter().chain([group.name.as_str()]);
            for name in names.filter(|name| known.contains(name)) {
                given.add(name, &rules);
            }
        }
        Ok(given)
    }

    fn add(&mut self, name: &str, rules: &[Rule]) {
        let next = self.rules.len();
        let number = *self.named.entry(name.to_owned()).or_insert(next);
        if number == next {
            self.rules.push(Vec::new());
        }
        let Some(all) = self.rules.get_mut(number) else { return };
        let settles = |rules: &[Rule]| rules.iter().any(|rule| rule.conditions.is_empty());
        if settles(all) {
            return;
        }
        if settles(rules) {
            all.clear();
        }
        all.extend(rules.iter().cloned());
    }
}

impl Group {
    fn rules(&self) -> Result<Vec<Rule>, String> {
        let answer = answer(&self.action, self.errno_ret)?;
        if self.args.len() > MAX_CONDITIONS {
            return Err(format!("a rule has more than {MAX_CONDITIONS} conditions"));
        }
        let conditions =
            self.args.iter().map(Argument::condition).collect::<Result<Vec<_>, String>>()?;
        let distinct: BTreeSet<u8> = conditions.iter().map(|it| it.argument).collect();
        Ok(match distinct.len() == conditions.len() {
            true => vec![Rule { conditions, answer }],
            false => {
                let each = conditions.into_iter();
                each.map(|condition| Rule { conditions: vec![condition], answer }).collect()
            }
        })
    }

    fn applies(
        &self,
        machine: Machine,
        granted: CapabilitySet,
        kernel: KernelVersion,
    ) -> Result<bool, String> {
        let architecture = match machine {
            Machine::X86_64 => "amd64",
            Machine::Aarch64 => "arm64",
        };
        let here = |when: &When| when.arches.iter().any(|name| name == architecture);
        // A capability that has no name here was granted to nobody.
        let has = |name: &String| name.parse().is_ok_and(|capability| granted.contains(capability));
        let least = |when: &When| match &when.min_kernel {
            None => Ok(None),
            Some(text) => match KernelVersion::parse(text) {
                Some(version) => Ok(Some(version)),
                None => Err(format!("{text:?} is no version of a kernel")),
            },
        };
        let (includes, excludes) = (&self.includes, &self.excludes);
        let included = (includes.arches.is_empty() || here(includes))
            && includes.caps.iter().all(has)
            && least(includes)?.is_none_or(|version| kernel >= version);
        let excluded = here(excludes)
            || excludes.caps.iter().any(has)
            || least(excludes)?.is_some_and(|version| kernel >= version);
        Ok(included && !excluded)
    }
}

impl Argument {
    fn condition(&self) -> Result<Condition, String> {
        let Self { index, value, value_two, .. } = *self;
        if index > 5 {
            return Err(format!("a call has no argument {index}"));
        }
        let equal = Comparison::Masked { mask: u64::MAX, value };
        let at_least = Comparison::Above { value, or_equal: true };
        let above = Comparison::Above { value, or_equal: false };
        let (comparison, negated) = match self.op.as_str() {
            "SCMP_CMP_EQ" => (equal, false),
            "SCMP_CMP_NE" => (equal, true),
            "SCMP_CMP_GE" => (at_least, false),
            "SCMP_CMP_LT" => (at_least, true),
            "SCMP_CMP_GT" => (above, false),
            "SCMP_CMP_LE" => (above, true),
            "SCMP_CMP_MASKED_EQ" => (Comparison::Masked { mask: value, value: value_two }, false),
            other => return Err(format!("there is no comparison {other:?}")),
        };
        Ok(Condition { argument: index, comparison, negated })
    }
}

/// The kernel's number of an action.
fn answer(action: &str, number: Option<u32>) -> Result<u32, String> {
    let number = number.unwrap_or(EPERM) & libc::SECCOMP_RET_DATA;
    Ok(match action {
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | number,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | number,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        other => return Err(format!("the action {other:?} is not supported yet")),
    })
}

/// The native calling convention, and the other one if the document names it.
fn abis(document: &Document, machine: Machine) -> Vec<Abi> {
    let name = |abi: Abi| match abi {
        Abi::X86_64 => "SCMP_ARCH_X86_64",
        Abi::I386 => "SCMP_ARCH_X86",
        Abi::Aarch64 => "SCMP_ARCH_AARCH64",
        Abi::Arm => "SCMP_ARCH_ARM",
    };
    let [native, other] = machine.abis();
    let mapped = document.arch_map.iter().filter(|map| map.architecture == name(native));
    let mapped = mapped.flat_map(|map| &map.sub_architectures);
    let named = document.architectures.iter().chain(mapped).any(|it| it == name(other));
    if named { vec![native, other] } else { vec![native] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::compile::compile_given;
    use super::super::{SockFilter, profile_filter};
    use super::*;

    const KERNEL: KernelVersion = KernelVersion { major: 6, minor: 1 };
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | EPERM;

    fn filter(text: &str) -> Result<Vec<SockFilter>, String> {
        let granted = CapabilitySet::docker_default();
        compile_given(&Given::read(text, Machine::X86_64, granted, KERNEL)?)
    }

    /// What the kernel would answer to a call of x86-64.
    fn answer(program: &[SockFilter], number: u32, arguments: [u64; 6]) -> u32 {
        let mut words = vec![number, Abi::X86_64.audit_arch(), 0, 0];
        words.extend(arguments.iter().flat_map(|it| [*it as u32, (*it >> 32) as u32]));
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let SockFilter { code, jt, jf, k } = program[at];
            let jump = |holds: bool| usize::from(if holds { jt } else { jf });
            at += 1 + match code {
                0x20 => {
                    accumulator = words[k as usize / 4];
                    0
                }
                0x54 => {
                    accumulator &= k;
                    0
                }
                0x05 => k as usize,
                0x15 => jump(accumulator == k),
                0x25 => jump(accumulator > k),
                0x35 => jump(accumulator >= k),
                0x06 => return k,
                other => panic!("unexpected {other:#x}"),
            };
        }
    }

    fn with_rule(rule: &str) -> Vec<SockFilter> {
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                {{"names": ["chmod", "no_such_call"], "action": "SCMP_ACT_ALLOW", {rule}}}]}}"#
        );
        filter(&text).unwrap()
    }

    /// `chmod` on x86-64.
    const CHMOD: u32 = 90;

    #[test]
    fn comparisons_look_at_all_bits() {
        const HIGH: u64 = 1 << 40;
        for (op, value, two, holds, fails) in [
            ("EQ", HIGH + 5, 0, vec![HIGH + 5], vec![5, HIGH, HIGH + 4]),
            ("NE", HIGH + 5, 0, vec![5, HIGH], vec![HIGH + 5]),
            ("GT", HIGH + 5, 0, vec![HIGH + 6, 2 * HIGH, u64::MAX], vec![HIGH + 5, 6, HIGH]),
            ("GE", HIGH + 5, 0, vec![HIGH + 5, 2 * HIGH], vec![HIGH + 4, 0, u64::MAX >> 25]),
            ("LT", HIGH + 5, 0, vec![HIGH + 4, 0, 99], vec![HIGH + 5, 2 * HIGH]),
            ("LE", HIGH + 5, 0, vec![HIGH + 5, 0], vec![HIGH + 6, u64::MAX]),
            ("MASKED_EQ", HIGH + 1, 1, vec![1, 3, 1 << 41 | 1], vec![0, HIGH, HIGH + 1]),
        ] {
            let rule = format!(
                r#""args": [{{"index": 2, "value": {value}, "valueTwo": {two}, "op": "SCMP_CMP_{op}"}}]"#
            );
            let program = with_rule(&rule);
            let of = |argument| answer(&program, CHMOD, [7, 7, argument, 7, 7, 7]);
            for argument in holds {
                assert_eq!(of(argument), ALLOW, "{op} {argument:#x}");
            }
            for argument in fails {
                assert_eq!(of(argument), REFUSE, "{op} {argument:#x}");
            }
        }
    }

    #[test]
    fn conditions_upon_several_arguments_all_hold_and_upon_one_any() {
        let condition = |index, value| {
            format!(r#"{{"index": {index}, "value": {value}, "op": "SCMP_CMP_EQ"}}"#)
        };
        let both = with_rule(&format!(r#""args": [{}, {}]"#, condition(0, 1), condition(1, 2)));
        let of = |program: &[SockFilter], a, b| answer(program, CHMOD, [a, b, 0, 0, 0, 0]);
        assert_eq!([of(&both, 1, 2), of(&both, 1, 3), of(&both, 3, 2)], [ALLOW, REFUSE, REFUSE]);
        let any = with_rule(&format!(r#""args": [{}, {}]"#, condition(0, 1), condition(0, 2)));
        assert_eq!([of(&any, 1, 9), of(&any, 2, 9), of(&any, 3, 9)], [ALLOW, ALLOW, REFUSE]);
    }

    #[test]
    fn groups_count_where_their_conditions_hold() {
        let of = |rule: &str| answer(&with_rule(rule), CHMOD, [0; 6]);
        for rule in [
            r#""args": null, "comment": "fine""#,
            r#""includes": {"arches": ["amd64", "x32"], "caps": ["CAP_CHOWN"], "minKernel": "4.8"}"#,
            r#""excludes": {"arches": ["s390x"], "caps": ["CAP_SYS_ADMIN"], "minKernel": "7.0"}"#,
        ] {
            assert_eq!(of(rule), ALLOW, "{rule}");
        }
        for rule in [
            r#""includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}"#,
            r#""includes": {"arches": ["arm64"]}"#,
            r#""includes": {"minKernel": "6.2"}"#,
            r#""excludes": {"caps": ["CAP_CHOWN"]}"#,
            r#""excludes": {"arches": ["amd64"]}"#,
            r#""excludes": {"minKernel": "6.1"}"#,
        ] {
            assert_eq!(of(rule), REFUSE, "{rule}");
        }
    }

    #[test]
    fn what_is_not_named_gets_the_default() {
        let program = with_rule(r#""includes": {}"#);
        // `mkdir`, one that is newer than `chmod`, and one of x32.
        assert_eq!(answer(&program, 83, [0; 6]), REFUSE);
        let not_there = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        assert_eq!(answer(&program, 400, [0; 6]), not_there);
        assert_eq!(answer(&program, 0x4000_0000 + CHMOD, [0; 6]), REFUSE);
        let open = r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1, "syscalls": [
            {"name": "chmod", "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#;
        let program = filter(open).unwrap();
        assert_eq!(answer(&program, CHMOD, [0; 6]), not_there);
        assert_eq!([83, 400, 5000].map(|number| answer(&program, number, [0; 6])), [ALLOW; 3]);
    }

    #[test]
    fn what_cannot_be_kept_is_named() {
        for (text, told) in [
            ("", "EOF"),
            ("{}", "defaultAction"),
            (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY"),
            (r#"{"defaultAction": "SCMP_ACT_LOG", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}"#, "flag"),
            (r#"{"defaultAction": "SCMP_ACT_LOG", "listenerPath": "/x"}"#, "listenerPath"),
            (
                r#"{"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": [],
                    "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 1, "op": "x"}]}]}"#,
                "argument 6",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": [],
                    "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}]}"#,
                "\"new\"",
            ),
        ] {
            let error = filter(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    fn document() -> impl Strategy<Value = String> {
        let name = prop_oneof![Just("chmod"), Just("read"), Just("clone3"), Just("nope")];
        let op = prop_oneof![Just("EQ"), Just("LT"), Just("MASKED_EQ"), Just("NO")];
        let action = prop_oneof![Just("ALLOW"), Just("ERRNO"), Just("KILL"), Just("MAYBE")];
        let args = proptest::collection::vec((0..8_u8, any::<u64>(), op), 0..5);
        let group = (name, action, args).prop_map(|(name, action, args)| {
            let args = args.into_iter().map(|(index, value, op)| {
                format!(r#"{{"index": {index}, "value": {value}, "op": "SCMP_CMP_{op}"}}"#)
            });
            let args = args.collect::<Vec<_>>().join(",");
            format!(r#"{{"names": ["{name}"], "action": "SCMP_ACT_{action}", "args": [{args}]}}"#)
        });
        proptest::collection::vec(group, 0..40).prop_map(|groups| {
            let groups = groups.join(",");
            format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{groups}]}}"#)
        })
    }

    proptest! {
        #[test]
        fn any_document_is_read_without_panic(text in prop_oneof![document(), any::<String>()]) {
            let _ = profile_filter(&text, CapabilitySet::docker_default());
        }

        #[test]
        fn every_jump_stays_inside(text in document(), number in 0..500_u32, argument: u64) {
            if let Ok(program) = filter(&text) {
                answer(&program, number, [argument; 6]);
            }
        }
    }
}
