//! The segment of a pinned result.

use super::page::{Item, Page, Part, size};
use super::run::{contents, header};
use crate::failure::Failure;
use crate::pin;
use kmer_pin::Pinned;

/// The page of the pinned result `name`.
pub(super) fn page(name: &str, state: &str) -> Result<Page, Failure> {
    let pinned = Pinned::open(name).map_err(pin::failure)?;
    let lead = format!("{state}; {} k-mers of k={}; {}", pinned.len(), pinned.k(), size(pinned.bytes()));
    let segment = pinned.segment();
    let mut parts = vec![header(segment)?, contents(segment)?];
    let mut part = Part::new("result", "(an entry of dsm_registry)", "pin/src/lib.rs");
    part.field("k, occur_bitlen", format!("{}, {}", pinned.k(), pinned.occur_bitlen()), "(none)");
    part.field("canonical", pinned.canonical(), "(none)");
    part.field("rows", pinned.total_rows(), "(none)");
    let threshold = pinned.threshold().map_or("every k-mer".into(), |t| format!("k-mers with more than {t}"));
    part.field("holds", threshold, "HAVING");
    parts.push(part);
    let mut part = Part::new("buckets", "dshash_table_control.buckets", "pin/src/bucket.rs");
    let fill = pinned.fill().map_err(pin::failure)?;
    part.field("buckets", fill.iter().sum::<u64>(), "1 << dshash_table_control.size_log2");
    part.field("keys", pinned.len(), "sum of dshash_partition.count");
    part.field("farthest from home", format!("{} buckets", pinned.reach()), "(none: chains)");
    let bars = fill.iter().enumerate().map(|(n, buckets)| (n.to_string(), *buckets)).collect();
    part.items.push(Item::Bars(bars, "buckets by keys in them (dshash: length of a bucket's chain)"));
    parts.push(part);
    Ok(Page { name: name.into(), lead, parts })
}
