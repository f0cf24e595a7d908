//! Device rules as an eBPF program, which is what restricts devices on v2 (cgroup-v2.rst, "Device controller").
//!
//! Pure. The program is given what is asked for (kind, numbers, access) and answers 1 or 0. It goes through the rules
//! from the last to the first, because later ones override earlier ones, and keeps the accesses that no rule has decided
//! yet: a matching rule that permits takes away its own, one that forbids ends it if any of its own is left. What no
//! rule mentions is permitted, as it is by the controller of v1 in a group that nothing was written to.

use super::{DeviceKind, DeviceRule};
use crate::sys::bpf::Instruction;

/// Registers: the answer, the argument, then what was asked for.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const ACCESS: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Operations, from linux/bpf_common.h and linux/bpf.h. Jumps compare 32 bits, because numbers are unsigned.
const LOAD_32: u8 = 0x61;
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP: u8 = 0x05;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const JUMP_IF_ANY_SET: u8 = 0x46;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_ACC_*`.
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MAKE | READ | WRITE;

/// `BPF_DEVCG_DEV_*`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// The program for rules in their order.
pub(super) fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    // `struct bpf_cgroup_dev_ctx`: access in the upper and kind in the lower half of the first word, then the numbers.
    let mut program = vec![
        load(ACCESS, 0),
        with(MOVE_REGISTER, KIND | ACCESS << 4, 0, 0),
        with(AND, KIND, 0, 0xffff),
        with(SHIFT_RIGHT, ACCESS, 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        append(&mut program, rule);
        if is_final(rule) {
            // The kernel refuses instructions that are never reached.
            return program;
        }
    }
    program.extend(answer(true));
    program
}

/// Whether no request gets beyond the rule.
fn is_final(rule: &DeviceRule) -> bool {
    rule.kind == DeviceKind::All && rule.major.is_none() && rule.minor.is_none() && access(rule) == ALL
}

fn append(program: &mut Vec<Instruction>, rule: &DeviceRule) {
    let mut conditions = Vec::new();
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => conditions.push((KIND, BLOCK)),
        DeviceKind::Character => conditions.push((KIND, CHARACTER)),
    }
    conditions.extend(rule.major.map(|major| (MAJOR, major.cast_signed())));
    conditions.extend(rule.minor.map(|minor| (MINOR, minor.cast_signed())));
    let verdict = verdict(rule);
    let mut left = conditions.len() + verdict.len();
    for (register, value) in conditions {
        left -= 1;
        program.push(with(JUMP_UNLESS_EQUAL, register, distance(left), value));
    }
    program.extend(verdict);
}

/// What a rule does with a request that it matches.
fn verdict(rule: &DeviceRule) -> Vec<Instruction> {
    let access = access(rule);
    let mut verdict = Vec::new();
    if access != ALL {
        if rule.allow {
            verdict.push(with(AND, ACCESS, 0, ALL & !access));
            verdict.push(with(JUMP_UNLESS_EQUAL, ACCESS, 2, 0));
        } else {
            verdict.push(with(JUMP_IF_ANY_SET, ACCESS, 1, access));
            verdict.push(with(JUMP, 0, 2, 0));
        }
    }
    verdict.extend(answer(rule.allow));
    verdict
}

fn access(rule: &DeviceRule) -> i32 {
    let bit = |letter: char| match letter {
        'm' => MAKE,
        'r' => READ,
        'w' => WRITE,
        _ => 0,
    };
    rule.access.chars().map(bit).fold(0, |all, bit| all | bit)
}

fn answer(allow: bool) -> [Instruction; 2] {
    [with(MOVE, ANSWER, 0, i32::from(allow)), with(EXIT, 0, 0, 0)]
}

fn load(register: u8, offset: i16) -> Instruction {
    with(LOAD_32, register | CONTEXT << 4, offset, 0)
}

fn with(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

fn distance(instructions: usize) -> i16 {
    i16::try_from(instructions).expect("a rule is a few instructions")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A machine for these instructions, which refuses what the kernel's verifier would.
    fn run(program: &[Instruction], kind: i32, access: i32, numbers: (u32, u32)) -> bool {
        let context = [(access << 16 | kind).cast_unsigned(), numbers.0, numbers.1];
        let mut registers = [0_u32; 6];
        let mut at = 0;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let constant = immediate.cast_unsigned();
            at += 1;
            let jumps = match code {
                LOAD_32 => {
                    assert_eq!(from, usize::from(CONTEXT));
                    registers[to] = context[usize::try_from(offset / 4).unwrap()];
                    false
                }
                MOVE => {
                    registers[to] = constant;
                    false
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                AND => {
                    registers[to] &= constant;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= constant;
                    false
                }
                JUMP => true,
                JUMP_UNLESS_EQUAL => registers[to] != constant,
                JUMP_IF_ANY_SET => registers[to] & constant != 0,
                EXIT => return registers[usize::from(ANSWER)] == 1,
                other => panic!("{other:#x}"),
            };
            if jumps {
                at += usize::try_from(offset).unwrap();
            }
        }
    }

    /// Each access by itself: the last rule that mentions it decides.
    fn decided(rules: &[DeviceRule], kind: i32, access: i32, (major, minor): (u32, u32)) -> bool {
        let matches = |rule: &DeviceRule| {
            let of_kind = match rule.kind {
                DeviceKind::All => true,
                DeviceKind::Block => kind == BLOCK,
                DeviceKind::Character => kind == CHARACTER,
            };
            of_kind
                && rule.major.is_none_or(|number| number == major)
                && rule.minor.is_none_or(|number| number == minor)
        };
        [('m', MAKE), ('r', READ), ('w', WRITE)].into_iter().filter(|(_, bit)| access & bit != 0).all(|(letter, _)| {
            let last = rules.iter().rev().find(|rule| matches(rule) && rule.access.contains(letter));
            last.is_none_or(|rule| rule.allow)
        })
    }

    #[test]
    fn the_usual_rules_permit_the_usual_devices_only() {
        let program = compile(&DeviceRule::defaults());
        let ask = |kind, access, numbers| run(&program, kind, access, numbers);
        assert!(ask(CHARACTER, READ | WRITE, (1, 3)), "null");
        assert!(ask(CHARACTER, READ | WRITE, (136, 7)), "a terminal");
        assert!(ask(CHARACTER, MAKE, (1, 11)), "a node of the kernel's log may be made");
        assert!(!ask(CHARACTER, READ, (1, 11)), "but not read");
        assert!(!ask(BLOCK, READ, (1, 3)), "a block device of the numbers of null");
        assert!(!ask(BLOCK, MAKE | READ, (8, 0)), "a disk");
    }

    #[test]
    fn no_rules_permit_everything() {
        assert!(run(&compile(&[]), BLOCK, ALL, (8, 0)));
    }

    fn rule() -> impl Strategy<Value = DeviceRule> {
        let number = || prop_oneof![Just(None), (0_u32..3).prop_map(Some), Just(Some(u32::MAX))];
        let kind = prop_oneof![Just(DeviceKind::All), Just(DeviceKind::Block), Just(DeviceKind::Character)];
        let access = prop_oneof![Just("rwm"), Just("rw"), Just("r"), Just("w"), Just("m"), Just("wm")];
        (any::<bool>(), kind, number(), number(), access).prop_map(|(allow, kind, major, minor, access)| DeviceRule {
            allow,
            kind,
            major,
            minor,
            access: access.to_owned(),
        })
    }

    proptest! {
        #[test]
        fn a_program_decides_as_its_rules_say(
            rules in proptest::collection::vec(rule(), 0..6),
            kind in 1..=2_i32,
            access in 1..=7_i32,
            major in prop_oneof![0_u32..3, Just(u32::MAX)],
            minor in prop_oneof![0_u32..3, Just(u32::MAX)],
        ) {
            let program = compile(&rules);
            prop_assert_eq!(run(&program, kind, access, (major, minor)), decided(&rules, kind, access, (major, minor)));
        }
    }
}
