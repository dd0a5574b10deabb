//! Super-k-mers into records, and records into k-mers; see [`crate::record`] and [`crate::spelled`].

use super::{LINE, copies, prefetch_behind};
use crate::line::{Line, Places};
use crate::minimizer::Dealer;
use crate::params::canonical;
use crate::record::{Parts, Record, compose};
use crate::spelled::{Expanded, GROUP, KeyBits, LANES, Spelled, Speller};
use crate::superkmer::Piece;
use crate::tally::{Stride, sort_out_any};

copies! {
    /// Writes the record of each piece of `packed` to where its stripe's cursor is, in the low half, and moves that on; in the high half its k-mers are added.
    ///
    /// # Panics
    /// When a piece is not in `packed`, or its stripe has no cursor, or that leaves `out`.
    pub(crate) fn write_records<R: Record>(
        pieces: &[Piece], packed: &[u8], dealer: &Dealer, cursors: &mut [u64], out: &mut [u8]
    ) = write_records_any
}

#[inline(always)]
fn write_records_any<R: Record>(
    pieces: &[Piece],
    packed: &[u8],
    dealer: &Dealer,
    cursors: &mut [u64],
    out: &mut [u8],
) {
    let (mut block, size) = (Block::default(), R::WIDTH.bytes());
    for pieces in pieces.chunks(BLOCK) {
        block.load::<R>(pieces, packed, dealer);
        if dealer.canonical {
            block.compose::<R, true>(pieces, dealer);
        } else {
            block.compose::<R, false>(pieces, dealer);
        }
        for (i, piece) in pieces.iter().enumerate() {
            let cursor = &mut cursors[(piece.number() >> dealer.rest_bits) as usize];
            let at = *cursor as u32 as usize;
            let place = &mut out[at..at + size];
            R::from_words(block.low[i], block.high[i]).store(place);
            // What stripes have of `out` is, all together, larger than a core's caches, and a stripe's next line is needed soon.
            prefetch_behind(&place[0], LINE);
            *cursor += u64::from(piece.kmers()) << 32 | size as u64;
        }
    }
}

/// Pieces that are made records at a time.
const BLOCK: usize = 64;

/// Pieces on their way to records: what is needed of the bases is loaded one by one, what they come to computed side by side.
struct Block {
    /// The bytes in which a piece begins, and those in which its minimizer and what is right of that do: the last two only where one word has not all.
    left: [u64; BLOCK],
    minimizer: [u64; BLOCK],
    right: [u64; BLOCK],
    low: [u64; BLOCK],
    high: [u64; BLOCK],
}

impl Default for Block {
    fn default() -> Self {
        let [left, minimizer, right, low, high] = [[0; BLOCK]; 5];
        Self { left, minimizer, right, low, high }
    }
}

impl Block {
    #[inline(always)]
    fn load<R: Record>(&mut self, pieces: &[Piece], packed: &[u8], dealer: &Dealer) {
        let word =
            |base: usize| u64::from_ne_bytes(packed[base / 4..base / 4 + 8].try_into().expect("8 bytes"));
        for (i, piece) in pieces.iter().enumerate().take(BLOCK) {
            let (start, minimizer) = (piece.start(), piece.start() + piece.before() as usize);
            self.left[i] = word(start);
            if !R::SHORT {
                self.right[i] = word(minimizer + dealer.m as usize);
                if dealer.canonical {
                    self.minimizer[i] = word(minimizer);
                }
            }
        }
    }

    #[inline(always)]
    fn compose<R: Record, const CANONICAL: bool>(&mut self, pieces: &[Piece], dealer: &Dealer) {
        let (form, m, other) = (dealer.form(), u64::from(dealer.m), u64::from(dealer.k - dealer.m));
        let rest = !(u64::MAX << dealer.rest_bits);
        // Bases from number `base` on, the first in the highest bits, from the bytes in which that is.
        let window = |bytes: u64, base: u64| u64::from_be(bytes) << (2 * (base & 3));
        // The first `n` of them below a one.
        let side = |bases: u64, n: u64| (bases >> 1 | 1 << 63) >> ((63 - 2 * n) & 63);
        for (i, piece) in pieces.iter().enumerate().take(BLOCK) {
            let (start, before) = (piece.start() as u64, u64::from(piece.before()));
            let left = window(self.left[i], start);
            let (minimizer, right) = if R::SHORT {
                (left << ((2 * before) & 63), left << ((2 * (before + m)) & 63))
            } else {
                (window(self.minimizer[i], start + before), window(self.right[i], start + before + m))
            };
            let mut flags = piece.mark();
            if CANONICAL {
                let mmer = (minimizer >> (64 - 2 * m)) as u32;
                flags |= u64::from(dealer.other_strand(mmer) < mmer) << 1;
            }
            let after = other + u64::from(piece.kmers()) - 1 - before;
            let parts = Parts {
                flags,
                right: side(right, after & 31),
                left: side(left, before),
                rest: u64::from(piece.number()) & rest,
            };
            (self.low[i], self.high[i]) = compose::<R>(form, parts).words();
        }
    }
}

/// See [`crate::tally::sort_out_any`].
pub(crate) fn sort_out<R: Places>(stride: Stride<'_, R>) {
    #[cfg(target_arch = "x86_64")]
    {
        use super::line::{masks_avx2, masks_avx512};
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
        fn avx512<R: Places>(stride: Stride<'_, R>) {
            sort_out_any(stride, |line, first, second| masks_avx512(line, first, second));
        }
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
        fn avx2<R: Places>(stride: Stride<'_, R>) {
            sort_out_any(stride, |line, first, second| masks_avx2(line, first, second));
        }
        if super::has_avx512() {
            #[allow(unsafe_code, reason = "the corner for SIMD")]
            // SAFETY: the processor has all that the function asks for.
            return unsafe { avx512(stride) };
        }
        if super::has_avx2() {
            #[allow(unsafe_code, reason = "the corner for SIMD")]
            // SAFETY: the processor has AVX2 and what came with it, all that the function asks for.
            return unsafe { avx2(stride) };
        }
    }
    sort_out_any(stride, Line::masks);
}

copies! {
    /// See [`crate::spelled::expand`].
    pub(crate) fn expand<R: Record, K: KeyBits>(
        records: &[R], tags: &[u64], speller: &Speller, into: &mut Expanded<K>
    ) -> Result<usize, usize> = expand_any
}

#[inline(always)]
fn expand_any<R: Record, K: KeyBits>(
    records: &[R],
    tags: &[u64],
    speller: &Speller,
    into: &mut Expanded<K>,
) -> Result<usize, usize> {
    let k = speller.k;
    if speller.canonical {
        expand_as(records, tags, speller, into, |kmer| canonical(kmer, k))
    } else {
        expand_as(records, tags, speller, into, |kmer| kmer)
    }
}

#[inline(always)]
fn expand_as<R: Record, K: KeyBits>(
    records: &[R],
    tags: &[u64],
    speller: &Speller,
    into: &mut Expanded<K>,
    taken: impl Fn(u64) -> u64,
) -> Result<usize, usize> {
    let (shift, limit) = (64 - 2 * u64::from(speller.k), into.limit());
    let (mut len, mut weighed) = (into.len, into.weighed);
    let mut spelled = Spelled::default();
    for (group, (records, tags)) in records.chunks(GROUP).zip(tags.chunks(GROUP)).enumerate() {
        speller.spell(records, &mut spelled);
        for (i, tag) in tags.iter().enumerate() {
            let (first, second, n) = (spelled.first[i], spelled.second[i], spelled.kmers[i]);
            if n == 0 {
                return Err(group * GROUP + i);
            }
            if len + n as usize > limit {
                (into.len, into.weighed) = (len, weighed);
                return Ok(group * GROUP + i);
            }
            // `i` is below 32. Two shifts, since one of 64 bits is none.
            let window = |i: u64| match R::SHORT {
                true => first << ((2 * i) & 63),
                false => first << ((2 * i) & 63) | second >> 1 >> ((63 - 2 * i) & 63),
            };
            // Whole groups are written; what is behind the last k-mer is overwritten by the next record's.
            let mut done = 0;
            while done < n {
                let at = len + done as usize;
                let (keys, same) = (&mut into.keys[at..at + LANES], &mut into.tags[at..at + LANES]);
                for lane in 0..LANES as u64 {
                    keys[lane as usize] = K::from_word(taken(window(done + lane) >> shift));
                }
                same.fill(*tag);
                done += LANES as u64;
            }
            len += n as usize;
            weighed += n * (*tag >> 32);
        }
    }
    (into.len, into.weighed) = (len, weighed);
    Ok(records.len().min(tags.len()))
}
