//! Judges the sorter by a set for each row.

use super::*;
use crate::bases::{Run, kmers_of};
use crate::codec::{pack_dna2, parse_kmer};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};

/// The oracle: a set a row, or every k-mer.
fn naive(rows: &[Vec<u8>], params: Params, occurrences: bool) -> BTreeMap<u64, u32> {
    let mut counts = BTreeMap::new();
    for row in rows {
        let kmers: Vec<u64> = row
            .windows(params.k() as usize)
            .filter_map(parse_kmer)
            .map(|kmer| params.counted_as(kmer))
            .collect();
        let once: HashSet<u64> = kmers.iter().copied().collect();
        let each = if occurrences { kmers } else { once.into_iter().collect() };
        each.into_iter().for_each(|kmer| *counts.entry(kmer).or_default() += 1);
    }
    counts
}

/// What the sorter's batches come to, over all passes.
fn counted(
    rows: &[Vec<u8>],
    params: Params,
    (stripe_bits, pass_bits, occurrences, summed): (u32, u32, bool, bool),
    piece: usize,
) -> BTreeMap<u64, u32> {
    let mut sorter = KeySorter::new(params, stripe_bits, occurrences, summed.then_some(25)).expect("suits");
    let width = 1usize << (params.key_bits() - stripe_bits);
    let mut counts = BTreeMap::new();
    for pass in 0..1 << pass_bits {
        sorter.begin_unit(Share { pass_bits, pass });
        let (mut delivered, mut pushed, mut told) = (0, 0, 0);
        let mut store = |sorter: &mut KeySorter| {
            let mut out = b"before".to_vec();
            let sections = sorter.write(&mut out).to_vec();
            let add = if summed { add_summed } else { add_stripe };
            for (stripe, section) in sections.iter().enumerate().filter(|(_, section)| section.rows > 0) {
                let from = 6 + section.offset as usize;
                told += u64::from(section.rows);
                delivered += u64::from(section.kmers);
                let mut sums = vec![0; width];
                let bytes = &out[from..from + section.bytes as usize];
                if !bytes.is_empty() {
                    assert_eq!(add(bytes, &mut sums), Some(section.kmers.into()));
                }
                for (key, sum) in (stripe * width..).zip(sums).filter(|(_, sum)| *sum > 0) {
                    *counts.entry(key as u64).or_default() += sum;
                }
            }
            Ok::<(), ()>(())
        };
        for (number, row) in rows.iter().enumerate() {
            // Rows in pieces that overlap, as long ones are, and a batch sorted in the middle of a row.
            let step = piece.max(params.k() as usize) - params.k() as usize + 1;
            for from in (0..row.len()).step_by(step) {
                let part = &row[from..row.len().min(from + step + params.k() as usize - 1)];
                let mut bases = Bases::new(params);
                bases.push_dna2(number as u32 + 1, part.len() as u64, &pack_dna2(part).expect("ACGT"));
                pushed += bases.counts().kmers;
                sorter.add(&bases, &mut store).expect("stores");
                if from % 2 == 1 {
                    store(&mut sorter).expect("stores");
                }
            }
        }
        store(&mut sorter).expect("stores");
        assert_eq!(pushed, delivered + sorter.repeats() + sorter.left_out());
        assert_eq!(told, delivered + sorter.left_out());
    }
    counts
}

/// What rows that lie side by side come to, as sums; a row is of several runs.
fn summed(rows: &[Vec<&[u8]>], params: Params, occurrences: bool) -> BTreeMap<u64, u32> {
    let mut bases = Bases::new(params);
    for (number, runs) in (1..).zip(rows) {
        for run in runs {
            bases.push_dna2(number, run.len() as u64, &pack_dna2(run).expect("ACGT"));
        }
    }
    let stripe_bits = least_stripe_bits(params);
    let mut sorter = KeySorter::new(params, stripe_bits, occurrences, Some(26)).expect("suits");
    sorter.begin_unit(Share::default());
    sorter.add(&bases, |_| Err("there is room")).expect("no batch");
    let mut out = Vec::new();
    let sections = sorter.write(&mut out).to_vec();
    let width = 1usize << (params.key_bits() - stripe_bits);
    let mut counts = BTreeMap::new();
    for (stripe, section) in sections.iter().enumerate().filter(|(_, section)| section.bytes > 0) {
        let mut sums = vec![0; width];
        let bytes = &out[section.offset as usize..(section.offset + section.bytes) as usize];
        assert_eq!(add_summed(bytes, &mut sums), Some(section.kmers.into()));
        counts.extend((stripe as u64 * width as u64..).zip(sums).filter(|(_, sum)| *sum > 0));
    }
    counts
}

/// Each row as a run.
fn whole(rows: &[Vec<u8>]) -> Vec<Vec<&[u8]>> {
    rows.iter().map(|row| vec![&row[..]]).collect()
}

fn reverse_complement(bases: &[u8]) -> Vec<u8> {
    let other = |base: &u8| match base {
        b'A' => b'T',
        b'C' => b'G',
        b'G' => b'C',
        _ => b'A',
    };
    bases.iter().rev().map(other).collect()
}

/// Two stretches: the first k bases of one are its last ones as well, `distance` on, and of the other the reverse complement of its last ones.
fn stretches(mut bases: impl FnMut(usize) -> Vec<u8>, k: usize, distance: usize) -> [Vec<u8>; 2] {
    let mut again = bases(distance);
    (0..k).for_each(|at| again.push(again[at]));
    let first = bases(if distance < k { (k + distance).div_ceil(2) } else { k });
    let turned = [&first[..], &bases(distance.saturating_sub(k)), &reverse_complement(&first)].concat();
    [again, turned]
}

fn rows(letters: &'static [u8], longest: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(prop::sample::select(letters), 0..longest), 0..12)
}

proptest! {
    #[test]
    fn counts_rows_and_occurrences_like_the_oracle(
        mut rows in rows(b"ACGT", 200), repetitive in rows(b"AAAAAC", 900), long in rows(b"ACGT", 3000),
        k in 11..=12u32, canonical: bool, occurrences: bool, more in 0..3u32, pass_bits in 0..3u32, piece in 20..4000usize,
    ) {
        rows.extend(repetitive);
        rows.extend(long);
        let doubled: Vec<Vec<u8>> = rows.iter().take(3).map(|row| [&row[..], row].concat()).collect();
        rows.extend(doubled);
        let params = Params::new(k, 0).unwrap().with_canonical(canonical);
        let how = (least_stripe_bits(params) + more, pass_bits, occurrences, false);
        prop_assert_eq!(counted(&rows, params, how, piece), naive(&rows, params, occurrences));
    }

    #[test]
    fn extracts_like_base_by_base(bytes in prop::collection::vec(any::<u8>(), 200), k in 4..=16u32, first in 0..20usize, canonical: bool) {
        let params = Params::new(k, 0).unwrap().with_canonical(canonical);
        let run = Run { start: first as u32 * 4, len: 400 + k - 1, row: 1 };
        let want: Vec<u32> = kmers_of(&bytes, &run, params).map(|kmer| params.counted_as(kmer) as u32).collect();
        let mut got = vec![0; 400];
        simd::keys(&bytes[first..], params, &mut got);
        prop_assert_eq!(got, want);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..Default::default() })]
    #[test]
    fn sums_are_those_of_the_oracle(
        rows in rows(b"ACGT", 900), repetitive in prop::collection::vec(prop::sample::select(&b"AAAAAAC"[..]), 90_000..180_000),
        k in 10..=12u32, canonical: bool, occurrences: bool, more in 0..2u32, pass_bits in 0..2u32,
    ) {
        // Of one stripe's keys there are more than its bucket has room for, and of some of them more than a cell can count.
        let mut all: Vec<Vec<u8>> = repetitive.chunks(100).map(<[u8]>::to_vec).collect();
        all.extend(rows);
        all.push(repetitive);
        let params = Params::new(k, 0).unwrap().with_canonical(canonical);
        let how = (least_stripe_bits(params) + more, pass_bits, occurrences, true);
        prop_assert_eq!(counted(&all, params, how, 1 << 24), naive(&all, params, occurrences));
    }
}

#[test]
fn repeats_at_every_distance_are_found() {
    let mut state = 1u64;
    let mut bases = |count: usize| -> Vec<u8> {
        let mut base = |_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            b"ACGT"[(state >> 62) as usize]
        };
        (0..count).map(&mut base).collect()
    };
    for (k, canonical) in (10..=12).flat_map(|k| [(k, false), (k, true)]) {
        let params = Params::new(k, 0).expect("in range").with_canonical(canonical);
        let mut rows = Vec::new();
        for (first, distance) in (0..8).flat_map(|first| (1..40).map(move |distance| (first, distance))) {
            for stretch in stretches(&mut bases, k as usize, distance) {
                rows.push([bases(first % 4), stretch, bases(first / 4 * 20)].concat());
            }
        }
        let counted = summed(&whole(&rows), params, false);
        assert!(counted == naive(&rows, params, false), "k = {k}, canonical: {canonical}");
        assert!(counted != naive(&rows, params, true), "there are repeats");
    }
}

proptest! {
    #[test]
    fn rows_side_by_side_are_counted_like_the_oracle(
        rows in rows(b"ACGT", 600), few in rows(b"AAAT", 60), k in 10..=12u32, canonical: bool, occurrences: bool,
    ) {
        let params = Params::new(k, 0).unwrap().with_canonical(canonical);
        let rows = [rows, few].concat();
        prop_assert_eq!(summed(&whole(&rows), params, occurrences), naive(&rows, params, occurrences));
    }
}

#[test]
fn several_runs_are_one_row() {
    let params = Params::new(11, 0).expect("in range");
    let (one, other): (&[u8], &[u8]) = (b"ACGTTGCATTGACC", b"GGATCTAAGCTCTT");
    let rows = vec![
        vec![one, other, one],
        vec![other, one],
        vec![one],
        vec![one, one],
        vec![other, b"ACCGTTAGTCAGG"],
    ];
    let mut want = BTreeMap::new();
    for row in &rows {
        let runs: Vec<Vec<u8>> = row.iter().map(|run| run.to_vec()).collect();
        let kmers: BTreeMap<u64, u32> = naive(&runs, params, false);
        kmers.into_keys().for_each(|kmer| *want.entry(kmer).or_default() += 1);
    }
    assert_eq!(summed(&rows, params, false), want);
}

#[test]
fn of_a_unit_that_ended_early_nothing_is_left() {
    let params = Params::new(11, 0).expect("in range");
    let bases_of = |row: &[u8]| {
        let mut bases = Bases::new(params);
        bases.push_dna2(1, row.len() as u64, &pack_dna2(row).expect("ACGT"));
        bases
    };
    for summed in [false, true] {
        let mut sorter = KeySorter::new(params, 6, false, summed.then_some(25)).expect("suits");
        for row in [&b"ACGTTGCATTGACC"[..], b"GGATCTAAGCTCTTA"] {
            sorter.begin_unit(Share::default());
            sorter.add(&bases_of(row), |_| Err("there is room")).expect("no batch");
        }
        let kmers: u32 = sorter.write(&mut Vec::new()).iter().map(|section| section.kmers).sum();
        assert_eq!(kmers, 5, "summed: {summed}");
        assert!(sorter.is_empty());
    }
}

#[test]
fn many_batches_of_one_row_count_each_key_once() {
    let params = Params::new(11, 0).expect("in range");
    let row: Vec<u8> = (0..3 * ROOM as u64 / 2)
        .map(|i| b"ACGT"[(i.wrapping_mul(i ^ 0x9e37_79b9_7f4a_7c15) >> 61) as usize & 3])
        .collect();
    let rows = vec![row, b"ACGTACGTACGTTTGA".to_vec()];
    let want = naive(&rows, params, false);
    assert_eq!(counted(&rows, params, (6, 0, false, false), 1 << 24), want);
    assert_eq!(counted(&rows, params, (6, 0, false, true), 1 << 24), want);
}

#[test]
fn what_does_not_suit_is_refused() {
    let params = |k, bits| Params::new(k, bits).expect("in range");
    assert!(KeySorter::new(params(10, 0), 8, false, None).is_none());
    assert!(KeySorter::new(params(13, 0), 12, false, None).is_none());
    assert!(KeySorter::new(params(11, 1), 8, false, None).is_none());
    assert!(KeySorter::new(params(12, 0), 7, false, None).is_none());
    for bits in [0, 24, 27, u32::MAX] {
        assert!(KeySorter::new(params(12, 0), 8, false, Some(bits)).is_none());
    }
}

#[test]
fn damaged_records_are_told() {
    let mut sums = [u32::MAX, 0, 0, 0];
    assert_eq!(add_stripe(&[1, 0, 3], &mut sums), None);
    assert_eq!(add_stripe(&[4, 0], &mut sums), None);
    assert_eq!(add_stripe(&[0, 0], &mut sums), None);
    assert_eq!(add_stripe(&[1, 0, 3, 0, 1, 0], &mut sums), Some(3));
    assert_eq!(sums[1..], [2, 0, 1]);
}
