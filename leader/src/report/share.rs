//! What a thread brings that read some of the stripes, and its bytes for a leader that goes on.

use super::Entry;
use super::tally::Tally;
use super::top::Top;
use crate::carried::{Source, put};

/// What the thread that deals a share of the stripes brings.
#[derive(Default)]
pub struct Share {
    /// k-mers that are reported, if no others are more frequent.
    pub admitted: u64,
    /// Those that are held, see [`super::dealing::Held`].
    pub entries: Vec<Vec<Entry>>,
    /// How many k-mers are in how many rows, if that was asked for.
    pub tally: Option<Tally>,
    /// The most frequent of all k-mers, if they were asked for.
    pub top: Option<Top>,
}

impl Share {
    /// Entries that are held.
    pub fn held(&self) -> u64 {
        self.entries.iter().map(|range| range.len() as u64).sum()
    }

    /// Appends it as numbers: how many are admitted, ranges and their entries, the tally, and the most frequent k-mers, each with how many
    /// there are.
    pub fn append(&self, bytes: &mut Vec<u8>) {
        put(bytes, self.admitted);
        put(bytes, self.entries.len() as u64);
        for range in &self.entries {
            append_entries(range, bytes);
        }
        let tally: Vec<Entry> =
            self.tally.iter().flat_map(Tally::iter).map(|(rows, kmers)| (kmers, rows)).collect();
        append_entries(&tally, bytes);
        append_entries(&self.top.as_ref().map(Top::sorted).unwrap_or_default(), bytes);
        put(bytes, u64::from(self.tally.is_some()));
        put(bytes, self.top.as_ref().map_or(0, Top::most));
    }

    /// Takes what [`Share::append`] appended; `None` when it is cut off.
    pub fn take(from: &mut Source<'_>) -> Option<Self> {
        let admitted = from.number()?;
        let entries = from.many(8, take_entries)?;
        let (counts, most) = (take_entries(from)?, take_entries(from)?);
        let tally = (from.number()? != 0).then(|| {
            let mut tally = Tally::default();
            counts.iter().for_each(|(kmers, rows)| tally.add(*rows, *kmers));
            tally
        });
        let top = Some(from.number()?).filter(|most| *most > 0).map(|most_kept| {
            let mut top = Top::new(most_kept);
            most.iter().for_each(|(key, rows)| top.add(*key, *rows));
            top
        });
        Some(Self { admitted, entries, tally, top })
    }
}

fn append_entries(entries: &[Entry], bytes: &mut Vec<u8>) {
    put(bytes, entries.len() as u64);
    for (key, count) in entries {
        put(bytes, *key);
        bytes.extend(count.to_le_bytes());
    }
}

fn take_entries(from: &mut Source<'_>) -> Option<Vec<Entry>> {
    from.many(12, |from| Some((from.number()?, from.half()?)))
}
