//! Makes a pinned result: entries are put into a segment that has a passing name, and the segment gets the user's name when it is whole.

use crate::bucket::{Bucket, check_of, home};
use crate::read::{Pinned, head_area};
use crate::spec::{BUILD, DIGEST_AT, HEAD_BYTES, Head, KEY_BUCKETS, KEY_FACTS, KEY_HEAD, Spec, digest};
use crate::{Error, Result};
use shm_layout::pin::{Replaced, pin_name};
use shm_layout::segment::{Plan, Segment};
use shm_layout::sync::Ordering;
use shm_layout::toc::{Area, TocEstimator};
use std::sync::Arc;

/// Buckets that are touched before they are written to: their memory is on its way together.
const TOGETHER: usize = 64;
/// Bytes of header, table of contents, head and facts, and of what fills the last page. More of them is no result of ours, and not worth reading.
const MAX_FRONT: usize = 16 << 20;
const MAX_TAIL: usize = 8192;
/// A key that is so many buckets from home means keys that somebody prepared, or a broken hash.
const MAX_REACH: u64 = 1000;

/// A pinned result that is being made. Dropping it removes it.
pub struct Writer {
    segment: Segment,
    head: Head,
    buckets: Area,
    /// Entries that wait to be put in together.
    waiting: Vec<(u64, u32)>,
    put: u64,
}

/// A pinned result that is whole. Dropping it without pinning removes it.
pub struct Ready(Segment);

impl Writer {
    /// Begins a result in shared memory, all of which is reserved here.
    ///
    /// # Errors
    /// k that is none; no room.
    pub fn create(spec: &Spec) -> Result<Self> {
        Self::start(spec, |plan| Segment::create(None, plan))
    }

    /// Begins a result in private memory, for [`Ready::into_private`].
    ///
    /// # Errors
    /// k that is none.
    pub fn private(spec: &Spec) -> Result<Self> {
        Self::start(spec, Segment::create_private)
    }

    fn start(spec: &Spec, create: impl Fn(&Plan) -> shm_layout::Result<Segment>) -> Result<Self> {
        let params = spec.params()?;
        let form = crate::bucket::Form::for_bits(params.key_bits());
        let buckets = form.buckets(spec.entries);
        let bytes = usize::try_from(buckets).ok().and_then(|n| n.checked_mul(64));
        let bytes = bytes.filter(|bytes| *bytes < 1 << 46).ok_or_else(|| Error::Entries {
            what: "entries",
            expected: "fewer".into(),
            found: spec.entries.to_string(),
        })?;
        let mut toc = TocEstimator::default();
        toc.estimate(bytes).estimate(spec.facts.len()).estimate(HEAD_BYTES);
        let plan = Plan { toc_bytes: toc.total(), chunk_bytes: 4096, chunks: 0, beside: 0, build: BUILD };
        let segment = create(&plan)?;
        let toc = segment.toc()?;
        // From the end of the area on: the buckets are behind everything else.
        let area = toc.allocate(KEY_BUCKETS, bytes)?;
        let facts = toc.allocate(KEY_FACTS, spec.facts.len())?;
        toc.allocate(KEY_HEAD, HEAD_BYTES)?;
        segment.map().write(facts.offset, spec.facts.as_bytes())?;
        let head = Head {
            params,
            form,
            buckets,
            entries: spec.entries,
            multiplier: multiplier(),
            sum: 0,
            threshold: spec.threshold,
            total_rows: spec.total_rows,
            reach: 0,
        };
        Ok(Self { segment, head, buckets: area, waiting: Vec::with_capacity(TOGETHER), put: 0 })
    }

    /// Puts an entry in: each key once, with a count above 0.
    ///
    /// # Errors
    /// [`Error::Entries`] when there are more than were announced, a key is there twice, or a number is none that can be kept. Entries are taken some at a time, so
    /// that it may be a later call, or [`Writer::finish`], that says so.
    pub fn put(&mut self, key: u64, count: u32) -> Result<()> {
        self.put += 1;
        let wrong = |what, expected: String, found: u64| {
            Err(Error::Entries { what, expected, found: found.to_string() })
        };
        if self.put > self.head.entries {
            return wrong("entries", format!("at most {}", self.head.entries), self.put);
        }
        let bits = self.head.params.key_bits();
        if count == 0 || key.checked_shr(bits).unwrap_or(0) != 0 {
            return wrong("entry", format!("a count above 0 and a key of {bits} bits"), key);
        }
        self.waiting.push((key, count));
        if self.waiting.len() == TOGETHER { self.put_waiting() } else { Ok(()) }
    }

    fn put_waiting(&mut self) -> Result<()> {
        let (multiplier, buckets) = (self.head.multiplier, self.head.buckets);
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut homes = [0; TOGETHER];
        let mut seen = 0;
        for (place, (key, _)) in homes.iter_mut().zip(&waiting) {
            *place = home(*key, multiplier, buckets);
            seen ^= self.segment.map().word(self.at(*place))?.load(Ordering::Relaxed);
        }
        std::hint::black_box(seen);
        for (home, (key, count)) in homes.iter().zip(waiting.drain(..)) {
            self.put_from(*home, key, count)?;
            self.head.sum = self.head.sum.wrapping_add(count.into());
        }
        self.waiting = waiting;
        Ok(())
    }

    fn at(&self, bucket: u64) -> usize {
        self.buckets.offset + bucket as usize * 64
    }

    fn put_from(&mut self, home: u64, key: u64, count: u32) -> Result<()> {
        for distance in 0..MAX_REACH.min(self.head.buckets) {
            let bucket = (home + distance) % self.head.buckets;
            let mut words = self.segment.map().line(self.at(bucket))?;
            let before = words;
            if self.head.form.has(&words, key) {
                let (expected, found) = ("each key once".into(), format!("{key} twice"));
                return Err(Error::Entries { what: "entries", expected, found });
            }
            if self.head.form.put(&mut words, key, count) {
                self.head.reach = self.head.reach.max(distance);
                return self.store(bucket, &before, &words);
            }
        }
        let expected = format!("room within {MAX_REACH} buckets");
        Err(Error::Entries { what: "place of a key", expected, found: "none".into() })
    }

    fn store(&self, bucket: u64, before: &Bucket, words: &Bucket) -> Result<()> {
        for (place, word) in words.iter().enumerate().filter(|(place, word)| before[*place] != **word) {
            self.segment.map().word(self.at(bucket) + 8 * place)?.store(*word, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Closes the result: check sums, digest, and the mark that makes it readable.
    ///
    /// # Errors
    /// [`Error::Entries`] when there are fewer than were announced.
    pub fn finish(mut self) -> Result<Ready> {
        self.put_waiting()?;
        if self.put != self.head.entries {
            let (expected, found) = (self.head.entries.to_string(), self.put.to_string());
            return Err(Error::Entries { what: "entries", expected, found });
        }
        for bucket in 0..self.head.buckets {
            let before = self.segment.map().line(self.at(bucket))?;
            let mut words = before;
            words[7] |= u64::from(check_of(&words, bucket)) << 32;
            self.store(bucket, &before, &words)?;
        }
        let area = head_area(&self.segment)?;
        for (place, word) in self.head.to_words().iter().enumerate() {
            self.segment.map().word(area.offset + 8 * place)?.store(*word, Ordering::Relaxed);
        }
        self.segment.mark_pinned()?;
        let sum = digest_of(&self.segment, area, self.buckets)?;
        self.segment.map().word(area.offset + DIGEST_AT)?.store(sum, Ordering::Relaxed);
        self.segment.publish()?;
        Ok(Ready(self.segment))
    }
}

impl Ready {
    /// Gives the result the name by which [`Pinned::open`] finds it.
    ///
    /// # Errors
    /// When the name cannot be one, or is taken and not to be replaced.
    pub fn pin(self, name: &str, replace: bool) -> Result<()> {
        self.pin_for_now(name, replace).map(Provisional::keep)
    }

    /// The same, until it is known whether all else went well: [`Provisional::keep`].
    ///
    /// # Errors
    /// As [`Ready::pin`].
    pub fn pin_for_now(self, name: &str, replace: bool) -> Result<Provisional> {
        let name = pin_name(name)?;
        let replaced = self.0.pin(&name, replace)?;
        Ok(Provisional { segment: self.0, name, replaced, kept: false })
    }

    /// Whether another result is the same: what was counted, what it says of itself, every k-mer and its count.
    ///
    /// # Errors
    /// When the other one is damaged.
    pub fn equals(&self, other: &Pinned) -> Result<bool> {
        let head = |words: [u64; 15]| [&words[..4], &words[6..7], &words[8..11]].concat();
        let area = head_area(&self.0)?;
        let mut words = [0; 15];
        for (place, word) in words.iter_mut().enumerate() {
            *word = self.0.map().word(area.offset + 8 * place)?.load(Ordering::Relaxed);
        }
        let facts = self.0.toc()?.lookup(KEY_FACTS)?;
        let mut text = Vec::new();
        self.0.map().read_to_vec(facts.offset, facts.len, &mut text)?;
        if head(words) != head(other.head.to_words()) || text != other.facts().as_bytes() {
            return Ok(false);
        }
        // As many as the other has, each once.
        let (form, buckets) = (other.head.form, words[5]);
        let base = self.0.toc()?.lookup(KEY_BUCKETS)?.offset;
        for bucket in 0..buckets {
            let line = self.0.map().line(base + bucket as usize * 64)?;
            for (key, count) in (0..form.slots()).map(|place| form.entry(&line, place)) {
                if count > 0 && other.count_key(key)? != count {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Uses a result in private memory here.
    ///
    /// # Errors
    /// None for one that was just written.
    pub fn into_private(self) -> Result<Pinned> {
        Pinned::of(Arc::new(self.0))
    }
}

/// A result that has its name. Dropping it takes that back: the one that was replaced is there again, or none is.
pub struct Provisional {
    segment: Segment,
    name: String,
    replaced: Option<Replaced>,
    kept: bool,
}

impl Provisional {
    /// Leaves the result to its users. One that it replaced is gone.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Provisional {
    fn drop(&mut self) {
        if !self.kept {
            let _ = self.segment.unpin(&self.name, self.replaced.as_ref());
        }
    }
}

/// The digest of everything but the buckets, which bear their own check sums: the magic is a check of its own, and the digest is not of itself.
pub(crate) fn digest_of(segment: &Segment, head: Area, buckets: Area) -> Result<u64> {
    let (map, end) = (segment.map(), buckets.offset + buckets.len);
    let tail = map.len() - end;
    if buckets.offset > MAX_FRONT || tail > MAX_TAIL {
        let (expected, found) =
            (format!("at most {MAX_FRONT} and {MAX_TAIL}"), format!("{} and {tail}", buckets.offset));
        let what = "bytes before and behind the buckets";
        return Err(Error::Damaged { name: segment.name().into(), what, expected, found });
    }
    let (mut bytes, mut behind) = (Vec::new(), Vec::new());
    map.read_to_vec(8, buckets.offset - 8, &mut bytes)?;
    map.read_to_vec(end, tail, &mut behind)?;
    let digest_at = head.offset + DIGEST_AT - 8;
    Ok(digest(digest(digest(1, &bytes[..digest_at]), &bytes[digest_at + 8..]), &behind))
}

/// Draws the hash of a result.
fn multiplier() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) | 1
}
