//! The job: everything that a worker must know and that does not change during a run.
//!
//! The leader encodes it and puts it under a key of the table of contents; a worker decodes it. The encoding is bincode's, kept behind the two
//! functions [`Job::encode`] and [`Job::decode`], which are the only users of that crate; it is fed only bytes that this very build wrote
//! (the segment's header carries [`build_id`] and attaching checks it).

use crate::error::WorkError;
use crate::feed::STDIN;
use bincode::{Decode, Encode};
use kmer::minimizer::RULE;
use kmer::params::Params;
use relation::visibility::Oracle;
use relation::{BLOCK_SIZE, DnaType, PgXact, ReadOptions, TupleDesc, Unhinted};
use sequence::parcels::WHOLE;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// A heap relation of its own files: the table, or one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Leaf {
    /// Path of its first file, as the system has it.
    pub path: Vec<u8>,
    /// Digest of size, times and inode of its files when the leader opened them. `None`: a server runs beside us and may write to them
    /// (hint bits), so they only must not become shorter.
    pub fingerprint: Option<u64>,
    /// Its blocks.
    pub blocks: u32,
    /// The column list.
    pub columns: String,
    /// The DNA column, counted from 0.
    pub column: u64,
    /// The TOAST relation.
    pub toast: Option<LeafToast>,
    /// It is no heap relation but a sequence file, whose records are the rows.
    pub sequence: Option<LeafSequence>,
}

/// A FASTA or FASTQ file as a leaf. Its blocks are runs of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LeafSequence {
    /// FASTQ, else FASTA.
    pub fastq: bool,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of a block; the last one may have fewer.
    pub block_bytes: u64,
}

/// The TOAST relation of a leaf.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LeafToast {
    /// Path of its first file.
    pub path: Vec<u8>,
    /// Where in the segment's TOAST chunk the bytes of its index begin.
    pub index_offset: u64,
    /// How many they are.
    pub index_bytes: u64,
}

/// Where it is written whether transactions committed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Transactions {
    /// The data directory with `pg_xact`, `pg_subtrans` and `pg_multixact` in it.
    pub data_directory: Vec<u8>,
    /// The snapshot that rows are judged by.
    pub snapshot: Snapshot,
}

/// Which transactions count as committed, among those that the logs say are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Snapshot {
    /// All of them, and there are none from `next_xid` on: the server was shut down. One from there on leaves its tuple undecided.
    ShutDown {
        /// The transaction that would have come next.
        next_xid: u32,
        /// The checksum of its `pg_control`: a server that was started meanwhile may have changed what is committed.
        control: u32,
    },
    /// All of them; one that the logs do not reach counts as still in progress. For the files of a server that runs or crashed.
    Open {
        /// The transaction that came next at the last checkpoint.
        next_xid: u32,
    },
}

/// How a stream is cut into parcels, see [`crate::feed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stream {
    /// The most parcels.
    pub parcels: u32,
    /// Bytes of a parcel; those far on are larger, so that the parcels suffice for any text.
    pub parcel_bytes: u64,
    /// Parcels that may wait for workers.
    pub window: u32,
    /// Bytes of the longest record, or of all records that are one row: they are a parcel, which memory must hold in several places at once.
    pub longest: u64,
}

/// Parcels of the first size.
const FIRST_PARCELS: usize = 1024;
/// Parcels of each size behind them, which is always double the one before.
const NEXT_PARCELS: usize = 256;

impl Stream {
    /// Bytes after which parcel `parcel`, not counting one for each file before its own, ends with the record at hand.
    pub fn parcel_size(&self, parcel: usize) -> usize {
        let doublings = parcel.checked_sub(FIRST_PARCELS).map_or(0, |behind| behind / NEXT_PARCELS + 1);
        let size = self.parcel_bytes.checked_mul(1 << doublings.min(40));
        size.map_or(WHOLE, |size| (size as usize).min(WHOLE))
    }
}

/// What is to be counted, in which relations, how.
///
/// The leaves make up one relation whose blocks are numbered through, see [`crate::source`]. They have the same DNA type.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Job {
    /// The heap relations, in the order their blocks are numbered.
    pub leaves: Vec<Leaf>,
    /// Blocks of a full segment file.
    pub segment_blocks: u32,
    /// Count these blocks alone, from the first to before the second, of all that the leaves have.
    pub range: Option<(u64, u64)>,
    /// Who knows transactions; `None`: there are only the hint bits.
    pub transactions: Option<Transactions>,
    /// A server runs beside us and may write to the files: where its log was when the rows were locked. See [`crate::steady`].
    pub lock_lsn: Option<u64>,
    /// True when a base has 4 bits.
    pub dna4: bool,
    /// k.
    pub k: u32,
    /// occur_bitlen.
    pub occur_bitlen: u32,
    /// The leaves are not read in place: a feeder makes one stream of them.
    pub stream: Option<Stream>,
    /// A k-mer and its reverse complement count as one.
    pub canonical: bool,
    /// Every occurrence of a k-mer counts, not every row that has it.
    pub occurrences: bool,
    /// All records of a sequence file are one row.
    pub row_per_file: bool,
    /// True when keys are counted directly, see [`kmer::direct`].
    pub direct: bool,
    /// Units of sorted keys are written as their sums, and this is the room for windows on the way there: see [`kmer::keys::WINDOWS_BITS`].
    pub windows_bits: Option<u32>,
    /// There are 2^stripe_bits stripes.
    pub stripe_bits: u32,
    /// 2^part_bits units share a block, each with a portion of its rows: for few blocks with long rows.
    pub part_bits: u32,
    /// Windows of a row that is dealt out which a unit takes at a time: a multiple of 4.
    pub stretch: u64,
    /// 2^pass_bits runs share the stripes, since not all of them fit the memory.
    pub pass_bits: u32,
    /// Which of these runs this is.
    pub pass: u32,
    /// It is hoped that the first of them suffices; if not, all is counted in one run.
    pub first_look: bool,
    /// Draws the hashes of this run.
    pub seed: u64,
    /// Pages must carry the right checksum.
    pub verify_checksums: bool,
    /// 0 error, 1 visible, 2 skip: what to do with rows whose hint bits leave their state open.
    pub unhinted: u8,
    /// Damaged pages and tuples are skipped and reported.
    pub skip_damaged: bool,
    /// Read the relation through a mapping instead of pread.
    pub mapped: bool,
    /// A unit or stripe on which so many owners died is given up.
    pub max_attempts: u8,
    /// Bytes of bases after which a unit stores a batch.
    pub batch_bytes: u64,
}

/// Which build this is: the version, the layout of the job with the order in which stripes are drained, and how k-mers are dealt out. Leader and workers must agree.
pub fn build_id() -> u64 {
    let text = concat!(env!("CARGO_PKG_VERSION"), " job 23 dealing ");
    text.bytes()
        .chain([RULE])
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

impl Leaf {
    /// Bytes of its files, those of its TOAST relation aside.
    pub fn bytes(&self) -> u64 {
        self.sequence.map_or(u64::from(self.blocks) * BLOCK_SIZE as u64, |sequence| sequence.bytes)
    }

    /// The columns.
    ///
    /// # Errors
    /// What the column list's parser says.
    pub fn tuple_desc(&self) -> Result<TupleDesc, WorkError> {
        Ok(TupleDesc::parse(&self.columns)?)
    }
}

impl Transactions {
    /// Opens the logs.
    ///
    /// # Errors
    /// When they are not there.
    pub fn open(&self) -> Result<PgXact, WorkError> {
        let logs = PgXact::open(path_of(&self.data_directory))?;
        Ok(match self.snapshot {
            Snapshot::ShutDown { next_xid, .. } => logs.until(next_xid),
            Snapshot::Open { next_xid } => logs.open_from(next_xid),
        })
    }
}

/// A path as the job carries it.
pub fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// No more than 2^this units share a block.
const MAX_PART_BITS: u32 = 4;
/// No more windows of a long row are taken at a time.
const MAX_STRETCH: u64 = 1 << 32;

impl Job {
    /// Sorted keys are written as their sums, see [`kmer::keys`].
    pub const fn is_summed(&self) -> bool {
        self.windows_bits.is_some()
    }

    /// Whether units that share a block can each take its portion, see `portion.rs`. Keys that are not super-k-mers are known by their row in one unit only.
    pub(crate) const fn is_dealt_well(&self) -> bool {
        let well = self.stretch > 0 && self.stretch.is_multiple_of(4) && self.stretch <= MAX_STRETCH;
        self.part_bits == 0 || self.part_bits <= MAX_PART_BITS && well && !self.direct
    }

    /// A worker commits the units that it scans several at a time, as one result: their sums take as much room as those of one.
    pub const fn bundles_units(&self) -> bool {
        self.is_summed() && self.stream.is_none() && self.part_bits == 0
    }

    /// The job as bytes.
    ///
    /// # Errors
    /// [`WorkError::Job`] with what the encoder says.
    pub fn encode(&self) -> Result<Vec<u8>, WorkError> {
        bincode::encode_to_vec(self, bincode::config::standard()).map_err(|e| WorkError::Job(e.to_string()))
    }

    /// The job from its bytes. Bytes behind it are ignored: chunks are padded.
    ///
    /// # Errors
    /// [`WorkError::Job`] with what the decoder says.
    pub fn decode(bytes: &[u8]) -> Result<Self, WorkError> {
        let config = bincode::config::standard().with_limit::<{ 1 << 28 }>();
        let (job, _) =
            bincode::decode_from_slice(bytes, config).map_err(|e| WorkError::Job(e.to_string()))?;
        Ok(job)
    }

    /// Blocks of all leaves, or parcels of a stream.
    pub fn all_blocks(&self) -> u64 {
        if let Some(stream) = self.stream {
            return stream.parcels.into();
        }
        self.leaves.iter().map(|leaf| u64::from(leaf.blocks)).sum()
    }

    /// Blocks that are counted: all, or those of the range.
    pub fn total_blocks(&self) -> u64 {
        self.range.map_or_else(|| self.all_blocks(), |(from, to)| to.saturating_sub(from))
    }

    /// The first of them.
    pub fn first_block(&self) -> u64 {
        self.range.map_or(0, |(from, _)| from)
    }

    /// Bytes of all leaves, TOAST relations aside.
    pub fn total_bytes(&self) -> u64 {
        self.leaves.iter().map(Leaf::bytes).sum()
    }

    /// Bytes of text in sequence files.
    pub fn text_bytes(&self) -> u64 {
        self.leaves.iter().filter_map(|leaf| Some(leaf.sequence?.bytes)).sum()
    }

    /// Opens the transaction logs, if there are any.
    ///
    /// # Errors
    /// When they are not there.
    pub fn oracle(&self) -> Result<Option<Arc<dyn Oracle>>, WorkError> {
        let open = |logs: &Transactions| Ok(Arc::new(logs.open()?) as Arc<dyn Oracle>);
        self.transactions.as_ref().map(open).transpose()
    }

    /// k and occur_bitlen.
    ///
    /// # Errors
    /// [`WorkError::Job`] when they are out of range.
    pub fn params(&self) -> Result<Params, WorkError> {
        let params = Params::new(self.k, self.occur_bitlen).map_err(|e| WorkError::Job(e.to_string()))?;
        Ok(params.with_canonical(self.canonical))
    }

    /// How the column's bits are to be taken.
    pub fn dna_type(&self) -> DnaType {
        if self.dna4 { DnaType::Dna4 } else { DnaType::Dna2 }
    }

    /// How pages are to be read.
    pub fn read_options(&self) -> ReadOptions {
        let unhinted = match self.unhinted {
            1 => Unhinted::Visible,
            2 => Unhinted::Skip,
            _ => Unhinted::Error,
        };
        ReadOptions { verify_checksums: self.verify_checksums, unhinted }
    }

    /// How `unhinted` is written in a job.
    pub const fn unhinted_number(unhinted: Unhinted) -> u8 {
        match unhinted {
            Unhinted::Error => 0,
            Unhinted::Visible => 1,
            Unhinted::Skip => 2,
        }
    }

    /// Blocks as they are claimed: where units share a block, it counts once for each of them.
    pub fn blocks_to_claim(&self) -> u64 {
        self.total_blocks() << self.part_bits
    }

    /// Whether standard input is read, which is there once.
    pub fn reads_stdin(&self) -> bool {
        self.stream.is_some() && self.leaves.iter().any(|leaf| leaf.path == STDIN)
    }

    /// Stripes.
    pub fn stripes(&self) -> usize {
        1 << self.stripe_bits
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A job of leaves with these names and numbers of blocks.
    pub(crate) fn job(leaves: &[(&str, u32)]) -> Job {
        let leaf = |&(path, blocks): &(&str, u32)| Leaf {
            path: path.into(),
            fingerprint: Some(7),
            blocks,
            columns: "id int4, seq dna2".into(),
            column: 1,
            toast: None,
            sequence: None,
        };
        Job {
            leaves: leaves.iter().map(leaf).collect(),
            segment_blocks: 131_072,
            range: None,
            transactions: None,
            lock_lsn: None,
            dna4: false,
            k: 31,
            occur_bitlen: 0,
            stream: None,
            canonical: false,
            occurrences: false,
            row_per_file: false,
            direct: false,
            windows_bits: None,
            stripe_bits: 10,
            part_bits: 1,
            stretch: 4,
            pass_bits: 2,
            pass: 3,
            first_look: false,
            seed: u64::MAX,
            verify_checksums: true,
            unhinted: 2,
            skip_damaged: true,
            mapped: false,
            max_attempts: 3,
            batch_bytes: 4 << 20,
        }
    }

    #[test]
    fn a_job_survives_its_encoding() {
        let mut job = job(&[("/data/a", 1), ("/data/b", u32::MAX), ("/data/c", u32::MAX)]);
        job.leaves[0].path.push(0xff);
        job.leaves[1].toast = Some(LeafToast { path: b"t".to_vec(), index_offset: 1 << 40, index_bytes: 9 });
        let (data_directory, snapshot) = (b"/data".to_vec(), Snapshot::Open { next_xid: 700 });
        job.transactions = Some(Transactions { data_directory, snapshot });
        let mut bytes = job.encode().expect("encodes");
        bytes.extend([0; 40]);
        assert_eq!(Job::decode(&bytes).expect("decodes"), job);
        assert_eq!(job.total_blocks(), (1 << 33) - 1);
        assert!(matches!(Job::decode(&bytes[..9]), Err(WorkError::Job(_))));
    }
}
