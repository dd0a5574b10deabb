//! Reads the published stripes, sorts their keys, and writes the result.
//!
//! Stripes are hashes, so their keys come in no order. They are dealt into ranges by their highest bits; each range is sorted and turned into
//! text by itself, by as many threads as there were workers, and written in order. No process is started any more when the threads begin.

use crate::failure::Failure;
use crate::lead::Outcome;
use crate::output::Output;
use crate::plan::Plan;
use crate::totals::open_stripe;
use kmer::codec::write_kmer;
use kmer::params::Params;
use std::fmt::Write as _;
use std::sync::mpsc::{Receiver, sync_channel};

type Entry = (u64, u32);
/// Entries that a range should have, more or less.
const RANGE_ENTRIES: u64 = 1 << 15;
const MAX_RANGE_BITS: u32 = 14;

/// Writes the header and every reported k-mer.
///
/// # Errors
/// A damaged segment, a full disk, a closed pipe.
pub fn write(plan: &Plan, outcome: &Outcome, output: &mut Output) -> Result<(), Failure> {
    output.write(header(plan, outcome).as_bytes())?;
    let bits = plan.params.key_bits();
    let range_bits = (outcome.drain.kept / RANGE_ENTRIES).max(1).ilog2().min(MAX_RANGE_BITS).min(bits);
    let threads = usize::from(plan.workers.workers).clamp(1, 64).min(1 << range_bits);
    let dealt = deal(outcome, bits, range_bits, threads)?;
    std::thread::scope(|scope| {
        let texts: Vec<Receiver<Vec<u8>>> = (0..threads)
            .map(|thread| {
                let (send, receive) = sync_channel(2);
                let (dealt, params) = (&dealt, plan.params);
                scope.spawn(move || {
                    for range in (thread..1 << range_bits).step_by(threads) {
                        // A writer that failed has gone away; so do we.
                        if send.send(text_of(dealt, range, params)).is_err() {
                            return;
                        }
                    }
                });
                receive
            })
            .collect();
        (0..1usize << range_bits).try_for_each(|range| match texts[range % threads].recv() {
            Ok(text) => output.write(&text),
            Err(_) => Err(Failure::error("report: a thread ended too early")),
        })
    })
}

/// The entries of all stripes, dealt into `2^range_bits` ranges by each of `threads` threads.
fn deal(
    outcome: &Outcome,
    bits: u32,
    range_bits: u32,
    threads: usize,
) -> Result<Vec<Vec<Vec<Entry>>>, Failure> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || deal_share(outcome, bits, range_bits, thread, threads)))
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().map_err(|_| Failure::error("report: a thread ended too early"))?)
            .collect()
    })
}

fn deal_share(
    outcome: &Outcome,
    bits: u32,
    range_bits: u32,
    thread: usize,
    threads: usize,
) -> Result<Vec<Vec<Entry>>, Failure> {
    let shared = &outcome.shared;
    let range = |key: u64| {
        if range_bits == 0 { 0 } else { (key >> (bits - range_bits)) as usize & ((1 << range_bits) - 1) }
    };
    let (mut counts, mut scratch) = (vec![0; 1 << range_bits], Vec::new());
    for stripe in (thread..shared.stripes.len()).step_by(threads) {
        open_stripe(shared, stripe)?.1.for_each(&mut scratch, |key, _| counts[range(key)] += 1)?;
    }
    let mut ranges: Vec<Vec<Entry>> = counts.into_iter().map(Vec::with_capacity).collect();
    for stripe in (thread..shared.stripes.len()).step_by(threads) {
        open_stripe(shared, stripe)?
            .1
            .for_each(&mut scratch, |key, count| ranges[range(key)].push((key, count)))?;
    }
    Ok(ranges)
}

fn text_of(dealt: &[Vec<Vec<Entry>>], range: usize, params: Params) -> Vec<u8> {
    let mut entries: Vec<Entry> = dealt.iter().flat_map(|share| share[range].iter().copied()).collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    let mut text = Vec::with_capacity(entries.len() * (params.k() as usize + 32));
    let mut digits = itoa::Buffer::new();
    for (key, count) in entries {
        write_kmer(key >> params.occur_bitlen(), params.k(), &mut text);
        text.push(b'\t');
        text.extend_from_slice(digits.format(key).as_bytes());
        text.push(b'\t');
        text.extend_from_slice(digits.format(count).as_bytes());
        text.push(b'\n');
    }
    text
}

/// The facts of the analysis, one a line. Nothing in it depends on how many workers there were, or what became of them.
fn header(plan: &Plan, outcome: &Outcome) -> String {
    let (sums, rule) = (&outcome.scan.sums, &plan.rule);
    let mut text = String::new();
    let mut fact = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "# {name}: {value}");
    };
    fact("k", &plan.params.k());
    fact("occur_bitlen", &plan.params.occur_bitlen());
    fact("canonical", &"no");
    fact("column", &plan.column);
    fact("type", &if plan.job.dna4 { "dna4" } else { "dna2" });
    fact("total_rows", &sums.rows);
    fact("rows_null", &sums.nulls);
    fact("rows_short", &sums.short);
    fact("tuples_undecided", &sums.undecided);
    fact("tuples_skipped", &sums.damaged_tuples);
    fact("pages_skipped", &sums.damaged_pages);
    fact("windows_expanded", &sums.expanded);
    fact("windows_skipped", &sums.skipped);
    fact("max_appearance_rate", &rule.rate);
    fact("max_appearance_nrow", &rule.nrow);
    if plan.all {
        fact("threshold", &"none (every k-mer)");
    } else {
        let nrow = if rule.nrow > 0 { format!(", lowered to {} rows", rule.nrow) } else { String::new() };
        let Outcome { threshold, .. } = outcome;
        fact("threshold", &threshold);
        fact("threshold_formula", &format!("appearance_nrow > floor(total_rows * {}){nrow}", rule.rate));
    }
    fact("kmers_distinct", &outcome.drain.distinct);
    fact("kmers_reported", &outcome.drain.kept);
    fact("columns", &"kmer\tuintkey\tappearance_nrow");
    text
}
