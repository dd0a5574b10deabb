//! Writes the file, stripe after stripe as they are drained, while the run's segment is there: so its bytes are on their way to the disk before the last
//! stripe is done, and little is left to do then.
//!
//! Stripes are written in the drain's order, which follows from the scan alone: so the same run makes the same bytes, whoever dies meanwhile, and a
//! leader that resumes begins the file anew. What is no file, a pipe say, gets everything at the end: until then the run may fail.

use super::{HEAD, MAGIC};
use crate::failure::Failure;
use crate::format::facts::Facts;
use crate::output::Output;
use crate::plan::Plan;
use crate::totals::image_bytes;
use kmer_worker::shared::Shared;
use kmer_worker::spool::digest;
use shm_layout::words::Task;

/// A file that is being written.
pub struct Writer {
    output: Output,
    head: Vec<u8>,
    /// Where the next image begins.
    at: u64,
    /// For each stripe, place, length and digest of its image.
    directory: Vec<[u64; 3]>,
    /// The stripes that have images, and how many of them are written.
    order: Vec<u32>,
    written: usize,
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins a file.
    pub fn new(output: Output) -> Self {
        let (head, directory, order, bytes) = Default::default();
        Self { output, head, at: 0, directory, order, written: 0, bytes }
    }

    /// The drain of a pass begins, in this order.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn begin(&mut self, plan: &Plan, order: &[u32]) -> Result<(), Failure> {
        if self.head.is_empty() {
            self.head = head(plan);
            self.directory = vec![[HEAD as u64, 0, 0]; plan.job.stripes()];
        }
        (self.written, self.order) = (0, order.to_vec());
        Ok(())
    }

    /// Forgets all that was written: the run begins anew.
    ///
    /// # Errors
    /// When it was written to something else than a file.
    pub fn restart(&mut self) -> Result<(), Failure> {
        if self.at > 0 {
            self.output.restart()?;
        }
        (self.head, self.at, self.written) = (Vec::new(), 0, 0);
        self.order.clear();
        Ok(())
    }

    /// True while stripes may be written as they come.
    pub fn follows(&self) -> bool {
        self.output.is_file() && self.written < self.order.len()
    }

    /// Writes the next stripe, if it is drained; false if not.
    ///
    /// # Errors
    /// A damaged segment, a full disk.
    pub fn step(&mut self, shared: &Shared) -> Result<bool, Failure> {
        let Some(stripe) = self.order.get(self.written).map(|stripe| *stripe as usize) else {
            return Ok(false);
        };
        if !matches!(shared.stripes.look(stripe)?, Task::Done { .. }) {
            return Ok(false);
        }
        image_bytes(shared, stripe, &mut self.bytes)?;
        self.open()?;
        let length = self.bytes.len() as u64;
        let sum = if length == 0 { 0 } else { digest(0, stripe, &self.bytes) };
        self.directory[stripe] = [self.at, length, sum];
        self.output.write(&self.bytes)?;
        self.output.send_on(self.at, length);
        (self.at, self.written) = (self.at + length, self.written + 1);
        Ok(true)
    }

    /// Writes the head, if nothing was written yet.
    fn open(&mut self) -> Result<(), Failure> {
        if self.at == 0 {
            self.output.write(&self.head)?;
            self.at = HEAD as u64;
        }
        Ok(())
    }

    /// Writes what is left of a pass, all of whose stripes are drained.
    ///
    /// # Errors
    /// As [`Writer::step`]; a stripe that is not drained.
    pub fn complete(&mut self, shared: &Shared) -> Result<(), Failure> {
        while self.step(shared)? {}
        if self.written < self.order.len() {
            let text = format!("dense file: expected {} stripes, found {}", self.order.len(), self.written);
            return Err(Failure::error(text));
        }
        Ok(())
    }

    /// Closes the file behind the last pass, and gives the output back, which is to be finished.
    ///
    /// # Errors
    /// As [`Writer::complete`].
    pub fn finish(mut self, shared: &Shared, facts: &Facts) -> Result<Output, Failure> {
        self.complete(shared)?;
        self.open()?;
        let mut end: Vec<u8> = self.directory.iter().flatten().flat_map(|n| n.to_le_bytes()).collect();
        let facts = facts.report_head();
        end.extend(facts.as_bytes());
        self.output.write(&end)?;
        let sum = digest(1, 0, &[self.head, end].concat());
        let mut foot = Vec::new();
        [self.at, facts.len() as u64, sum].iter().for_each(|n| foot.extend(n.to_le_bytes()));
        foot.extend(MAGIC);
        self.output.write(&foot)?;
        Ok(self.output)
    }
}

fn head(plan: &Plan) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    let job = &plan.job;
    [job.k, job.occur_bitlen, job.stripe_bits, u32::from(job.direct) | u32::from(job.canonical) << 1]
        .iter()
        .for_each(|n| head.extend(n.to_le_bytes()));
    head.extend(job.seed.to_le_bytes());
    head
}
