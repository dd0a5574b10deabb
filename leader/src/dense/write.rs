//! Writes the file while the run's segment is still there.

use super::{HEAD, MAGIC};
use crate::failure::Failure;
use crate::format::facts::Facts;
use crate::lead::Outcome;
use crate::output::Output;
use crate::plan::Plan;
use crate::totals::image_bytes;
use kmer_worker::spool::digest;

/// Writes every kept k-mer of `outcome`.
///
/// # Errors
/// A damaged segment, a full disk; more than one pass.
pub fn write(plan: &Plan, outcome: &Outcome, facts: &Facts, output: &mut Output) -> Result<(), Failure> {
    let head = head(plan);
    output.write(&head)?;
    let (mut at, mut directory, mut bytes) = (HEAD as u64, Vec::new(), Vec::new());
    for stripe in 0..outcome.shared.stripes.len() {
        image_bytes(&outcome.shared, stripe, &mut bytes)?;
        let sum = if bytes.is_empty() { 0 } else { digest(0, stripe, &bytes) };
        [at, bytes.len() as u64, sum].iter().for_each(|n| directory.extend(n.to_le_bytes()));
        output.write(&bytes)?;
        at += bytes.len() as u64;
    }
    let facts = facts.report_head();
    let length = facts.len() as u64;
    directory.extend(facts.as_bytes());
    output.write(&directory)?;
    let mut foot = Vec::new();
    [at, length, digest(1, 0, &[head, directory].concat())].iter().for_each(|n| foot.extend(n.to_le_bytes()));
    foot.extend(MAGIC);
    output.write(&foot)
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
