//! Classic BPF with labels.
//!
//! Jumps of classic BPF go forward only, and conditional ones at most 255 instructions. Instructions are therefore
//! collected in order and assembled from the end, where every target is known already, and a jump that is too long
//! goes through an unconditional one beside it.

use crate::container::Instruction;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const ALWAYS: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// A comparison of the accumulator with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal = 0x15,
    Greater = 0x25,
    GreaterOrEqual = 0x35,
}

/// A place in a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

#[derive(Debug, Clone, Copy)]
enum Item {
    Plain { code: u16, k: u32 },
    Branch { test: Test, k: u32, yes: Label, no: Label },
    Goto(Label),
    Place(Label),
}

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    items: Vec<Item>,
    labels: usize,
}

impl Assembler {
    pub(super) fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels - 1)
    }

    /// Says that a label means what comes next.
    pub(super) fn place(&mut self, label: Label) {
        self.items.push(Item::Place(label));
    }

    /// Loads a word of `struct seccomp_data` into the accumulator.
    pub(super) fn load(&mut self, offset: u32) {
        self.items.push(Item::Plain { code: LOAD, k: offset });
    }

    pub(super) fn and(&mut self, mask: u32) {
        self.items.push(Item::Plain { code: AND, k: mask });
    }

    pub(super) fn ret(&mut self, value: u32) {
        self.items.push(Item::Plain { code: RETURN, k: value });
    }

    pub(super) fn branch(&mut self, test: Test, k: u32, yes: Label, no: Label) {
        self.items.push(Item::Branch { test, k, yes, no });
    }

    pub(super) fn goto(&mut self, label: Label) {
        self.items.push(Item::Goto(label));
    }

    /// The program. Every label that is jumped to must have been placed after the jump.
    pub(super) fn assemble(self) -> Vec<Instruction> {
        let mut reversed: Vec<Instruction> = Vec::with_capacity(self.items.len());
        // Distance of each label from the end of the program.
        let mut places = vec![usize::MAX; self.labels];
        for item in self.items.iter().rev() {
            match *item {
                Item::Plain { code, k } => reversed.push(Instruction { code, jt: 0, jf: 0, k }),
                Item::Place(label) => places[label.0] = reversed.len(),
                Item::Goto(label) => {
                    if places[label.0] != reversed.len() {
                        jump(&mut reversed, places[label.0]);
                    }
                }
                Item::Branch { test, k, yes, no } => branch(&mut reversed, &mut places, test, k, (yes, no)),
            }
        }
        reversed.reverse();
        reversed
    }
}

fn jump(reversed: &mut Vec<Instruction>, target: usize) {
    let distance = u32::try_from(reversed.len() - target).expect("programs are shorter than that");
    reversed.push(Instruction { code: ALWAYS, jt: 0, jf: 0, k: distance });
}

fn branch(reversed: &mut Vec<Instruction>, places: &mut [usize], test: Test, k: u32, (yes, no): (Label, Label)) {
    // The second of two stepping stones makes the way to the first one longer by one, which 254 allows for.
    for label in [no, yes] {
        if reversed.len() - places[label.0] > 254 {
            jump(reversed, places[label.0]);
            // Earlier jumps to the same place use the same stone.
            places[label.0] = reversed.len();
        }
    }
    let offset = |label: Label| u8::try_from(reversed.len() - places[label.0]).expect("it was shortened above");
    let (jt, jf) = (offset(yes), offset(no));
    reversed.push(Instruction { code: test as u16, jt, jf, k });
}
