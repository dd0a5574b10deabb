//! Tables of weights, judged by a map.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

fn tag(weight: u32) -> u64 {
    u64::from(weight) << 32 | 7
}

/// The oracle: one addition a pair.
fn check(pairs: &[(u64, u32)], key_bits: u32, multiplier: u64, keys: usize) {
    let mut want: HashMap<u64, u32> = HashMap::new();
    pairs.iter().for_each(|(key, weight)| {
        let sum = want.entry(*key).or_default();
        *sum = sum.wrapping_add(*weight);
    });
    let mut counter = WeightCounter::new(multiplier, key_bits);
    assert_eq!(counter.reset(keys), WeightCounter::suits(keys, key_bits));
    assert!(counter.reset(keys) && counter.is_empty());
    let mut total = Added::default();
    for pairs in pairs.chunks(3000) {
        let (keys, tags): (Vec<u64>, Vec<u64>) = pairs.iter().map(|(k, w)| (*k, tag(*w))).unzip();
        let added = match key_bits {
            ..=32 => {
                let keys: Vec<u32> = keys.iter().map(|key| *key as u32).collect();
                counter.add_batch(&keys, &tags)
            }
            _ => counter.add_batch(&keys, &tags),
        };
        let added = added.expect("room for the rests");
        total.counted += added.counted;
        total.key_sum = total.key_sum.wrapping_add(added.key_sum);
    }
    let (mut got, mut sums) = (HashMap::new(), Added::default());
    counter.for_each_batch(|batch| {
        for (number, weight) in batch {
            assert!(got.insert(counter.key(*number), *weight).is_none(), "a key twice");
            sums.counted += u64::from(*weight);
            sums.key_sum = sums.key_sum.wrapping_add(number.wrapping_mul(u64::from(*weight)));
            let hash = counter.key(*number).wrapping_mul(counter.multiplier());
            assert_eq!(number.wrapping_mul(counter.number_multiplier()), hash);
        }
    });
    assert_eq!((got.len(), got), (counter.len(), want));
    assert_eq!(total, sums);
}

proptest! {
    #[test]
    fn adds_weights_like_a_map(
        pairs in prop::collection::vec((0..5000u64, 1..1000u32), 0..9000), step: u64, key_bits in 18..=32u32, multiplier: u64, keys in 0..6000usize,
    ) {
        let mask = u64::MAX >> (64 - key_bits);
        let pairs: Vec<_> = pairs.iter().map(|(key, weight)| (key.wrapping_mul(step | 1) & mask, *weight)).collect();
        check(&pairs, key_bits, multiplier, keys);
    }

    #[test]
    fn whichever_copy_runs(rests in prop::array::uniform8(0..4u32), weights in prop::array::uniform8(0..2u32), rest in 0..4u32) {
        let line = Line { rests, weights };
        let want = (0..BUCKET).filter(|i| rests[*i] == rest || weights[*i] == 0).fold(0, |found, i| found | 1 << i);
        prop_assert_eq!(line.find(rest), want);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if is_x86_feature_detected!("avx2") {
            #[allow(unsafe_code, reason = "the copy that this processor may not choose")]
            // SAFETY: the processor has AVX2, all that the function asks for.
            let found = unsafe { line.find_avx2(rest) };
            prop_assert_eq!(found, want);
        }
    }
}

/// A table whose keys are their own hashes, of 20 bits, has as many lines as its highest bits tell apart.
#[test]
fn full_lines_lead_to_the_next_and_no_further_than_can_be_told() {
    let mut counter = WeightCounter::new(1, 20);
    assert!(counter.reset(0));
    assert_eq!(counter.parting, Parting { line_bits: 3, rest_bits: 17, furthest: 15 });
    // All at home in the last line of eight, so that the next is the first.
    let home = 7 << 17;
    let keys: Vec<u32> = (0..20).map(|key| home | key).collect();
    assert!(counter.add_batch(&keys, &[tag(2); 20]).is_some());
    assert_eq!((counter.len(), counter.places()), (20, 64));
    let far = counter.lines.iter().map(|line| line.weights.iter().filter(|w| **w != 0).count());
    assert_eq!(far.collect::<Vec<_>>(), [8, 4, 0, 0, 0, 0, 0, 8]);
    let mut found = Vec::new();
    counter.for_each_batch(|batch| found.extend(batch.iter().map(|(number, _)| counter.key(*number) as u32)));
    found.sort_unstable();
    assert_eq!(found, keys);
    // In a larger one of which 15 lines and their own are full no more fit, and none that is larger still has them further apart.
    let keys: Vec<u32> = (0..2000).collect();
    assert_eq!(counter.add_batch(&keys, &[tag(1); 2000]), None);
}

#[test]
fn a_table_grows_where_that_brings_keys_nearer_to_their_homes() {
    let mut counter = WeightCounter::new(1, 20);
    assert!(counter.reset(1000));
    assert_eq!(counter.places(), 256 * BUCKET);
    // At home in the first line, which 15 more can help.
    let keys: Vec<u32> = (0..160).map(|key| key * 25).collect();
    assert!(counter.add_batch(&keys, &[tag(3); 160]).is_some());
    // Four times as many lines hold what was there, but not the rest; four times as many again do.
    assert_eq!((counter.len(), counter.places()), (160, 4096 * BUCKET));
    let mut found = Vec::new();
    counter.for_each_batch(|batch| {
        found.extend(batch.iter().map(|(number, weight)| (counter.key(*number) as u32, *weight)))
    });
    assert_eq!(found, keys.iter().map(|key| (*key, 3)).collect::<Vec<_>>());
}

#[test]
fn only_where_32_bits_hold_the_rest() {
    assert!(WeightCounter::suits(0, 6) && !WeightCounter::suits(0, 5));
    let suits = |keys| (1..=64).rev().find(|key_bits| WeightCounter::suits(keys, *key_bits));
    assert_eq!([0, 3_000, 30_000].map(suits), [Some(34), Some(41), Some(44)]);
    // Of 42 bits, as k = 21 has, 2^13 lines tell enough: as many as 30,000 keys need, twice what 15,000 do.
    let lines = |keys, key_bits| {
        let mut counter = WeightCounter::new(3, key_bits);
        counter.reset(keys).then_some(counter.lines.len())
    };
    assert_eq!(
        [30_000, 15_000, 7_000, 3_000].map(|keys| lines(keys, 42)),
        [Some(1 << 13), Some(1 << 13), Some(1 << 13), None]
    );
    assert_eq!(lines(7_000, 32), Some(1 << 11));
    let mut counter = WeightCounter::new(3, 44);
    assert!(!counter.reset(15_000) && counter.reset(300_000));
}

#[test]
fn a_table_that_was_guessed_too_small_grows() {
    let pairs: Vec<_> = (0..100_000u64).map(|key| (key % 70_000, 1)).collect();
    check(&pairs, 32, 0x9e37_79b9_7f4a_7c15, 0);
}

/// In four times as many lines as there need be, so that four bytes hold the rest.
#[test]
fn few_long_keys_are_added_like_by_a_map() {
    let key = |i: u64| (i % 5000).wrapping_mul(0x5851_f42d_4c95_7f2d) & (u64::MAX >> 22);
    let pairs: Vec<_> = (0..12_000u64).map(|i| (key(i), i as u32 % 7 + 1)).collect();
    check(&pairs, 42, 0x9e37_79b9_7f4a_7c15, 5500);
}
