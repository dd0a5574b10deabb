//! Turns rows into runs of plain bases: everything after this knows only A, C, G and T.
//!
//! A run is a stretch of a row, packed 2 bits a base (first base in the high bits of a byte, runs start at whole bytes), every window of which is
//! a k-mer to be counted. A `dna2` row is one run. A `dna4` row is cut at every code that is no plain base; a window with exactly one degenerate
//! base of two or three meanings, and nothing else odd, counts once for each meaning, and such windows, all of which hold that base, are a
//! run of their own for each meaning. Windows with two or more degenerate bases, with N, or with the code 0 are skipped.
//!
//! Runs of less than k bases are not kept. Rows come with a number of the caller's; runs of one row follow each other.

use crate::codec::dna4_code;
use crate::params::Params;
use crate::simd;
use std::ops::Range;

/// In [`LETTER_CODES`]: the letter means nothing.
const NO_CODE: u8 = 0xff;

/// The `dna4` code of every letter.
static LETTER_CODES: [u8; 256] = {
    let (mut codes, mut letter) = ([NO_CODE; 256], 0);
    while letter < 256 {
        if let Some(code) = dna4_code(letter as u8) {
            codes[letter] = code;
        }
        letter += 1;
    }
    codes
};

/// In [`PLAIN_PAIRS`]: one of the two is no plain base.
const NOT_PLAIN: u8 = 0x80;

/// Two `dna4` codes of plain bases as `dna2`, in the low four bits.
static PLAIN_PAIRS: [u8; 256] = {
    let (mut pairs, mut two) = ([NOT_PLAIN; 256], 0);
    while two < 256 {
        let (high, low) = ((two >> 4) as u8, two as u8 & 15);
        if high.is_power_of_two() && low.is_power_of_two() {
            pairs[two] = (high.trailing_zeros() << 2 | low.trailing_zeros()) as u8;
        }
        two += 1;
    }
    pairs
};

/// The place of the first letter that is no nucleotide code.
pub fn odd_letter(letters: &[u8]) -> Option<usize> {
    letters.iter().position(|letter| LETTER_CODES[usize::from(*letter)] == NO_CODE)
}

/// Bytes after the last base that may be read, so that readers can load whole words.
pub const PADDING: usize = 64;
/// Bytes by which the buffer grows, at the least.
const GROWTH: usize = 1 << 16;

/// A run of plain bases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First base, counted from the start of the buffer: four a byte.
    pub start: u32,
    /// Bases, at least k.
    pub len: u32,
    /// The row it is from.
    pub row: u32,
}

/// What became of the windows of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowCounts {
    /// k-mers that runs hold: plain windows, and each meaning of an expanded one.
    pub kmers: u64,
    /// Windows that were expanded.
    pub expanded: u64,
    /// Windows that were skipped.
    pub skipped: u64,
}

/// Rows as runs, up to a few megabytes at a time.
pub struct Bases {
    k: u32,
    /// The bases, then at least [`PADDING`] bytes.
    packed: Vec<u8>,
    /// Where the bases end.
    end: usize,
    runs: Vec<Run>,
    counts: WindowCounts,
    codes: Vec<u8>,
}

impl Bases {
    /// An empty buffer for k-mers of `params`.
    pub fn new(params: Params) -> Self {
        Self {
            k: params.k(),
            packed: vec![0; PADDING],
            end: 0,
            runs: Vec::new(),
            counts: WindowCounts::default(),
            codes: Vec::new(),
        }
    }

    /// Empties the buffer; the counts of windows go on.
    pub fn clear(&mut self) {
        self.end = 0;
        self.runs.clear();
    }

    /// Empties the buffer and starts the counts of windows again.
    pub fn restart(&mut self) {
        self.clear();
        self.counts = WindowCounts::default();
    }

    /// The runs.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The bases of the runs, then [`PADDING`] bytes that mean nothing.
    pub fn packed(&self) -> &[u8] {
        &self.packed[..self.end + PADDING]
    }

    /// Bytes of bases.
    pub fn len(&self) -> usize {
        self.end
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What became of all windows so far.
    pub fn counts(&self) -> WindowCounts {
        self.counts
    }

    /// Adds a `dna2` row of `bases` bases, whole.
    ///
    /// # Panics
    /// When `bytes` is shorter than the row.
    pub fn push_dna2(&mut self, row: u32, bases: u64, bytes: &[u8]) {
        self.push_dna2_windows(row, bytes, 0..(bases + 1).saturating_sub(u64::from(self.k)));
    }

    /// Adds those windows of a `dna2` row that begin at the bases `windows`, of which the first is a multiple of 4. `bytes` holds the whole row.
    ///
    /// # Panics
    /// When `bytes` is shorter than the windows.
    #[inline]
    pub fn push_dna2_windows(&mut self, row: u32, bytes: &[u8], windows: Range<u64>) {
        if windows.is_empty() {
            return;
        }
        debug_assert!(windows.start.is_multiple_of(4), "windows from {}", windows.start);
        let (first, count) = ((windows.start / 4) as usize, windows.end - windows.start);
        let len = count + u64::from(self.k) - 1;
        let bytes = &bytes[first..first + len.div_ceil(4) as usize];
        self.push_run(row, len, |packed| packed.copy_from_slice(bytes));
        self.counts.kmers += count;
    }

    /// Adds a run of `len` bases; `fill` writes them.
    #[inline]
    fn push_run(&mut self, row: u32, len: u64, fill: impl FnOnce(&mut [u8])) {
        fill(self.room(len as usize));
        self.keep(row, len as usize);
    }

    /// Room for `bases` bases behind the others, with whatever was there before.
    #[inline]
    fn room(&mut self, bases: usize) -> &mut [u8] {
        let end = self.end + bases.div_ceil(4);
        if self.packed.len() < end + PADDING {
            self.packed.resize((end + PADDING).next_multiple_of(GROWTH), 0);
        }
        &mut self.packed[self.end..end]
    }

    /// What was written to the room for `bases` bases is a run.
    #[inline]
    fn keep(&mut self, row: u32, bases: usize) {
        self.runs.push(Run { start: (self.end * 4) as u32, len: bases as u32, row });
        self.end += bases.div_ceil(4);
    }

    /// Adds a `dna4` row of `bases` bases, whole.
    ///
    /// # Panics
    /// When `bytes` is shorter than the row.
    pub fn push_dna4(&mut self, row: u32, bases: u64, bytes: &[u8]) {
        let (bases, k) = (bases as usize, self.k as usize);
        if bases < k || self.push_plain_dna4(row, bases, bytes) {
            return;
        }
        let mut codes = std::mem::take(&mut self.codes);
        codes.clear();
        codes.extend((0..bases).map(|i| bytes[i / 2] >> (4 - 4 * (i % 2)) & 15));
        self.push_codes(row, &codes);
        self.codes = codes;
    }

    /// Adds those windows of a `dna4` row that begin at the bases `windows`, of which the first is even. `bytes` holds the whole row.
    ///
    /// # Panics
    /// When `bytes` is shorter than the windows.
    pub fn push_dna4_windows(&mut self, row: u32, bytes: &[u8], windows: Range<u64>) {
        if !windows.is_empty() {
            debug_assert!(windows.start.is_multiple_of(2), "windows from {}", windows.start);
            let bases = windows.end - windows.start + u64::from(self.k) - 1;
            self.push_dna4(row, bases, &bytes[(windows.start / 2) as usize..]);
        }
    }

    /// Adds a row, or a piece of one, given as IUPAC letters: upper or lower case, U as T. Letters that mean nothing are an error, or if
    /// `lenient` says so, taken for N; their number is returned.
    ///
    /// # Errors
    /// The place of the first letter that is no nucleotide code; nothing was added then.
    pub fn push_letters(&mut self, row: u32, letters: &[u8], lenient: bool) -> Result<u64, usize> {
        if letters.len() >= self.k as usize && self.push_plain_letters(row, letters) {
            return Ok(0);
        }
        let mut codes = std::mem::take(&mut self.codes);
        codes.clear();
        codes.extend(letters.iter().map(|letter| LETTER_CODES[usize::from(*letter)]));
        let mut odd = 0;
        let first_odd = codes.iter().position(|code| *code == NO_CODE);
        if first_odd.is_some() {
            odd = codes.iter().filter(|code| **code == NO_CODE).count() as u64;
            codes.iter_mut().filter(|code| **code == NO_CODE).for_each(|code| *code = 0);
        }
        let refused = first_odd.filter(|_| !lenient);
        if refused.is_none() && codes.len() >= self.k as usize {
            self.push_codes(row, &codes);
        }
        self.codes = codes;
        refused.map_or(Ok(odd), Err)
    }

    /// The common case: every code is a plain base. False, and nothing added, when one is not.
    fn push_plain_dna4(&mut self, row: u32, bases: usize, bytes: &[u8]) -> bool {
        let (packed, mut seen) = (self.room(bases), 0);
        let (whole, rest) = bytes[..bases.div_ceil(2)].split_at(bases / 4 * 2);
        for (pair, byte) in whole.as_chunks::<2>().0.iter().zip(&mut *packed) {
            let [high, low] = pair.map(|two| PLAIN_PAIRS[usize::from(two)]);
            seen |= high | low;
            *byte = high << 4 | low & 15;
        }
        // Up to three bases; a code of the padding is no base.
        if let Some(byte) = packed.get_mut(bases / 4) {
            *byte = 0;
            for (i, place) in (bases / 4 * 4..bases).zip([6, 4, 2]) {
                let code = rest[i % 4 / 2] >> (4 - 4 * (i % 2)) & 15;
                seen |= if code.is_power_of_two() { 0 } else { NOT_PLAIN };
                *byte |= (code.trailing_zeros() as u8 & 3) << place;
            }
        }
        let plain = seen & NOT_PLAIN == 0;
        if plain {
            self.keep(row, bases);
            self.counts.kmers += (bases - self.k as usize + 1) as u64;
        }
        plain
    }

    /// The common case: every letter is a plain base. False, and nothing added, when one is not.
    fn push_plain_letters(&mut self, row: u32, letters: &[u8]) -> bool {
        let plain = simd::pack_letters(letters, self.room(letters.len()));
        if plain {
            self.keep(row, letters.len());
            self.counts.kmers += letters.len() as u64 - u64::from(self.k) + 1;
        }
        plain
    }

    /// Adds a row of at least k bases given as codes, one a byte.
    fn push_codes(&mut self, row: u32, codes: &[u8]) {
        let (bases, k) = (codes.len(), self.k as usize);
        let before = self.counts;
        let mut plain_windows = 0;
        let (mut last_odd, mut at) = (None, 0);
        while at < bases {
            // `at` is the first base after the last odd one: the next odd one, or the end, ends a plain run.
            let end = at + plain_codes(&codes[at..]);
            plain_windows += self.push_plain(row, &codes[at..end]);
            if end < bases && codes[end] != 0 && codes[end] != 15 {
                self.push_expanded(row, codes, end, last_odd);
            }
            last_odd = Some(end);
            at = end + 1;
        }
        let expanded = self.counts.expanded - before.expanded;
        self.counts.skipped += (bases - k + 1) as u64 - plain_windows - expanded;
    }

    fn push_plain(&mut self, row: u32, codes: &[u8]) -> u64 {
        if codes.len() < self.k as usize {
            return 0;
        }
        self.push_run(row, codes.len() as u64, |packed| {
            pack(codes.iter().map(|c| c.trailing_zeros() as u8), packed)
        });
        let windows = codes.len() as u64 - u64::from(self.k) + 1;
        self.counts.kmers += windows;
        windows
    }

    /// The windows whose one odd base is the degenerate one at `odd`: a run for each of its meanings.
    fn push_expanded(&mut self, row: u32, codes: &[u8], odd: usize, last_odd: Option<usize>) {
        let k = self.k as usize;
        let from = last_odd.map_or(0, |l| l + 1).max((odd + 1).saturating_sub(k));
        let reach = codes.len().min(odd + k);
        let end =
            codes[odd + 1..reach].iter().position(|c| !c.is_power_of_two()).map_or(reach, |p| odd + 1 + p);
        if end - from < k {
            return;
        }
        let windows = (end - from - k + 1) as u64;
        self.counts.expanded += windows;
        for meaning in (0..4u8).filter(|base| codes[odd] >> base & 1 == 1) {
            let base = |i: usize| if i == odd { meaning } else { codes[i].trailing_zeros() as u8 };
            self.push_run(row, (end - from) as u64, |packed| pack((from..end).map(base), packed));
            self.counts.kmers += windows;
        }
    }
}

/// How many codes are plain bases before the first that is not.
fn plain_codes(codes: &[u8]) -> usize {
    // 32 at a time, so that most need no look of their own.
    let odd = |codes: &[u8; 32]| {
        codes.iter().fold(0, |odd, code| odd | code & code.wrapping_sub(1) | u8::from(*code == 0)) != 0
    };
    let whole = codes.as_chunks::<32>().0.iter().take_while(|codes| !odd(codes)).count() * 32;
    whole + codes[whole..].iter().position(|code| !code.is_power_of_two()).unwrap_or(codes.len() - whole)
}

fn pack(codes: impl Iterator<Item = u8>, packed: &mut [u8]) {
    packed.fill(0);
    for (i, code) in codes.enumerate() {
        packed[i / 4] |= code << (6 - 2 * (i % 4));
    }
}

/// Every k-mer of the runs, one by one: for tests and for counts too small to be worth more.
pub fn kmers_of<'a>(packed: &'a [u8], run: &Run, params: Params) -> impl Iterator<Item = u64> + 'a {
    let (start, k, mask) = (run.start as usize, params.k() as usize, params.kmer_mask());
    let base = move |i: usize| u64::from(packed[i / 4] >> (6 - 2 * (i % 4)) & 3);
    let first = (start..start + k - 1).fold(0, |kmer, i| kmer << 2 | base(i));
    (start + k - 1..start + run.len as usize).scan(first, move |kmer, i| {
        *kmer = (*kmer << 2 | base(i)) & mask;
        Some(*kmer)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::codec::{dna4_code, pack_dna2, pack_dna4, parse_kmer};
    use proptest::prelude::*;

    /// The oracle: every window by itself.
    pub(crate) fn naive_dna4(row: &[u8], k: usize) -> (Vec<u64>, u64, u64) {
        let (mut kmers, mut expanded, mut skipped) = (Vec::new(), 0, 0);
        for window in row.windows(k) {
            let odd: Vec<usize> = (0..k).filter(|i| !b"ACGT".contains(&window[*i])).collect();
            match odd[..] {
                [] => kmers.extend(parse_kmer(window)),
                [at] if window[at] != b'N' => {
                    expanded += 1;
                    let code = dna4_code(window[at]).expect("IUPAC");
                    for base in (0..4).filter(|base| code >> base & 1 == 1) {
                        let mut meaning = window.to_vec();
                        meaning[at] = b"ACGT"[base];
                        kmers.extend(parse_kmer(&meaning));
                    }
                }
                _ => skipped += 1,
            }
        }
        kmers.sort_unstable();
        (kmers, expanded, skipped)
    }

    /// A buffer that is empty, but was not always.
    fn used(params: Params) -> Bases {
        let mut bases = Bases::new(params);
        bases.push_dna2(1, 1000, &[0xff; 250]);
        bases.restart();
        bases
    }

    fn all_kmers(bases: &Bases, params: Params) -> Vec<u64> {
        let mut kmers: Vec<u64> =
            bases.runs().iter().flat_map(|run| kmers_of(bases.packed(), run, params)).collect();
        kmers.sort_unstable();
        kmers
    }

    /// The windows of a row of so many, in stretches that begin at multiples of 4.
    fn stretches(windows: u64, cuts: &[u64]) -> Vec<Range<u64>> {
        let mut ends: Vec<u64> = cuts.iter().map(|cut| (cut * 4).min(windows)).chain([windows]).collect();
        ends.sort_unstable();
        let begins = [0].into_iter().chain(ends.clone());
        begins.zip(ends).map(|(begin, end)| begin..end).collect()
    }

    fn row(letters: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(letters), 0..120)
    }

    proptest! {
        #[test]
        fn dna4_windows_like_the_oracle(row in row(b"ACGTACGTACGTACGTACGTACGTMRWSYKVHDBN"), k in 4..=32u32) {
            let params = Params::new(k, 0).unwrap();
            let mut bases = used(params);
            bases.push_dna4(1, row.len() as u64, &pack_dna4(&row).unwrap());
            let (kmers, expanded, skipped) = naive_dna4(&row, k as usize);
            prop_assert_eq!(bases.counts(), WindowCounts { kmers: kmers.len() as u64, expanded, skipped });
            prop_assert_eq!(all_kmers(&bases, params), kmers);
        }

        #[test]
        fn windows_by_stretches_are_those_of_the_whole(
            row in row(b"ACGTACGTACGTACGTACGTACGTMRWSYKVHDBN"), plain in row(b"ACGT"),
            cuts in prop::collection::vec(0..30u64, 0..5), k in 4..=32u32,
        ) {
            let params = Params::new(k, 0).unwrap();
            let windows = |row: &[u8]| (row.len() as u64 + 1).saturating_sub(k.into());
            let [mut whole, mut by_stretches, mut dna2, mut dna2_by_stretches] = [(); 4].map(|()| used(params));
            whole.push_dna4(1, row.len() as u64, &pack_dna4(&row).unwrap());
            for stretch in stretches(windows(&row), &cuts) {
                by_stretches.push_dna4_windows(1, &pack_dna4(&row).unwrap(), stretch);
            }
            dna2.push_dna2(1, plain.len() as u64, &pack_dna2(&plain).unwrap());
            for stretch in stretches(windows(&plain), &cuts) {
                dna2_by_stretches.push_dna2_windows(1, &pack_dna2(&plain).unwrap(), stretch);
            }
            for (want, got) in [(whole, by_stretches), (dna2, dna2_by_stretches)] {
                prop_assert_eq!(got.counts(), want.counts());
                prop_assert_eq!(all_kmers(&got, params), all_kmers(&want, params));
            }
        }

        #[test]
        fn plain_dna4_like_the_oracle(rows in prop::collection::vec(row(b"ACGT"), 1..5), k in 4..=32u32) {
            let params = Params::new(k, 0).unwrap();
            let (mut bases, mut want) = (used(params), Vec::new());
            for (i, row) in rows.iter().enumerate() {
                bases.push_dna4(i as u32, row.len() as u64, &pack_dna4(row).unwrap());
                want.extend(naive_dna4(row, k as usize).0);
            }
            want.sort_unstable();
            prop_assert_eq!(all_kmers(&bases, params), want);
        }

        #[test]
        fn letters_like_dna4(row in row(b"ACGTACGTACGTACGTACGTUacgtuACGTACGTACGTMRWSYKVHDBNn"), plain in row(b"ACGTUacgtu"), k in 4..=32u32) {
            let params = Params::new(k, 0).unwrap();
            for row in [row, plain] {
                let (mut bases, mut want) = (used(params), used(params));
                prop_assert_eq!(bases.push_letters(1, &row, false), Ok(0));
                want.push_dna4(1, row.len() as u64, &pack_dna4(&row).unwrap());
                prop_assert_eq!(bases.counts(), want.counts());
                prop_assert_eq!(all_kmers(&bases, params), all_kmers(&want, params));
            }
        }

        #[test]
        fn letters_without_a_meaning_are_refused_or_taken_for_n(row in row(b"ACGTACGTACGTACGTACGT"), at in 0..120usize, letter: u8, k in 4..=16u32) {
            prop_assume!(at < row.len() && dna4_code(letter).is_none());
            let params = Params::new(k, 0).unwrap();
            let mut odd = row.clone();
            odd[at] = letter;
            let mut bases = used(params);
            prop_assert_eq!(bases.push_letters(1, &odd, false), Err(at));
            prop_assert!(bases.is_empty() && bases.runs().is_empty());
            prop_assert_eq!(bases.push_letters(1, &odd, true), Ok(1));
            odd[at] = b'N';
            let mut want = used(params);
            want.push_letters(1, &odd, false).unwrap();
            prop_assert_eq!((bases.counts(), all_kmers(&bases, params)), (want.counts(), all_kmers(&want, params)));
        }

        #[test]
        fn dna2_windows_like_the_oracle(rows in prop::collection::vec(row(b"ACGT"), 0..5), k in 4..=32u32) {
            let params = Params::new(k, 0).unwrap();
            let mut bases = used(params);
            let mut want: Vec<u64> = Vec::new();
            for (i, row) in rows.iter().enumerate() {
                bases.push_dna2(i as u32, row.len() as u64, &pack_dna2(row).unwrap());
                want.extend(row.windows(k as usize).map(|w| parse_kmer(w).unwrap()));
            }
            want.sort_unstable();
            prop_assert_eq!(all_kmers(&bases, params), want);
        }
    }

    #[test]
    fn code_zero_is_skipped_like_n() {
        let params = Params::new(4, 0).expect("in range");
        let mut bases = used(params);
        bases.push_dna4(0, 6, &[0x12, 0x48, 0x01]);
        assert_eq!(bases.counts(), WindowCounts { kmers: 1, expanded: 0, skipped: 2 });
    }
}
