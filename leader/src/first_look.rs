//! A first look: where hardly any stripe can hold a k-mer over the threshold, counting the rows of each stripe is nearly all there is to do.
//!
//! A k-mer occurs in no more rows than its stripe has. With the default threshold, half of all rows, and reads of which each touches a few stripes of
//! thousands, no stripe comes near it, and writing records that nobody will drain is most of the work. So the first run keeps the records of one
//! stripe in 2^[`BITS`] only, as a pass would ([`crate::passes`]), and counts the rows of all. If no other stripe has enough of them, that is
//! the result; else everything is counted in one run more.
//!
//! A sample decides whether the first look is worth it. It may be wrong: then time is lost, and nothing else.

use crate::plan::Plan;
use kmer::bases::Bases;
use kmer::minimizer::Dealer;
use kmer::superkmer::Splitter;
use kmer_worker::job::{Job, path_of};
use relation::{
    DnaType, PageBuffer, PageCounts, PageReader, ReadOptions, RelationFile, RowSink, Unhinted, Value,
};
use sequence::file::Text;
use sequence::{Format, Part, RecordSink, SequenceFile};

/// One stripe in 2^this is written.
pub const BITS: u32 = 4;
/// Blocks, or as many bytes, that are looked at.
const LOOKS: u64 = 64;
/// Bytes of a sequence file that are looked at in one place.
const LOOK_BYTES: u64 = 16 << 10;
/// Rows below which a sample says nothing.
const LEAST_ROWS: u64 = 200;
/// So many times a stripe's share of the sampled rows must be below the threshold's.
const MARGIN: f64 = 3.0;

/// Whether a first look is likely to be the only one.
pub fn is_promising(plan: &Plan) -> bool {
    let (job, rule) = (&plan.job, &plan.rule);
    let one_pass = job.pass_bits == 0 && plan.debug.pass_bits.is_none();
    let all = plan.all || plan.dense || plan.select.histogram;
    let stays = plan.resumable || plan.pins || plan.debug.stripe_bits.is_some();
    if !one_pass || all || stays || job.direct || job.stream.is_some() || rule.nrow > 0 {
        return false;
    }
    if job.stripe_bits < BITS + 2 {
        return false;
    }
    highest_share(job).is_some_and(|share| share * MARGIN < rule.rate)
}

/// Rows of a sample, as runs of bases.
struct Sample {
    bases: Bases,
    dna: DnaType,
    rows: u32,
}

impl RowSink for Sample {
    fn row(&mut self, _item: u16, value: Value<'_>) -> Result<(), relation::Error> {
        let Value::Bits { bits, bytes } = value else { return Ok(()) };
        self.rows += 1;
        match self.dna {
            DnaType::Dna2 => self.bases.push_dna2(self.rows, u64::from(bits) / 2, bytes),
            DnaType::Dna4 => self.bases.push_dna4(self.rows, u64::from(bits) / 4, bytes),
        }
        Ok(())
    }

    fn damaged(&mut self, _error: relation::Error) -> Result<(), relation::Error> {
        // A row that is not here, or damage that the run will find.
        Ok(())
    }
}

impl RecordSink for Sample {
    fn part(&mut self, part: &Part<'_>) -> sequence::Result<()> {
        self.rows += u32::from(part.first);
        let letters: Vec<u8> =
            part.letters.iter().copied().filter(|letter| !matches!(letter, b'\n' | b'\r')).collect();
        let _ = self.bases.push_letters(self.rows, &letters, true);
        Ok(())
    }

    fn damaged(&mut self, _error: sequence::Error) -> sequence::Result<()> {
        Ok(())
    }
}

/// The largest share of the sampled rows that a stripe has; `None` when there is no sample.
fn highest_share(job: &Job) -> Option<f64> {
    let params = job.params().ok()?;
    let mut sample = Sample { bases: Bases::new(params), dna: job.dna_type(), rows: 0 };
    let leaf = job.leaves.iter().max_by_key(|leaf| leaf.bytes())?;
    let path = path_of(&leaf.path);
    if let Some(sequence) = leaf.sequence {
        let file = SequenceFile::open(path).ok()?;
        let format = if sequence.fastq { Format::Fastq } else { Format::Fasta };
        if job.row_per_file || job.part_bits > 0 {
            return None;
        }
        for look in 0..LOOKS {
            let from = look * file.len() / LOOKS;
            sequence::read(&file, format, (from, from + LOOK_BYTES), &mut sample).ok()?;
        }
    } else {
        let file = RelationFile::open_with_segment_size(path, job.segment_blocks).ok()?;
        let options = ReadOptions { verify_checksums: false, unhinted: Unhinted::Visible };
        let mut reader =
            PageReader::new(&leaf.tuple_desc().ok()?, leaf.column as usize, options, path, None).ok()?;
        let (mut page, mut counts) = (PageBuffer::new(1), PageCounts::default());
        let looks = LOOKS.min(leaf.blocks.into());
        for look in 0..looks {
            let block = (look * u64::from(leaf.blocks) / looks) as u32;
            file.read_blocks(block, page.blocks_mut(1)).ok()?;
            let _ = reader.read_page(page.blocks(1), block, &mut counts, &mut sample);
        }
    }
    let dealer = Dealer::new(params, job.stripe_bits, job.seed);
    let mut splitter = Splitter::new(dealer, job.stripe_bits);
    let sections = splitter.split(&sample.bases, &mut Vec::new(), 0).iter();
    let most = sections.map(|section| section.rows).max()?;
    (u64::from(sample.rows) >= LEAST_ROWS).then(|| f64::from(most) / f64::from(sample.rows))
}
