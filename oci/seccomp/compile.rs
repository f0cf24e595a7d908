//! Profile → program.
//!
//! One section per architecture; in it the numbers are cut into ranges of equal treatment, which are found by binary
//! search. Ranges without conditions end in shared return instructions.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};

use super::assembler::{Assembler, Label, Test};
use super::numbers::Row;
use super::{Architecture, find};
use crate::container::Instruction;

/// A profile that is ready to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// For seccomp(2).
    pub program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*` bits.
    pub flags: u32,
    /// Parts of the profile that have no effect.
    pub warnings: Vec<String>,
}

/// Why a profile cannot become a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// Something that is not provided.
    #[error("{what} is not supported")]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// A system call has six arguments.
    #[error("argument {index} of {name} does not exist")]
    Argument {
        /// The system call.
        name: String,
        /// The argument that was asked for.
        index: usize,
    },
    /// An error number is not one.
    #[error("{errno} is no error number")]
    Errno {
        /// The number.
        errno: u32,
    },
    /// The kernel takes at most 4096 instructions.
    #[error("the profile takes {length} instructions, more than the kernel allows")]
    TooLong {
        /// How many it would take.
        length: usize,
    },
}

// Offsets in struct seccomp_data, and return values of seccomp(2).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const LENGTH_MAX: usize = 4096;

/// Numbers from here on are x32's; −1 is what a tracer sets to skip a call.
const X32_MARK: u32 = 0x4000_0000;
const SKIPPED: u32 = u32::MAX;

/// One way to treat a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule<'p> {
    pub(super) conditions: &'p [LinuxSeccompArg],
    pub(super) action: u32,
}

/// The rules of each number.
type Rules<'p> = BTreeMap<u32, Vec<Rule<'p>>>;

/// What happens to a range of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment<'r> {
    Always(u32),
    Rules(&'r [Rule<'r>]),
}

/// Compiles a profile for programs of the given host.
///
/// # Errors
/// When the profile asks for what is not provided or makes no sense.
pub fn compile(profile: &LinuxSeccomp, native: Architecture) -> Result<Filter, SeccompError> {
    let mut warnings = Vec::new();
    let default = action_of(profile.default_action(), profile.default_errno_ret())?;
    let architectures = architectures(profile, native, &mut warnings);
    let mut assembler = Assembler::default();
    assembler.load(ARCHITECTURE);
    let entries = entries(profile, &mut warnings)?;
    let rules = |architecture| (architecture, rules_of(&entries, architecture, default));
    let sections: Vec<_> = architectures.into_iter().map(rules).collect();
    emit(&mut assembler, &sections, default);
    let program = assembler.assemble();
    if program.len() > LENGTH_MAX {
        return Err(SeccompError::TooLong { length: program.len() });
    }
    Ok(Filter { program, flags: flags_of(profile)?, warnings })
}

fn architectures(profile: &LinuxSeccomp, native: Architecture, warnings: &mut Vec<String>) -> Vec<Architecture> {
    let mut found = vec![native];
    for arch in profile.architectures().iter().flatten() {
        match Architecture::of(*arch, native) {
            Some(architecture) => found.push(architecture),
            None => warnings.push(format!("seccomp profile: architecture {arch} is not known and was skipped")),
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn flags_of(profile: &LinuxSeccomp) -> Result<u32, SeccompError> {
    if profile.listener_path().is_some() {
        return Err(SeccompError::Unsupported { what: "listenerPath".to_owned() });
    }
    // As runc: without a word about flags, filters do not switch mitigations on.
    let Some(flags) = profile.flags() else { return Ok(4) };
    flags.iter().try_fold(0, |bits, flag| match flag {
        // The child has one thread, so there is nothing to synchronize.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Ok(bits),
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => Ok(bits | 2),
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Ok(bits | 4),
        _ => Err(SeccompError::Unsupported { what: flag.to_string() }),
    })
}

pub(super) fn action_of(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, SeccompError> {
    let number = errno.unwrap_or(EPERM);
    if number > 0xffff {
        return Err(SeccompError::Errno { errno: number });
    }
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Ok(KILL_THREAD),
        LinuxSeccompAction::ScmpActKillProcess => Ok(KILL_PROCESS),
        LinuxSeccompAction::ScmpActTrap => Ok(TRAP),
        LinuxSeccompAction::ScmpActErrno => Ok(ERRNO | number),
        LinuxSeccompAction::ScmpActTrace => Ok(TRACE | number),
        LinuxSeccompAction::ScmpActLog => Ok(LOG),
        LinuxSeccompAction::ScmpActAllow => Ok(ALLOW),
        LinuxSeccompAction::ScmpActNotify => Err(SeccompError::Unsupported { what: action.to_string() }),
    }
}

/// An entry of a profile, its names looked up once for all architectures.
#[derive(Debug)]
pub(super) struct Entry<'p> {
    action: u32,
    conditions: &'p [LinuxSeccompArg],
    calls: Vec<&'static Row>,
}

/// The entries of a profile.
pub(super) fn entries<'p>(
    profile: &'p LinuxSeccomp,
    warnings: &mut Vec<String>,
) -> Result<Vec<Entry<'p>>, SeccompError> {
    let mut found = Vec::new();
    for entry in profile.syscalls().iter().flatten() {
        let action = action_of(entry.action(), entry.errno_ret())?;
        let conditions = entry.args().as_deref().unwrap_or_default();
        if let (Some(wrong), Some(name)) =
            (conditions.iter().find(|condition| condition.index() > 5), entry.names().first())
        {
            return Err(SeccompError::Argument { name: name.clone(), index: wrong.index() });
        }
        let mut calls = Vec::with_capacity(entry.names().len());
        for name in entry.names() {
            match find(name) {
                Some(row) => calls.push(row),
                None => warnings.push(format!("seccomp profile: system call {name} is not known and was skipped")),
            }
        }
        found.push(Entry { action, conditions, calls });
    }
    Ok(found)
}

/// The rules of each number. What is treated as by default anyway is left out, as runc does.
pub(super) fn rules_of<'p>(entries: &[Entry<'p>], architecture: Architecture, default: u32) -> Rules<'p> {
    let mut found = Rules::new();
    for Entry { action, conditions, calls } in entries {
        let alternatives = alternatives(conditions);
        for number in calls.iter().filter_map(|call| architecture.number_in(call)) {
            let rules = found.entry(number).or_default();
            if *action != default {
                rules.extend(alternatives.iter().map(|conditions| Rule { conditions, action: *action }));
            }
        }
    }
    found
}

/// Conditions of one entry as rules: all must hold, unless an argument has several.
fn alternatives(conditions: &[LinuxSeccompArg]) -> Vec<&[LinuxSeccompArg]> {
    let repeated = conditions
        .iter()
        .enumerate()
        .any(|(at, condition)| conditions[..at].iter().any(|other| other.index() == condition.index()));
    if repeated { conditions.chunks(1).collect() } else { vec![conditions] }
}

/// Cuts all numbers into ranges, each given by its first number.
fn ranges<'r>(rules: &'r Rules<'_>, default: u32) -> Vec<(u32, Treatment<'r>)> {
    let mut found: Vec<(u32, Treatment<'r>)> = Vec::with_capacity(2 * rules.len() + 2);
    let mut push = |start: u32, treatment: Treatment<'r>| {
        // What ends where the next one begins was empty.
        if found.last().is_some_and(|(first, _)| *first == start) {
            found.pop();
        }
        if found.last().is_none_or(|(_, last)| *last != treatment) {
            found.push((start, treatment));
        }
    };
    push(0, Treatment::Always(default));
    for (number, rules) in rules {
        let unconditional = rules.iter().find(|rule| rule.conditions.is_empty());
        let treatment = match unconditional {
            Some(rule) => Treatment::Always(rule.action),
            None if rules.is_empty() => Treatment::Always(default),
            None => Treatment::Rules(rules),
        };
        push(*number, treatment);
        push(number + 1, Treatment::Always(default));
    }
    if let Some(last) = rules.keys().last() {
        push(last + 1, Treatment::Always(beyond(default)));
    }
    found
}

/// What happens to numbers above all that a profile names.
pub(super) fn beyond(default: u32) -> u32 {
    if default == ALLOW || default == LOG { default } else { ERRNO | ENOSYS }
}

/// Shared return instructions at the end of the program.
#[derive(Default)]
struct Returns(BTreeMap<u32, Label>);

impl Returns {
    fn label(&mut self, assembler: &mut Assembler, action: u32) -> Label {
        *self.0.entry(action).or_insert_with(|| assembler.label())
    }
}

fn emit(assembler: &mut Assembler, sections: &[(Architecture, Rules<'_>)], default: u32) {
    let mut returns = Returns::default();
    let section_of = |wanted| sections.iter().find(|(architecture, _)| *architecture == wanted).map(|(_, rules)| rules);
    for (architecture, rules) in sections.iter().filter(|(architecture, _)| *architecture != Architecture::X32) {
        let (here, next) = (assembler.label(), assembler.label());
        assembler.branch(Test::Equal, architecture.audit(), here, next);
        assembler.place(here);
        assembler.load(NUMBER);
        if *architecture == Architecture::X86_64 {
            emit_x32(assembler, &mut returns, section_of(Architecture::X32), default);
        }
        let ranges = ranges(rules, default);
        let root = emit_label(assembler, &mut returns, &ranges);
        assembler.goto(root);
        emit_search(assembler, &mut returns, &ranges, root, default);
        assembler.place(next);
    }
    // A foreign architecture could reach calls under numbers that mean something else here.
    assembler.ret(KILL_PROCESS);
    for (action, label) in returns.0 {
        assembler.place(label);
        assembler.ret(action);
    }
}

/// x32 calls share the audit number of x86-64 and have a marker bit in theirs.
fn emit_x32(assembler: &mut Assembler, returns: &mut Returns, rules: Option<&Rules<'_>>, default: u32) {
    let (marked, plain, real) = (assembler.label(), assembler.label(), assembler.label());
    assembler.branch(Test::GreaterOrEqual, X32_MARK, marked, plain);
    assembler.place(marked);
    let skipped = returns.label(assembler, default);
    assembler.branch(Test::Equal, SKIPPED, skipped, real);
    assembler.place(real);
    match rules {
        None => {
            let kill = returns.label(assembler, KILL_PROCESS);
            assembler.goto(kill);
        }
        Some(rules) => {
            assembler.and(!X32_MARK);
            let ranges = ranges(rules, default);
            let root = emit_label(assembler, returns, &ranges);
            assembler.goto(root);
            emit_search(assembler, returns, &ranges, root, default);
        }
    }
    assembler.place(plain);
}

/// Where a search among ranges begins: at a shared return if there is nothing to be searched.
fn emit_label(assembler: &mut Assembler, returns: &mut Returns, ranges: &[(u32, Treatment<'_>)]) -> Label {
    match ranges {
        [(_, Treatment::Always(action))] => returns.label(assembler, *action),
        _ => assembler.label(),
    }
}

/// Writes the search among ranges, to be reached by `label`.
fn emit_search(
    assembler: &mut Assembler,
    returns: &mut Returns,
    ranges: &[(u32, Treatment<'_>)],
    label: Label,
    default: u32,
) {
    match ranges {
        [] | [(_, Treatment::Always(_))] => {}
        [(_, Treatment::Rules(rules))] => {
            assembler.place(label);
            emit_rules(assembler, returns, rules, default);
        }
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let lower = emit_label(assembler, returns, left);
            let upper = emit_label(assembler, returns, right);
            assembler.place(label);
            assembler.branch(Test::GreaterOrEqual, right[0].0, upper, lower);
            emit_search(assembler, returns, left, lower, default);
            emit_search(assembler, returns, right, upper, default);
        }
    }
}

fn emit_rules(assembler: &mut Assembler, returns: &mut Returns, rules: &[Rule<'_>], default: u32) {
    for rule in rules {
        let failed = assembler.label();
        for condition in rule.conditions {
            let holds = assembler.label();
            emit_condition(assembler, condition, holds, failed);
            assembler.place(holds);
        }
        let action = returns.label(assembler, rule.action);
        assembler.goto(action);
        assembler.place(failed);
    }
    let action = returns.label(assembler, default);
    assembler.goto(action);
}

/// A comparison of 64 bits by two of 32.
fn emit_condition(assembler: &mut Assembler, condition: &LinuxSeccompArg, holds: Label, fails: Label) {
    let index = u32::try_from(condition.index()).expect("it was checked to be at most 5");
    let low = ARGUMENTS + 8 * index;
    let high = low + 4;
    let (value_high, value_low) = halves(condition.value());
    match condition.op() {
        LinuxSeccompOperator::ScmpCmpEq => emit_equal(assembler, low, condition.value(), holds, fails),
        LinuxSeccompOperator::ScmpCmpNe => emit_equal(assembler, low, condition.value(), fails, holds),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let (wanted_high, wanted_low) = halves(condition.value_two().unwrap_or(0));
            let next = assembler.label();
            assembler.load(high);
            assembler.and(value_high);
            assembler.branch(Test::Equal, wanted_high, next, fails);
            assembler.place(next);
            assembler.load(low);
            assembler.and(value_low);
            assembler.branch(Test::Equal, wanted_low, holds, fails);
        }
        LinuxSeccompOperator::ScmpCmpGt => emit_order(assembler, low, condition.value(), Test::Greater, holds, fails),
        LinuxSeccompOperator::ScmpCmpGe => {
            emit_order(assembler, low, condition.value(), Test::GreaterOrEqual, holds, fails);
        }
        LinuxSeccompOperator::ScmpCmpLe => emit_order(assembler, low, condition.value(), Test::Greater, fails, holds),
        LinuxSeccompOperator::ScmpCmpLt => {
            emit_order(assembler, low, condition.value(), Test::GreaterOrEqual, fails, holds);
        }
    }
}

fn halves(value: u64) -> (u32, u32) {
    let bytes = value.to_le_bytes();
    let half = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (half(4), half(0))
}

fn emit_equal(assembler: &mut Assembler, low: u32, value: u64, yes: Label, no: Label) {
    let (value_high, value_low) = halves(value);
    let next = assembler.label();
    assembler.load(low + 4);
    assembler.branch(Test::Equal, value_high, next, no);
    assembler.place(next);
    assembler.load(low);
    assembler.branch(Test::Equal, value_low, yes, no);
}

fn emit_order(assembler: &mut Assembler, low: u32, value: u64, test: Test, yes: Label, no: Label) {
    let (value_high, value_low) = halves(value);
    let (not_above, equal) = (assembler.label(), assembler.label());
    assembler.load(low + 4);
    assembler.branch(Test::Greater, value_high, yes, not_above);
    assembler.place(not_above);
    assembler.branch(Test::Equal, value_high, equal, no);
    assembler.place(equal);
    assembler.load(low);
    assembler.branch(test, value_low, yes, no);
}
