//! Packs the letters of a record into the bits of a `dna2` or `dna4` value.
//!
//! `dna2`: A=0, C=1, G=2, T=3. `dna4`: A=1, C=2, G=4, T=8, an ambiguity code is the OR of the bases it stands for. Both most
//! significant bits first, the last byte filled up with zeros (`varbit.h`). U is T, lower case is upper case, line ends are
//! no letters. A carriage return belongs to the line feed that follows it; alone it is a letter like any other that means nothing.

use super::ImportType;

/// The most bits in a varbit (VARBITMAXLEN in `varbit.h`).
const MAX_BITS: u64 = 2_147_483_640;
/// Set in table entries that are no code.
const NO_CODE: u8 = 0x80;
/// A line end.
const SKIP: u8 = NO_CODE;
/// A carriage return.
const RETURN: u8 = NO_CODE + 3;
/// An IUPAC ambiguity code where only bases can be stored.
const AMBIGUOUS: u8 = NO_CODE + 1;
/// Anything else.
const REFUSE: u8 = NO_CODE + 2;

/// The IUPAC codes of nucleotides and, as OR of A=1, C=2, G=4, T=8, what each stands for.
const IUPAC: [(u8, u8); 16] = [
    (b'A', 1),
    (b'C', 2),
    (b'G', 4),
    (b'T', 8),
    (b'U', 8),
    (b'M', 3),
    (b'R', 5),
    (b'W', 9),
    (b'S', 6),
    (b'Y', 10),
    (b'K', 12),
    (b'V', 7),
    (b'H', 11),
    (b'D', 13),
    (b'B', 14),
    (b'N', 15),
];

static DNA2: [u8; 256] = table(ImportType::Dna2);
static DNA4: [u8; 256] = table(ImportType::Dna4);

impl ImportType {
    fn codes(self) -> &'static [u8; 256] {
        match self {
            ImportType::Dna2 => &DNA2,
            ImportType::Dna4 => &DNA4,
        }
    }
}

const fn table(kind: ImportType) -> [u8; 256] {
    let mut codes = [REFUSE; 256];
    let mut index = 0;
    while index < IUPAC.len() {
        let (letter, bases) = IUPAC[index];
        let code = match kind {
            ImportType::Dna4 => bases,
            ImportType::Dna2 if bases.is_power_of_two() => bases.trailing_zeros() as u8,
            ImportType::Dna2 => AMBIGUOUS,
        };
        codes[letter as usize] = code;
        codes[letter.to_ascii_lowercase() as usize] = code;
        index += 1;
    }
    codes[b'\n' as usize] = SKIP;
    codes[b'\r' as usize] = RETURN;
    codes
}

/// Why a record cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// The base, counted from 1 without line ends.
    pub(super) position: u64,
    /// The letter there.
    pub(super) letter: u8,
    /// It is an IUPAC code that the type has no room for.
    pub(super) ambiguous: bool,
    /// The type that refused.
    pub(super) kind: ImportType,
}

/// Packs records one after the other, in one buffer.
#[derive(Debug)]
pub(super) struct Packer {
    kind: ImportType,
    bytes: Vec<u8>,
    bases: u64,
    /// Bits that do not fill a byte yet, in the low end.
    carry: u32,
    carry_bits: u32,
}

impl Packer {
    pub(super) fn new(kind: ImportType) -> Self {
        Self { kind, bytes: Vec::new(), bases: 0, carry: 0, carry_bits: 0 }
    }

    /// Packs the lines of a record; the previous record's bits are gone.
    pub(super) fn pack(&mut self, lines: &[u8]) -> Result<(), Refused> {
        self.bytes.clear();
        (self.bases, self.carry, self.carry_bits) = (0, 0, 0);
        let codes = self.kind.codes();
        match self.kind {
            ImportType::Dna2 => self.pack_as::<2, 4>(codes, lines)?,
            ImportType::Dna4 => self.pack_as::<4, 2>(codes, lines)?,
        }
        if self.carry_bits > 0 {
            self.bytes.push((self.carry << (8 - self.carry_bits)) as u8);
        }
        Ok(())
    }

    /// Length in bits and bytes of the last record; none if it is longer than a value can be.
    pub(super) fn value(&self) -> Option<(u32, &[u8])> {
        let bits = self.bases.checked_mul(u64::from(self.width()))?;
        let bits = u32::try_from(bits).ok().filter(|&bits| u64::from(bits) <= MAX_BITS)?;
        Some((bits, &self.bytes))
    }

    /// Bases of the last record.
    pub(super) fn bases(&self) -> u64 {
        self.bases
    }

    /// The most bases that a value of the type can hold.
    pub(super) fn max_bases(&self) -> u64 {
        MAX_BITS / u64::from(self.width())
    }

    fn width(&self) -> u32 {
        match self.kind {
            ImportType::Dna2 => 2,
            ImportType::Dna4 => 4,
        }
    }

    /// `WIDTH` bits a base, `GROUP` bases a byte. Groups without a line end go in as a whole byte.
    fn pack_as<const WIDTH: u32, const GROUP: usize>(
        &mut self,
        codes: &[u8; 256],
        lines: &[u8],
    ) -> Result<(), Refused> {
        self.bytes.reserve(lines.len() / GROUP + 1);
        let (groups, rest) = lines.as_chunks::<GROUP>();
        for (at, group) in groups.iter().enumerate() {
            let (mut byte, mut seen) = (0u32, 0u8);
            for &letter in group {
                let code = codes[usize::from(letter)];
                byte = byte << WIDTH | u32::from(code);
                seen |= code;
            }
            if seen & NO_CODE == 0 {
                let joined = self.carry << 8 | byte;
                self.bytes.push((joined >> self.carry_bits) as u8);
                self.carry = joined & ((1 << self.carry_bits) - 1);
                self.bases += GROUP as u64;
            } else {
                let behind = lines.get((at + 1) * GROUP);
                self.pack_slowly::<WIDTH>(codes, group, behind)?;
            }
        }
        self.pack_slowly::<WIDTH>(codes, rest, None)
    }

    /// What makes the record one that cannot be stored in any type, wherever it stands. Asked only where [`Packer::pack`] refused.
    pub(super) fn invalid(&self, lines: &[u8]) -> Option<Refused> {
        let mut position = 0;
        let codes = self.kind.codes();
        for (at, &letter) in lines.iter().enumerate() {
            match code(codes, letter, lines.get(at + 1)) {
                SKIP => {}
                REFUSE => {
                    return Some(Refused {
                        position: position + 1,
                        letter,
                        ambiguous: false,
                        kind: self.kind,
                    });
                }
                _ => position += 1,
            }
        }
        None
    }

    fn pack_slowly<const WIDTH: u32>(
        &mut self,
        codes: &[u8; 256],
        letters: &[u8],
        behind: Option<&u8>,
    ) -> Result<(), Refused> {
        for (at, &letter) in letters.iter().enumerate() {
            let code = code(codes, letter, letters.get(at + 1).or(behind));
            if code == SKIP {
                continue;
            }
            self.bases += 1;
            if code & NO_CODE != 0 {
                let (position, ambiguous) = (self.bases, code == AMBIGUOUS);
                return Err(Refused { position, letter, ambiguous, kind: self.kind });
            }
            self.carry = self.carry << WIDTH | u32::from(code);
            self.carry_bits += WIDTH;
            if self.carry_bits == 8 {
                self.bytes.push(self.carry as u8);
                (self.carry, self.carry_bits) = (0, 0);
            }
        }
        Ok(())
    }
}

/// What a letter stands for, with `next` behind it.
fn code(codes: &[u8; 256], letter: u8, next: Option<&u8>) -> u8 {
    match codes[usize::from(letter)] {
        RETURN if next == Some(&b'\n') => SKIP,
        RETURN => REFUSE,
        code => code,
    }
}
