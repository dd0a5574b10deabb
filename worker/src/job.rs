//! The job: everything that a worker must know and that does not change during a run.
//!
//! The leader encodes it and puts it under a key of the table of contents; a worker decodes it. The encoding is bincode's, kept behind the two
//! functions [`Job::encode`] and [`Job::decode`], which are the only users of that crate; it is fed only bytes that this very build wrote
//! (the segment's header carries [`build_id`] and attaching checks it).

use crate::error::WorkError;
use bincode::{Decode, Encode};
use kmer::params::Params;
use relation::{DnaType, ReadOptions, TupleDesc, Unhinted};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is to be counted, in which file, how.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Job {
    /// Path of the relation's first file, as the system has it.
    pub relation: Vec<u8>,
    /// Digest of size, times and inode of its files when the leader opened them.
    pub fingerprint: u64,
    /// Blocks of the relation.
    pub total_blocks: u64,
    /// The column list.
    pub columns: String,
    /// The DNA column, counted from 0.
    pub column: u64,
    /// True when a base has 4 bits.
    pub dna4: bool,
    /// Path of the TOAST relation's first file.
    pub toast: Option<Vec<u8>>,
    /// k.
    pub k: u32,
    /// occur_bitlen.
    pub occur_bitlen: u32,
    /// True when keys are counted directly, see [`kmer::direct`].
    pub direct: bool,
    /// There are 2^stripe_bits stripes.
    pub stripe_bits: u32,
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
}

/// Which build this is: the version and the layout of the job. Leader and workers must agree.
pub fn build_id() -> u64 {
    let text = concat!(env!("CARGO_PKG_VERSION"), " job 1");
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

impl Job {
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
        let config = bincode::config::standard().with_limit::<{ 1 << 20 }>();
        let (job, _) =
            bincode::decode_from_slice(bytes, config).map_err(|e| WorkError::Job(e.to_string()))?;
        Ok(job)
    }

    /// The relation's path.
    pub fn relation_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.relation))
    }

    /// The TOAST relation's path.
    pub fn toast_path(&self) -> Option<&Path> {
        self.toast.as_deref().map(|path| Path::new(OsStr::from_bytes(path)))
    }

    /// k and occur_bitlen.
    ///
    /// # Errors
    /// [`WorkError::Job`] when they are out of range.
    pub fn params(&self) -> Result<Params, WorkError> {
        Params::new(self.k, self.occur_bitlen).map_err(|e| WorkError::Job(e.to_string()))
    }

    /// The columns.
    ///
    /// # Errors
    /// What the column list's parser says.
    pub fn tuple_desc(&self) -> Result<TupleDesc, WorkError> {
        Ok(TupleDesc::parse(&self.columns)?)
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

    /// Stripes.
    pub fn stripes(&self) -> usize {
        1 << self.stripe_bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_survives_its_encoding() {
        let job = Job {
            relation: b"/data/\xffodd".to_vec(),
            fingerprint: 7,
            total_blocks: 1 << 40,
            columns: "id int4, seq dna2".into(),
            column: 1,
            dna4: false,
            toast: None,
            k: 31,
            occur_bitlen: 0,
            direct: false,
            stripe_bits: 10,
            seed: u64::MAX,
            verify_checksums: true,
            unhinted: 2,
            skip_damaged: true,
            mapped: false,
            max_attempts: 3,
        };
        let mut bytes = job.encode().expect("encodes");
        bytes.extend([0; 40]);
        assert_eq!(Job::decode(&bytes).expect("decodes"), job);
        assert!(matches!(Job::decode(&bytes[..9]), Err(WorkError::Job(_))));
    }
}
