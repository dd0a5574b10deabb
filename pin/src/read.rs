//! Reads a pinned result. Every number out of it is copied once and checked before it is used as a place.

use crate::bucket::{Bucket, check_in, check_of, home};
use crate::spec::{BUILD, DIGEST_AT, HEAD_BYTES, HEAD_WORDS, Head, KEY_BUCKETS, KEY_FACTS, KEY_HEAD};
use crate::write::digest_of;
use crate::{Error, Result};
use kmer::codec::parse_kmer;
use shm_layout::pin::pin_name;
use shm_layout::segment::Segment;
use shm_layout::sync::Ordering;
use shm_layout::toc::Area;
use std::sync::Arc;

/// Questions that are answered together: their memory is on its way at the same time.
const TOGETHER: usize = 64;

/// A pinned result, open for look-ups.
pub struct Pinned {
    segment: Arc<Segment>,
    pub(crate) head: Head,
    buckets: Area,
    facts: String,
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").field("name", &self.segment.name()).field("head", &self.head).finish()
    }
}

/// A k-mer from its letters, A, C, G, T or U in either case.
///
/// # Errors
/// [`Error::NotAKmer`].
pub fn parse(letters: &str, k: u32) -> Result<u64> {
    let kmer = if letters.len() == k as usize { parse_kmer(letters.as_bytes()) } else { None };
    kmer.ok_or_else(|| Error::NotAKmer { letters: letters.into(), k })
}

/// Where the head lies.
pub(crate) fn head_area(segment: &Segment) -> Result<Area> {
    let area = segment.toc()?.lookup(KEY_HEAD)?;
    if area.len == HEAD_BYTES {
        return Ok(area);
    }
    let (expected, found) = (HEAD_BYTES.to_string(), area.len.to_string());
    Err(Error::Damaged { name: segment.name().into(), what: "bytes of the head", expected, found })
}

/// What a pinned result says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Letters of a k-mer.
    pub k: u32,
    /// How many keys there are.
    pub entries: u64,
}

/// Looks at the header of what was pinned as `name`. Unlike [`Pinned::open`] it maps nothing, so that it is safe also beside somebody who writes that file anew in
/// its place.
///
/// # Errors
/// As [`Pinned::open`].
pub fn about(name: &str) -> Result<About> {
    let Pinned { head, .. } = Pinned::of(Segment::attach_to_copy(&pin_name(name)?, BUILD)?)?;
    Ok(About { k: head.params.k(), entries: head.entries })
}

impl Pinned {
    /// Opens the result that was pinned as `name`. Reads its header, not its k-mers.
    ///
    /// # Errors
    /// When there is none of that name, it is somebody else's, or its header is damaged.
    pub fn open(name: &str) -> Result<Self> {
        Self::of(Segment::attach_to_read(&pin_name(name)?, BUILD)?)
    }

    pub(crate) fn of(segment: Arc<Segment>) -> Result<Self> {
        let damaged = |what, expected: String, found: String| {
            Err(Error::Damaged { name: segment.name().into(), what, expected, found })
        };
        let toc = segment.toc()?;
        let (area, facts, buckets) = (head_area(&segment)?, toc.lookup(KEY_FACTS)?, toc.lookup(KEY_BUCKETS)?);
        if area.offset + area.len > buckets.offset || facts.offset + facts.len > buckets.offset {
            let expected = format!("head and facts before offset {}", buckets.offset);
            return damaged("table of contents", expected, "others".into());
        }
        let mut words = [0; HEAD_WORDS];
        for (place, word) in words.iter_mut().enumerate() {
            *word = segment.map().word(area.offset + 8 * place)?.load(Ordering::Relaxed);
        }
        let (expected, found) = (words[DIGEST_AT / 8], digest_of(&segment, area, buckets)?);
        if expected != found {
            return damaged("digest", format!("{expected:016x}"), format!("{found:016x}"));
        }
        let head = match Head::from_words(&words, buckets.len as u64) {
            Ok(head) => head,
            Err((what, expected, found)) => return damaged(what, expected, found.to_string()),
        };
        let mut text = Vec::new();
        segment.map().read_to_vec(facts.offset, facts.len, &mut text)?;
        let facts = String::from_utf8_lossy(&text).into_owned();
        Ok(Self { segment, head, buckets, facts })
    }

    /// Letters of a k-mer.
    pub const fn k(&self) -> u32 {
        self.head.params.k()
    }

    /// Bits behind the k-mer in a key, which number its occurrences in a row.
    pub const fn occur_bitlen(&self) -> u32 {
        self.head.params.occur_bitlen()
    }

    /// Whether a k-mer and its reverse complement are one. Questions may be asked for either.
    pub const fn canonical(&self) -> bool {
        self.head.params.canonical()
    }

    /// Rows that were counted.
    pub const fn total_rows(&self) -> u64 {
        self.head.total_rows
    }

    /// What is here has a higher count than this, and what is not is answered with 0; `None`: every key that was counted is here. A report of the most
    /// frequent only, or of those up to a count, has not all with a higher count: its facts say so.
    pub const fn threshold(&self) -> Option<u64> {
        self.head.threshold
    }

    /// How many keys there are.
    pub const fn len(&self) -> u64 {
        self.head.entries
    }

    /// True when there are none.
    pub const fn is_empty(&self) -> bool {
        self.head.entries == 0
    }

    /// The lines that the report of the run begins with.
    pub fn facts(&self) -> &str {
        &self.facts
    }

    /// Bytes of the segment.
    pub fn bytes(&self) -> u64 {
        self.segment.map().len() as u64
    }

    /// The count of a k-mer, given as letters; of its first occurrence in a row, where occurrences are numbered. 0 when it is not there.
    ///
    /// # Errors
    /// [`Error::NotAKmer`]; [`Error::Damaged`].
    pub fn count(&self, letters: &str) -> Result<u32> {
        let kmer = self.canonical_of(parse(letters, self.k())?);
        self.count_key(kmer << self.occur_bitlen())
    }

    /// The k-mer under whose key the counts of `kmer` are: itself, or its reverse complement if that is smaller and both count as one.
    pub fn canonical_of(&self, kmer: u64) -> u64 {
        self.head.params.counted_as(kmer)
    }

    /// The count of a key (`kmer << occur_bitlen | n - 1`); 0 when it is not there.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn count_key(&self, key: u64) -> Result<u32> {
        self.find(home(key, self.head.multiplier, self.head.buckets), key)
    }

    /// The counts of many keys, in their order, in place of what is in `counts`. Several times as fast as one by one.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn count_all(&self, keys: &[u64], counts: &mut Vec<u32>) -> Result<()> {
        counts.clear();
        counts.reserve(keys.len());
        let (map, mut homes) = (self.segment.map(), [0; TOGETHER]);
        for keys in keys.chunks(TOGETHER) {
            let mut seen = 0;
            for (place, key) in homes.iter_mut().zip(keys) {
                *place = home(*key, self.head.multiplier, self.head.buckets);
                seen ^= map.word(self.at(*place))?.load(Ordering::Relaxed);
            }
            std::hint::black_box(seen);
            for (home, key) in homes.iter().zip(keys) {
                counts.push(self.find(*home, *key)?);
            }
        }
        Ok(())
    }

    /// Calls `each` with every key and its count, in no order.
    ///
    /// # Errors
    /// [`Error::Damaged`], also when they are not as many, or do not add up to what the head says.
    pub fn entries(&self, mut each: impl FnMut(u64, u32)) -> Result<()> {
        let (mut entries, mut sum) = (0u64, 0u64);
        for bucket in 0..self.head.buckets {
            let words = self.bucket(bucket)?;
            for place in 0..self.head.form.slots() {
                let (key, count) = self.head.form.entry(&words, place);
                if count != 0 {
                    (entries, sum) = (entries + 1, sum.wrapping_add(count.into()));
                    each(key, count);
                }
            }
        }
        if (entries, sum) == (self.head.entries, self.head.sum) {
            return Ok(());
        }
        let expected = format!("{} of sum {}", self.head.entries, self.head.sum);
        Err(self.damaged("entries", expected, format!("{entries} of sum {sum}")))
    }

    /// The segment, for who looks into it.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// How many buckets a key is from home at most.
    pub const fn reach(&self) -> u64 {
        self.head.reach
    }

    /// How many buckets have so many keys, by number of keys.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn fill(&self) -> Result<Vec<u64>> {
        let slots = self.head.form.slots();
        let mut fill = vec![0; slots + 1];
        for bucket in 0..self.head.buckets {
            let words = self.bucket(bucket)?;
            let used = (0..slots).filter(|place| self.head.form.entry(&words, *place).1 != 0).count();
            fill[used] += 1;
        }
        Ok(fill)
    }

    #[inline]
    fn at(&self, bucket: u64) -> usize {
        self.buckets.offset + bucket as usize * 64
    }

    #[inline]
    fn bucket(&self, bucket: u64) -> Result<Bucket> {
        let words = self.segment.map().line(self.at(bucket))?;
        let (right, found) = (check_of(&words, bucket), check_in(&words));
        if right == found { Ok(words) } else { Err(self.bad_bucket(bucket, right, found)) }
    }

    #[inline]
    fn find(&self, home: u64, key: u64) -> Result<u32> {
        let mut bucket = home;
        for _ in 0..=self.head.reach {
            let words = self.bucket(bucket)?;
            let count = self.head.form.find(&words, key);
            if count != 0 || !self.head.form.is_full(&words) {
                return Ok(count);
            }
            bucket = if bucket + 1 == self.head.buckets { 0 } else { bucket + 1 };
        }
        Ok(0)
    }

    #[cold]
    fn bad_bucket(&self, bucket: u64, right: u32, found: u32) -> Error {
        let what = "check sum of a bucket";
        self.damaged(what, format!("{right:08x}"), format!("{found:08x} (bucket {bucket})"))
    }

    fn damaged(&self, what: &'static str, expected: String, found: String) -> Error {
        Error::Damaged { name: self.segment.name().into(), what, expected, found }
    }
}
