//! Super-k-mers into records, and records into k-mers; see [`crate::record`].

use super::{LINE, copies, prefetch_behind};
use crate::line::{Line, Places};
use crate::params::{Params, canonical};
use crate::record::{Expanded, KeyBits, LANES, Record, kmers};
use crate::superkmer::Piece;
use crate::tally::{Stride, sort_out_any};

copies! {
    /// Writes the record of each piece of `packed` to where its stripe's cursor is, and moves that on.
    ///
    /// # Panics
    /// When a piece is not in `packed`, or its stripe has no cursor, or that leaves `out`.
    pub(crate) fn write_records<R: Record>(
        pieces: &[Piece], packed: &[u8], k: u32, cursors: &mut [u32], out: &mut [u8]
    ) = write_records_any
}

#[inline(always)]
fn write_records_any<R: Record>(
    pieces: &[Piece],
    packed: &[u8],
    k: u32,
    cursors: &mut [u32],
    out: &mut [u8],
) {
    for piece in pieces {
        let cursor = &mut cursors[piece.stripe()];
        let place = &mut out[*cursor as usize..*cursor as usize + R::WIDTH.bytes()];
        R::cut(packed, piece.start(), piece.kmers() + k - 1).with_header(piece.header()).store(place);
        // What stripes have of `out` is, all together, larger than a core's caches, and a stripe's next line is needed soon.
        prefetch_behind(&place[0], LINE);
        *cursor += R::WIDTH.bytes() as u32;
    }
}

/// See [`crate::tally::sort_out_any`].
pub(crate) fn sort_out<R: Places>(stride: Stride<'_, R>) {
    #[cfg(target_arch = "x86_64")]
    {
        use super::line::{masks_avx2, masks_avx512};
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512<R: Places>(stride: Stride<'_, R>) {
            sort_out_any(stride, |line, first, second| masks_avx512(line, first, second));
        }
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
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
    /// See [`crate::record::expand`].
    pub(crate) fn expand<R: Record, K: KeyBits>(
        records: &[R], tags: &[u64], params: Params, into: &mut Expanded<K>
    ) -> Result<usize, usize> = expand_any
}

#[inline(always)]
fn expand_any<R: Record, K: KeyBits>(
    records: &[R],
    tags: &[u64],
    params: Params,
    into: &mut Expanded<K>,
) -> Result<usize, usize> {
    let k = params.k();
    if params.canonical() {
        expand_as(records, tags, k, into, |kmer| canonical(kmer, k))
    } else {
        expand_as(records, tags, k, into, |kmer| kmer)
    }
}

#[inline(always)]
fn expand_as<R: Record, K: KeyBits>(
    records: &[R],
    tags: &[u64],
    k: u32,
    into: &mut Expanded<K>,
    taken: impl Fn(u64) -> u64,
) -> Result<usize, usize> {
    let (most, shift, limit) = (R::WIDTH.max_kmers(k), 64 - 2 * k, into.limit());
    let mut len = into.len;
    for (i, (record, tag)) in records.iter().zip(tags).enumerate() {
        let n = kmers(*record);
        if n.wrapping_sub(1) >= most {
            return Err(i);
        }
        if len + n as usize > limit {
            into.len = len;
            return Ok(i);
        }
        // Whole groups are written; what is behind the last k-mer is overwritten by the next record's.
        let mut done = 0;
        while done < n {
            let at = len + done as usize;
            let (keys, same) = (&mut into.keys[at..at + LANES], &mut into.tags[at..at + LANES]);
            for lane in 0..LANES as u32 {
                keys[lane as usize] = K::from_word(taken(record.window(done + lane) >> shift));
            }
            same.fill(*tag);
            done += LANES as u32;
        }
        len += n as usize;
    }
    into.len = len;
    Ok(records.len().min(tags.len()))
}
