//! Instructions, and a program with labels.

use std::collections::BTreeMap;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Insn {
    pub(super) code: u8,
    /// Destination in the low, source in the high four bits.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// The register that has the end of a program's own memory.
pub(super) const FRAME: u8 = 10;

/// Where in a row of 64-bit numbers this one is.
pub(super) const fn offset(of: usize) -> i16 {
    of as i16 * 8
}

/// Says that the immediate of a 64-bit load is a map's descriptor.
const PSEUDO_MAP: u8 = 1;
/// The same, and that the address of its first value is meant (5.2).
const PSEUDO_MAP_VALUE: u8 = 2;

const ADD: i32 = 0;
const FETCH_ADD: i32 = 1;
const EXCHANGE: i32 = 0xe1;

impl Insn {
    const fn new(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Insn {
        Insn { code, registers: src << 4 | dst, offset, immediate }
    }
    /// `dst = *(u32 *)(src + offset)`
    pub(super) const fn load(dst: u8, src: u8, offset: i16) -> Insn {
        Insn::new(0x61, dst, src, offset, 0)
    }
    /// `dst = src`, 32 bits
    pub(super) const fn copy(dst: u8, src: u8) -> Insn {
        Insn::new(0xbc, dst, src, 0, 0)
    }
    /// `dst = value`, 32 bits
    pub(super) const fn set(dst: u8, value: i32) -> Insn {
        Insn::new(0xb4, dst, 0, 0, value)
    }
    /// `dst &= mask`, 32 bits
    pub(super) const fn and(dst: u8, mask: i32) -> Insn {
        Insn::new(0x54, dst, 0, 0, mask)
    }
    /// `dst |= mask`, 32 bits
    pub(super) const fn or(dst: u8, mask: i32) -> Insn {
        Insn::new(0x44, dst, 0, 0, mask)
    }
    /// `dst >>= bits`, 32 bits
    pub(super) const fn shift_right(dst: u8, bits: i32) -> Insn {
        Insn::new(0x74, dst, 0, 0, bits)
    }
    /// `if dst != value skip the next n`, 32 bits (kernel 5.1)
    pub(super) const fn skip_unless(dst: u8, value: u32, n: i16) -> Insn {
        Insn::new(0x56, dst, 0, n, value.cast_signed())
    }
    pub(super) const fn exit() -> Insn {
        Insn::new(0x95, 0, 0, 0, 0)
    }
    /// `dst = src`, 64 bits: a pointer too
    pub(super) const fn copy64(dst: u8, src: u8) -> Insn {
        Insn::new(0xbf, dst, src, 0, 0)
    }
    /// `dst = value` with its sign, 64 bits
    pub(super) const fn set64(dst: u8, value: i32) -> Insn {
        Insn::new(0xb7, dst, 0, 0, value)
    }
    /// `dst += value`, 64 bits
    pub(super) const fn add64(dst: u8, value: i32) -> Insn {
        Insn::new(0x07, dst, 0, 0, value)
    }
    /// `dst -= src`, 64 bits
    pub(super) const fn subtract64(dst: u8, src: u8) -> Insn {
        Insn::new(0x1f, dst, src, 0, 0)
    }
    /// `dst = value`, 64 bits; two instructions.
    #[allow(clippy::cast_possible_truncation)] // its two halves
    pub(super) const fn number(dst: u8, value: u64) -> [Insn; 2] {
        [Insn::new(0x18, dst, 0, 0, value as i32), Insn::new(0, 0, 0, 0, (value >> 32) as i32)]
    }
    /// `dst = *(u64 *)(src + offset)`
    pub(super) const fn load64(dst: u8, src: u8, offset: i16) -> Insn {
        Insn::new(0x79, dst, src, offset, 0)
    }
    /// `*(u64 *)(dst + offset) = src`
    pub(super) const fn store64(dst: u8, src: u8, offset: i16) -> Insn {
        Insn::new(0x7b, dst, src, offset, 0)
    }
    /// `*(u32 *)(dst + offset) = src`
    pub(super) const fn store(dst: u8, src: u8, offset: i16) -> Insn {
        Insn::new(0x63, dst, src, offset, 0)
    }
    /// `*(u64 *)(dst + offset) += src`, atomically
    pub(super) const fn atomic_add(dst: u8, src: u8, offset: i16) -> Insn {
        Insn::new(0xdb, dst, src, offset, ADD)
    }
    /// The same, and `src` is what was there before (5.12)
    pub(super) const fn fetch_add(dst: u8, src: u8, offset: i16) -> Insn {
        Insn::new(0xdb, dst, src, offset, FETCH_ADD)
    }
    /// `src` and `*(u64 *)(dst + offset)` change places (5.12)
    pub(super) const fn exchange(dst: u8, src: u8, offset: i16) -> Insn {
        Insn::new(0xdb, dst, src, offset, EXCHANGE)
    }
    /// Calls a helper of the kernel: arguments in 1 to 5, its answer in 0; 6 to 9 stay as they are.
    pub(super) const fn call(helper: i32) -> Insn {
        Insn::new(0x85, 0, 0, 0, helper)
    }
    /// `dst = the map`; two instructions.
    pub(super) const fn map(dst: u8, fd: i32) -> [Insn; 2] {
        [Insn::new(0x18, dst, PSEUDO_MAP, 0, fd), Insn::new(0, 0, 0, 0, 0)]
    }
    /// `dst = the address of the map's value`; two instructions.
    pub(super) const fn map_value(dst: u8, fd: i32) -> [Insn; 2] {
        [Insn::new(0x18, dst, PSEUDO_MAP_VALUE, 0, fd), Insn::new(0, 0, 0, 0, 0)]
    }
}

/// When to jump.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    Always,
    /// A register is this number (64 bits).
    Is(u8, i32),
    /// A register is not this number (64 bits).
    IsNot(u8, i32),
    /// A register is at least another, with signs.
    AtLeast(u8, u8),
    /// A register is at most another, with signs.
    AtMost(u8, u8),
    /// A register is zero or negative.
    NotPositive(u8),
}

/// A program whose jumps have names.
#[derive(Debug, Default)]
pub(super) struct Program {
    code: Vec<Insn>,
    labels: BTreeMap<&'static str, usize>,
    jumps: Vec<(usize, &'static str)>,
}

impl Program {
    pub(super) fn add(&mut self, code: impl IntoIterator<Item = Insn>) -> &mut Self {
        self.code.extend(code);
        self
    }

    pub(super) fn jump(&mut self, when: When, to: &'static str) -> &mut Self {
        self.jumps.push((self.code.len(), to));
        self.code.push(match when {
            When::Always => Insn::new(0x05, 0, 0, 0, 0),
            When::Is(register, value) => Insn::new(0x15, register, 0, 0, value),
            When::IsNot(register, value) => Insn::new(0x55, register, 0, 0, value),
            When::AtLeast(a, b) => Insn::new(0x7d, a, b, 0, 0),
            When::AtMost(a, b) => Insn::new(0xdd, a, b, 0, 0),
            When::NotPositive(register) => Insn::new(0xd5, register, 0, 0, 0),
        });
        self
    }

    pub(super) fn label(&mut self, name: &'static str) -> &mut Self {
        self.labels.insert(name, self.code.len());
        self
    }

    /// The instructions. A jump to a label that is not there stays a jump to the next instruction: the kernel's
    /// verifier is the judge of every program.
    pub(super) fn assemble(mut self) -> Vec<Insn> {
        for (at, to) in self.jumps {
            let distance = self.labels.get(to).map_or(0, |label| label.abs_diff(at + 1));
            self.code[at].offset = i16::try_from(distance).unwrap_or(i16::MAX); // labels come after their jumps
        }
        self.code
    }
}
