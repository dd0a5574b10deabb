//! Bases as 2-bit codes (`dna2`), as 4-bit sets (`dna4`) and as letters.
//!
//! dna2: A = 0, C = 1, G = 2, T = 3, four bases a byte, the first in the high bits. dna4: A = 1, C = 2, G = 4, T = 8, a degenerate code is the
//! OR of its bases (IUPAC), N = 15, 0 is no code; two bases a byte, the first in the high bits.

/// Letters by 2-bit code.
pub const LETTERS: [u8; 4] = *b"ACGT";

/// Letters by 4-bit code; `?` for 0, which is none.
pub const DNA4_LETTERS: [u8; 16] = *b"?ACMGRSVTWYHKDBN";

/// The 2-bit code of A, C, G, T or U, upper or lower case.
pub const fn dna2_code(letter: u8) -> Option<u8> {
    let code = DNA2_CODES[letter as usize];
    if code < 4 { Some(code) } else { None }
}

/// 2-bit codes by letter, 4 where there is none.
const DNA2_CODES: [u8; 256] = {
    let (mut codes, mut letter) = ([4; 256], 0);
    while letter < 256 {
        codes[letter] = match (letter as u8).to_ascii_uppercase() {
            b'A' => 0,
            b'C' => 1,
            b'G' => 2,
            b'T' | b'U' => 3,
            _ => 4,
        };
        letter += 1;
    }
    codes
};

/// The 4-bit code of an IUPAC letter, upper or lower case, U as T.
pub const fn dna4_code(letter: u8) -> Option<u8> {
    let letter = if letter.eq_ignore_ascii_case(&b'U') { b'T' } else { letter.to_ascii_uppercase() };
    let mut code = 1;
    while code < 16 {
        if DNA4_LETTERS[code as usize] == letter {
            return Some(code);
        }
        code += 1;
    }
    None
}

/// Writes the `k` bases of a k-mer as letters into `text`.
pub fn write_kmer(kmer: u64, k: u32, text: &mut Vec<u8>) {
    text.extend((0..k).rev().map(|i| LETTERS[(kmer >> (2 * i) & 3) as usize]));
}

/// A k-mer from its letters; `None` when a letter is none of A, C, G, T, U, or there are more than 32.
pub fn parse_kmer(letters: &[u8]) -> Option<u64> {
    if letters.len() > 32 {
        return None;
    }
    letters.iter().try_fold(0u64, |kmer, letter| Some(kmer << 2 | u64::from(dna2_code(*letter)?)))
}

/// Says for a message why `letters` are no k-mer: how many they are, or which is none of those that [`parse_kmer`] takes, and where, from 1 on.
pub fn why_no_kmer(letters: &str, k: usize) -> String {
    let other =
        letters.chars().zip(1..).find(|(letter, _)| !letter.is_ascii() || dna2_code(*letter as u8).is_none());
    match other {
        Some((letter, at)) if letters.chars().count() == k => format!("{letter:?} at {at}"),
        _ => format!("{} letters", letters.chars().count()),
    }
}

/// Packs letters as dna2, four a byte, the last byte zero-padded; `None` at a letter that has no code.
pub fn pack_dna2(letters: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; letters.len().div_ceil(4)];
    for (i, letter) in letters.iter().enumerate() {
        bytes[i / 4] |= dna2_code(*letter)? << (6 - 2 * (i % 4));
    }
    Some(bytes)
}

/// Packs letters as dna4, two a byte, the last byte zero-padded; `None` at a letter that has no code.
pub fn pack_dna4(letters: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; letters.len().div_ceil(2)];
    for (i, letter) in letters.iter().enumerate() {
        bytes[i / 2] |= dna4_code(*letter)? << (4 - 4 * (i % 2));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn degenerate_codes_are_unions() {
        for (letter, bases) in
            [(b'M', "AC"), (b'R', "AG"), (b'W', "AT"), (b'S', "CG"), (b'Y', "CT"), (b'K', "GT")]
        {
            let union = bases.bytes().fold(0, |code, base| code | dna4_code(base).expect("a base"));
            assert_eq!(dna4_code(letter), Some(union), "{}", letter as char);
        }
        for (letter, bases) in [(b'V', "ACG"), (b'H', "ACT"), (b'D', "AGT"), (b'B', "CGT"), (b'N', "ACGT")] {
            let union = bases.bytes().fold(0, |code, base| code | dna4_code(base).expect("a base"));
            assert_eq!(dna4_code(letter), Some(union), "{}", letter as char);
        }
        assert_eq!((dna4_code(b'u'), dna4_code(b'?'), dna4_code(b'-')), (Some(8), None, None));
    }

    proptest! {
        #[test]
        fn kmers_and_letters(letters in prop::collection::vec(prop::sample::select(&LETTERS[..]), 0..=32)) {
            let kmer = parse_kmer(&letters).unwrap();
            let mut text = Vec::new();
            write_kmer(kmer, letters.len() as u32, &mut text);
            prop_assert_eq!(text, letters);
        }
    }
}
