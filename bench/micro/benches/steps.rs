//! Seconds of the steps that a k-mer goes through, each alone and in one thread: extraction, minimizers, cutting and sorting, short keys' sums, commit, drain.
//!
//! Throughput is in k-mers (commit: in bytes). The rows are random reads of 150 bases drawn from a genome of a million, so that k-mers come again
//! as they do in reads.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kmer::bases::{Bases, kmers_of};
use kmer::keys::{self, KeySorter};
use kmer::minimizer::{Dealer, TILE, Tile};
use kmer::params::Params;
use kmer::superkmer::{Share, Splitter};
use shm_layout::arena::Arena;
use shm_layout::hash::counter::GroupCounter;
use shm_layout::hash::entry::EntryKind;
use shm_layout::hash::image::ImageWriter;
use shm_layout::hash::table::Table;
use shm_layout::hash::weights::WeightCounter;
use shm_layout::segment::{Plan, Segment};
use shm_layout::tasks::TaskWords;
use shm_layout::toc::TocEstimator;
use shm_layout::words::Owner;

const READ: u64 = 150;
const READS: u32 = 8000;
const STRIPE_BITS: u32 = 10;
const KS: [u32; 3] = [12, 21, 31];

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Packed reads, four bases a byte, each from a whole byte on.
fn reads() -> Vec<Vec<u8>> {
    let mut rng = Rng(7);
    let genome: Vec<u8> = (0..250_000).map(|_| (rng.next() >> 32) as u8).collect();
    let bytes = READ.div_ceil(4) as usize;
    (0..READS)
        .map(|_| {
            let from = rng.next() as usize % (genome.len() - bytes);
            genome[from..from + bytes].to_vec()
        })
        .collect()
}

fn push_all(bases: &mut Bases, reads: &[Vec<u8>]) {
    bases.restart();
    for (row, read) in reads.iter().enumerate() {
        bases.push_dna2(row as u32 + 1, READ, read);
    }
}

fn params(k: u32) -> Params {
    Params::new(k, 0).expect("in range")
}

fn pushed(k: u32) -> Bases {
    let mut bases = Bases::new(params(k));
    push_all(&mut bases, &reads());
    bases
}

fn kmers(k: u32) -> u64 {
    u64::from(READS) * (READ - u64::from(k) + 1)
}

fn extraction(c: &mut Criterion) {
    let mut group = c.benchmark_group("extraction");
    for k in KS {
        group.throughput(Throughput::Elements(kmers(k)));
        let (reads, mut bases) = (reads(), Bases::new(params(k)));
        group.bench_function(BenchmarkId::new("rows into runs", k), |b| {
            b.iter(|| push_all(black_box(&mut bases), black_box(&reads)));
        });
        let bases = pushed(k);
        group.bench_function(BenchmarkId::new("runs into k-mers", k), |b| {
            b.iter(|| {
                let runs = bases.runs().iter();
                runs.map(|run| kmers_of(bases.packed(), run, params(k)).fold(0, u64::wrapping_add))
                    .fold(0, u64::wrapping_add)
            });
        });
    }
}

fn minimizers(c: &mut Criterion) {
    let mut group = c.benchmark_group("minimizers");
    for k in KS {
        let (bases, dealer) = (pushed(k), Dealer::new(params(k), STRIPE_BITS, 42));
        let tiles = (bases.packed().len() - kmer::bases::PADDING) * 4 / TILE;
        group.throughput(Throughput::Elements((tiles * TILE) as u64));
        let mut tile = Tile::default();
        group.bench_function(BenchmarkId::from_parameter(k), |b| {
            b.iter(|| {
                for first in 0..tiles {
                    dealer.minimizers(bases.packed(), first * TILE, TILE, black_box(&mut tile));
                }
            });
        });
    }
}

fn cutting_and_sorting(c: &mut Criterion) {
    let mut group = c.benchmark_group("super-k-mers cut and sorted");
    for k in KS {
        let (bases, dealer) = (pushed(k), Dealer::new(params(k), STRIPE_BITS, 42));
        let (mut splitter, mut out) = (Splitter::new(dealer, STRIPE_BITS), Vec::new());
        group.throughput(Throughput::Elements(kmers(k)));
        group.bench_function(BenchmarkId::from_parameter(k), |b| {
            b.iter(|| {
                splitter.begin_unit(Share::default());
                splitter.split(&bases, black_box(&mut out), 0).len()
            });
        });
    }
}

/// Short keys of a large unit: taken by fours, sorted, and counted whenever a bucket is full.
fn sums(c: &mut Criterion) {
    let mut group = c.benchmark_group("short keys summed");
    for k in [10, 12] {
        let bases = pushed(k);
        let stripe_bits = keys::least_stripe_bits(params(k));
        let mut sorter = KeySorter::new(params(k), stripe_bits, false, Some(26)).expect("short keys");
        sorter.begin_unit(Share::default());
        let mut batch = Vec::new();
        group.throughput(Throughput::Elements(kmers(k)));
        group.bench_function(BenchmarkId::from_parameter(k), |b| {
            b.iter(|| {
                let stored = sorter.add(&bases, |sorter| {
                    batch.clear();
                    sorter.write(&mut batch);
                    Ok::<(), ()>(())
                });
                black_box(stored)
            });
        });
    }
}

fn commit(c: &mut Criterion) {
    const CHUNKS: usize = 64;
    let mut toc = TocEstimator::default();
    toc.estimate(Arena::estimate(CHUNKS, 0)).estimate(TaskWords::estimate(1));
    let plan = Plan { toc_bytes: toc.total(), chunk_bytes: 64 << 10, chunks: CHUNKS, beside: 0, build: 1 };
    let segment = Arc::new(Segment::create(None, &plan).expect("room in /dev/shm"));
    let toc = segment.toc().expect("a table");
    let area = toc.allocate(1, Arena::estimate(CHUNKS, 0)).expect("estimated");
    let arena = Arena::attach(&segment, area).expect("estimated");
    let area = toc.allocate(2, TaskWords::estimate(1)).expect("estimated");
    let (owner, next) = (Owner { slot: 0, generation: 1 }, Owner { slot: 1, generation: 1 });
    let mut group = c.benchmark_group("commit");
    for size in [100, 64 << 10, 1 << 20] {
        let bytes = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("store and commit", size), |b| {
            b.iter(|| {
                // A free task each time, and the chunks back.
                let units = TaskWords::create_in(&segment, area, 1).expect("estimated");
                let claim = units.claim(0, owner).expect("sound").expect("free");
                let chain = arena.store(owner, &bytes).expect("room");
                units.commit(0, claim, owner, chain.head()).expect("claimed");
                arena.free(chain).expect("ours");
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("claim and give back", |b| {
        let units = TaskWords::create_in(&segment, area, 1).expect("estimated");
        b.iter(|| {
            let claim = units.claim(0, next).expect("sound").expect("free");
            units.give_back(0, claim).expect("claimed");
        });
    });
}

fn drain(c: &mut Criterion) {
    let mut group = c.benchmark_group("drain");
    for k in [21, 31] {
        let bases = pushed(k);
        let (mut keys, mut tags) = (Vec::new(), Vec::new());
        for run in bases.runs().iter().take(2500) {
            for key in kmers_of(bases.packed(), run, params(k)) {
                keys.push(key);
                tags.push(1 << 32 | u64::from(run.row));
            }
        }
        let mut table = GroupCounter::<u64>::new(keys.len(), 0x9e37_79b9_7f4a_7c15);
        group.throughput(Throughput::Elements(keys.len() as u64));
        group.bench_function(BenchmarkId::new("count", k), |b| {
            b.iter(|| {
                table.reset(keys.len());
                for (keys, tags) in keys.chunks(1024).zip(tags.chunks(1024)) {
                    let _ = black_box(table.add_batch(keys, tags));
                }
                table.len()
            });
        });
        let mut weights = WeightCounter::new(0x9e37_79b9_7f4a_7c15, 2 * k);
        if weights.reset(keys.len()) {
            group.bench_function(BenchmarkId::new("add weights", k), |b| {
                b.iter(|| {
                    weights.reset(keys.len());
                    for (keys, tags) in keys.chunks(1024).zip(tags.chunks(1024)) {
                        let _ = black_box(weights.add_batch(keys, tags));
                    }
                    weights.len()
                });
            });
        }
        group.throughput(Throughput::Elements(table.len() as u64));
        group.bench_function(BenchmarkId::new("write the image", k), |b| {
            b.iter(|| {
                let entries = table.len() as u64;
                let mut image =
                    ImageWriter::hashed(Vec::new(), EntryKind::Kmer64, entries, table.multiplier());
                image.put_all(table.iter());
                image.finish().len()
            });
        });
    }
}

criterion_group!(steps, extraction, minimizers, cutting_and_sorting, sums, commit, drain);
criterion_main!(steps);
