//! The program is run by an interpreter of its own and compared with what the profile says.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscallBuilder,
};
use proptest::prelude::*;

use super::compile::{action_of, beyond, entries, rules_of};
use super::*;
use crate::container::Instruction;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0x8000_0000;

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
struct Call {
    number: u32,
    audit: u32,
    arguments: [u64; 6],
}

impl Call {
    fn native(name: &str, arguments: [u64; 6]) -> Self {
        let native = Architecture::X86_64;
        Self { number: number(native, name).unwrap(), audit: native.audit(), arguments }
    }

    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.audit,
            8 | 12 => 0,
            _ => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                let half = if offset.is_multiple_of(8) { argument } else { argument >> 32 };
                u32::try_from(half & 0xffff_ffff).unwrap()
            }
        }
    }
}

fn interpret(program: &[Instruction], call: &Call) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let holds = match code {
            0x20 => {
                accumulator = call.word(k);
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return k,
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            _ => panic!("unknown instruction {code:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

/// What the profile says, read directly.
fn expected(profile: &LinuxSeccomp, call: &Call) -> u32 {
    let default = action_of(profile.default_action(), profile.default_errno_ret()).unwrap();
    let listed = |architecture| {
        profile
            .architectures()
            .iter()
            .flatten()
            .any(|arch| Architecture::of(*arch, Architecture::X86_64) == Some(architecture))
    };
    let (architecture, number) = match call.audit {
        0xc000_003e if call.number == u32::MAX => return default,
        0xc000_003e if call.number >= 0x4000_0000 && listed(Architecture::X32) => {
            (Architecture::X32, call.number & !0x4000_0000)
        }
        0xc000_003e if call.number >= 0x4000_0000 => return KILL,
        0xc000_003e => (Architecture::X86_64, call.number),
        0x4000_0003 if listed(Architecture::X86) => (Architecture::X86, call.number),
        _ => return KILL,
    };
    let rules = rules_of(&entries(profile, &mut Vec::new()).unwrap(), architecture, default);
    if rules.keys().last().is_some_and(|last| number > *last) {
        return beyond(default);
    }
    let rules = rules.get(&number).map(Vec::as_slice).unwrap_or_default();
    if let Some(rule) = rules.iter().find(|rule| rule.conditions.is_empty()) {
        return rule.action;
    }
    let holds = |condition: &LinuxSeccompArg| {
        let (argument, value) = (call.arguments[condition.index()], condition.value());
        match condition.op() {
            LinuxSeccompOperator::ScmpCmpNe => argument != value,
            LinuxSeccompOperator::ScmpCmpLt => argument < value,
            LinuxSeccompOperator::ScmpCmpLe => argument <= value,
            LinuxSeccompOperator::ScmpCmpEq => argument == value,
            LinuxSeccompOperator::ScmpCmpGe => argument >= value,
            LinuxSeccompOperator::ScmpCmpGt => argument > value,
            LinuxSeccompOperator::ScmpCmpMaskedEq => argument & value == condition.value_two().unwrap_or(0),
        }
    };
    rules.iter().find(|rule| rule.conditions.iter().all(holds)).map_or(default, |rule| rule.action)
}

fn number(architecture: Architecture, name: &str) -> Option<u32> {
    find(name).and_then(|call| architecture.number_in(call))
}

#[test]
fn the_table_of_numbers_is_sorted() {
    assert!(numbers::TABLE.is_sorted_by(|a, b| a.0 < b.0));
}

#[test]
fn numbers_are_those_of_this_host() {
    let native = Architecture::native();
    assert_eq!(number(native, "openat"), u32::try_from(libc::SYS_openat).ok());
    assert_eq!(number(native, "clone3"), u32::try_from(libc::SYS_clone3).ok());
    assert_eq!(number(native, "ppoll"), u32::try_from(libc::SYS_ppoll).ok());
    assert_eq!(number(Architecture::X86, "socketcall"), Some(102));
    assert_eq!(number(Architecture::Aarch64, "open"), None);
}

#[test]
fn every_name_of_the_default_profile_is_known() {
    for native in [Architecture::X86_64, Architecture::Aarch64] {
        let filter = compile(&default_profile(&["CAP_SYS_ADMIN", "CAP_SYS_TIME"], native), native).unwrap();
        assert_eq!(filter.warnings, Vec::<String>::new());
        assert!(filter.program.len() < 700, "{} instructions", filter.program.len());
    }
}

fn default_verdict(capabilities: &[&str], call: &Call) -> u32 {
    let filter = compile(&default_profile(capabilities, Architecture::X86_64), Architecture::X86_64).unwrap();
    interpret(&filter.program, call)
}

#[test]
fn the_default_profile_decides_as_docker_does() {
    let none = [0; 6];
    let verdict = |name, arguments| default_verdict(&[], &Call::native(name, arguments));
    assert_eq!(verdict("read", none), ALLOW);
    assert_eq!(verdict("mount", none), EPERM);
    assert_eq!(verdict("io_uring_setup", none), EPERM);
    assert_eq!(verdict("clone3", none), ENOSYS);
    assert_eq!(verdict("clone", none), ALLOW);
    assert_eq!(verdict("clone", [0x2000_0000, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(verdict("socket", [2, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(verdict("socket", [40, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(verdict("personality", [0x2_0008, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(verdict("personality", [0x4_0000, 0, 0, 0, 0, 0]), EPERM);
}

#[test]
fn a_capability_opens_what_it_governs() {
    let admin = ["CAP_SYS_ADMIN"];
    assert_eq!(default_verdict(&admin, &Call::native("mount", [0; 6])), ALLOW);
    assert_eq!(default_verdict(&admin, &Call::native("clone3", [0; 6])), ALLOW);
    assert_eq!(default_verdict(&admin, &Call::native("clone", [0x2000_0000, 0, 0, 0, 0, 0])), ALLOW);
    assert_eq!(default_verdict(&admin, &Call::native("settimeofday", [0; 6])), EPERM);
    assert_eq!(default_verdict(&["CAP_SYS_TIME"], &Call::native("settimeofday", [0; 6])), ALLOW);
}

#[test]
fn unknown_numbers_and_architectures_are_refused_each_in_its_way() {
    let future = Call { number: 4000, audit: Architecture::X86_64.audit(), arguments: [0; 6] };
    assert_eq!(default_verdict(&[], &future), ENOSYS);
    let foreign = Call { number: 0, audit: Architecture::Aarch64.audit(), arguments: [0; 6] };
    assert_eq!(default_verdict(&[], &foreign), KILL);
    let skipped = Call { number: u32::MAX, audit: Architecture::X86_64.audit(), arguments: [0; 6] };
    assert_eq!(default_verdict(&[], &skipped), EPERM);
    let x32_read = Call { number: 0x4000_0000, audit: Architecture::X86_64.audit(), arguments: [0; 6] };
    assert_eq!(default_verdict(&[], &x32_read), ALLOW);
}

#[test]
fn notification_is_refused_by_name() {
    let profile = LinuxSeccompBuilder::default().default_action(LinuxSeccompAction::ScmpActNotify).build().unwrap();
    let error = compile(&profile, Architecture::X86_64).unwrap_err();
    assert_eq!(error, SeccompError::Unsupported { what: "SCMP_ACT_NOTIFY".to_owned() });
}

fn operator() -> impl Strategy<Value = LinuxSeccompOperator> {
    prop::sample::select(vec![
        LinuxSeccompOperator::ScmpCmpNe,
        LinuxSeccompOperator::ScmpCmpLt,
        LinuxSeccompOperator::ScmpCmpLe,
        LinuxSeccompOperator::ScmpCmpEq,
        LinuxSeccompOperator::ScmpCmpGe,
        LinuxSeccompOperator::ScmpCmpGt,
        LinuxSeccompOperator::ScmpCmpMaskedEq,
    ])
}

/// Values close to each other and to the border between the halves.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..4_u64,
        (0..4_u64).prop_map(|low| low << 32 | 1),
        (0..4_u64).prop_map(|low| 0xffff_fffe + low),
        any::<u64>()
    ]
}

fn conditions() -> impl Strategy<Value = Vec<LinuxSeccompArg>> {
    let one = (0..6_usize, operator(), value(), value()).prop_map(|(index, op, value, second)| {
        LinuxSeccompArgBuilder::default().index(index).op(op).value(value).value_two(second).build().unwrap()
    });
    prop::collection::vec(one, 0..4)
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    let actions = vec![
        (LinuxSeccompAction::ScmpActAllow, 0_u32),
        (LinuxSeccompAction::ScmpActErrno, 38),
        (LinuxSeccompAction::ScmpActErrno, 1),
        (LinuxSeccompAction::ScmpActLog, 0),
        (LinuxSeccompAction::ScmpActKillProcess, 0),
    ];
    let names = prop::collection::vec(0..numbers::TABLE.len(), 1..20);
    let rule =
        (names, prop::sample::select(actions.clone()), conditions()).prop_map(|(names, (action, errno), args)| {
            let names: Vec<String> = names.into_iter().map(|row| numbers::TABLE[row].0.to_owned()).collect();
            LinuxSyscallBuilder::default().names(names).action(action).errno_ret(errno).args(args).build().unwrap()
        });
    let architectures = prop::sample::subsequence(vec![Arch::ScmpArchX86, Arch::ScmpArchX32], 0..=2);
    (prop::collection::vec(rule, 0..6), prop::sample::select(actions), architectures).prop_map(
        |(rules, (action, errno), architectures)| {
            LinuxSeccompBuilder::default()
                .default_action(action)
                .default_errno_ret(errno)
                .architectures(architectures)
                .syscalls(rules)
                .build()
                .unwrap()
        },
    )
}

fn call() -> impl Strategy<Value = Call> {
    let number = prop_oneof![8 => 0..480_u32, 2 => (0..560_u32).prop_map(|n| n | 0x4000_0000), 1 => Just(u32::MAX)];
    let audit = prop::sample::select(vec![0xc000_003e, 0xc000_003e, 0x4000_0003, 0xc000_00b7]);
    (number, audit, prop::array::uniform6(value())).prop_map(|(number, audit, arguments)| Call {
        number,
        audit,
        arguments,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_program_decides_as_its_profile_says(profile in profile(), calls in prop::collection::vec(call(), 100)) {
        let filter = compile(&profile, Architecture::X86_64).unwrap();
        for call in calls {
            prop_assert_eq!(interpret(&filter.program, &call), expected(&profile, &call), "{:?}", call);
        }
    }
}
