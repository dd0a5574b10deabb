//! The published tables and the arena below everything.

use super::page::{Item, Part, size, strip};
use super::run::{CELLS, letters, tasks};
use crate::failure::Failure;
use crate::totals::open_stripe;
use kmer_worker::shared::Shared;
use shm_layout::hash::entry::EntryKind;
use shm_layout::words::{Chunk, Task};
use std::collections::BTreeMap;

/// Entries after which no further table is looked into for its probes.
const LOOKED_INTO: u64 = 20_000_000;
/// Distances that have a bar of their own.
const BARS: usize = 8;

/// Stripes: their words, their tables, how full they are and how far entries are from home.
pub(super) fn stripes(shared: &Shared) -> Result<Part, Failure> {
    let postgres = "dshash_table: dshash_partition, dshash_table_item";
    let mut part = Part::new("stripes", postgres, "shm-layout/src/hash/, worker/src/drain.rs");
    tasks(&mut part, &letters(&shared.stripes)?);
    let mut looked = Looked::default();
    for stripe in 0..shared.stripes.len() {
        if matches!(shared.stripes.look(stripe)?, Task::Done { .. }) {
            looked.look(shared, stripe)?;
        }
    }
    looked.say(&mut part);
    Ok(part)
}

#[derive(Default)]
struct Looked {
    empty: usize,
    tables: usize,
    squeezed: usize,
    kinds: BTreeMap<&'static str, usize>,
    places: u64,
    entries: u64,
    occupancy: [u64; 10],
    probed: u64,
    distances: Vec<u64>,
}

impl Looked {
    fn look(&mut self, shared: &Shared, stripe: usize) -> Result<(), Failure> {
        let Some((_, image)) = open_stripe(shared, stripe)? else {
            self.empty += 1;
            return Ok(());
        };
        self.tables += 1;
        self.squeezed += usize::from(image.is_squeezed());
        let kind = match image.kind() {
            EntryKind::Kmer16 => "KmerEntry16",
            EntryKind::Kmer32 => "KmerEntry32",
            EntryKind::Kmer64 => "KmerEntry64",
            EntryKind::Identity => "identity",
        };
        *self.kinds.entry(kind).or_default() += 1;
        self.places = self.places.saturating_add(image.places());
        self.entries = self.entries.saturating_add(image.len());
        let tenth = (image.len().saturating_mul(10) / image.places().max(1)).min(9);
        self.occupancy[tenth as usize] += 1;
        if self.probed.saturating_add(image.places()) <= LOOKED_INTO {
            self.probed += image.places();
            let distances = image.distances()?;
            self.distances.resize(self.distances.len().max(distances.len()), 0);
            self.distances.iter_mut().zip(distances).for_each(|(all, n)| *all += n);
        }
        Ok(())
    }

    fn say(&self, part: &mut Part) {
        part.field("tables", self.tables, "DSHASH_NUM_PARTITIONS");
        part.field("left out or without k-mers", self.empty, "(none)");
        if self.tables == 0 {
            return;
        }
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, n)| format!("{n} of {kind}")).collect();
        part.field("entries are", kinds.join(", "), "dshash_table_item");
        part.field("squeezed", self.squeezed, "(none)");
        part.field("places", self.places, "1 << dshash_table_control.size_log2");
        part.field("keys", self.entries, "sum of dshash_partition.count");
        let bars =
            (0..10).map(|tenth| (format!("{} to {} %", tenth * 10, tenth * 10 + 10), self.occupancy[tenth]));
        let bars = bars.filter(|(_, n)| *n > 0).collect();
        part.items.push(Item::Bars(bars, "tables by share of their places in use (dshash grows at 75 %)"));
        let mut bars: Vec<(String, u64)> =
            self.distances.iter().take(BARS).enumerate().map(|(d, n)| (d.to_string(), *n)).collect();
        let beyond: u64 = self.distances.iter().skip(BARS).sum();
        if beyond > 0 {
            bars.push((format!("{BARS} to {}", self.distances.len() - 1), beyond));
        }
        part.items.push(Item::Bars(
            bars,
            "keys by places between home and where they are (dshash: length of a bucket's chain)",
        ));
        if self.probed < self.places {
            part.items.push(Item::Note(format!("probes: of tables with {} places", self.probed)));
        }
    }
}

/// Chunks: whose they are, and where.
pub(super) fn arena(shared: &Shared) -> Result<Part, Failure> {
    let mut part = Part::new("arena", "dsa_area", "shm-layout/src/arena/mod.rs");
    let arena = &shared.arena;
    let (mut owners, mut letters) = (BTreeMap::new(), Vec::with_capacity(arena.chunks()));
    let mut again = 0u64;
    for chunk in 0..arena.chunks() as u32 {
        let mut letter = b'.';
        if let Chunk::Owned { owner, .. } = arena.look(chunk)? {
            *owners.entry(owner).or_insert(0u64) += 1;
            letter = b'o';
            let second = arena.again(chunk).map(|number| arena.look(number)).transpose()?;
            if matches!(second, Some(Chunk::Owned { .. })) {
                (letter, again) = (b'a', again + 1);
            }
        }
        letters.push(letter);
    }
    let owned: u64 = owners.values().sum();
    let bytes = arena.chunk_bytes() as u64;
    part.field("chunks", arena.chunks(), "usable_pages of the dsa_segment_maps");
    part.field("bytes of a chunk", bytes, "FPM_PAGE_SIZE, 4096");
    part.field("owned", format!("{owned}, {}", size(owned * bytes)), "dsa_area_control.total_segment_size");
    part.field("of these in use again", format!("{again}, {}", size(again * bytes)), "(none)");
    part.field("free", arena.chunks() as u64 - owned, "FreePageManager (a free list; here there is none)");
    let used = letters.iter().rposition(|letter| *letter != b'.').map_or(0, |last| last + 1);
    let legend =
        "chunks up to the last one in use, each cell one or several: o owned  a in use again  . free";
    part.items.push(Item::Strip(strip(&letters[..used], CELLS, b"oa."), legend));
    let rows = owners.iter().map(|(owner, chunks)| {
        vec![
            owner.slot.to_string(),
            owner.generation.to_string(),
            chunks.to_string(),
            (chunks * bytes).to_string(),
        ]
    });
    part.items.push(Item::Table(vec!["slot", "generation", "chunks", "bytes"], rows.collect()));
    Ok(part)
}
