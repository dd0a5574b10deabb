//! The three ways in which k-mers are counted, and which one a job asks for.

use crate::error::WorkError;
use crate::job::Job;
use kmer::direct::{self, DirectCounter};
use kmer::keys::{self, KeySorter};
use kmer::minimizer::Dealer;
use kmer::params::Params;
use kmer::superkmer::Splitter;

/// How a job's k-mers get from the scan to the drain.
pub(crate) enum Method {
    /// As super-k-mers, sorted by the minimizer's stripe.
    SuperKmers(Box<Splitter>),
    /// As keys, sorted by their range.
    Keys(Box<KeySorter>),
    /// As sums of each unit.
    Direct(Box<DirectCounter>),
}

/// Whether the job's numbers go with the way that it asks for.
pub(crate) fn suits(job: &Job, params: Params) -> bool {
    let by_keys = by_keys(job, params);
    let least = if by_keys { keys::least_stripe_bits(params) } else { 0 };
    let sums = !job.is_summed() || job.direct && by_keys;
    let direct = (by_keys || params.key_bits() <= direct::MAX_KEY_BITS)
        && (least..=params.key_bits()).contains(&job.stripe_bits);
    sums && (direct || !job.direct)
}

/// Whether a job that counts directly sorts keys.
fn by_keys(job: &Job, params: Params) -> bool {
    if job.is_summed() { keys::can_be_summed(params) } else { keys::suits(params) }
}

impl Method {
    /// The method of `job`.
    ///
    /// # Errors
    /// When the job's numbers do not go with it.
    pub(crate) fn new(job: &Job, params: Params) -> Result<Self, WorkError> {
        let refused = || WorkError::Job("keys are too long to be counted directly".into());
        if !job.direct {
            let splitter = Splitter::new(Dealer::new(params, job.stripe_bits, job.seed), job.stripe_bits);
            return Ok(Self::SuperKmers(Box::new(splitter.of_occurrences(job.occurrences))));
        }
        if by_keys(job, params) {
            let sorter = KeySorter::new(params, job.stripe_bits, job.occurrences, job.windows_bits);
            return Ok(Self::Keys(Box::new(sorter.ok_or_else(refused)?)));
        }
        let counter = DirectCounter::new(params, job.occurrences);
        Ok(Self::Direct(Box::new(counter.ok_or_else(refused)?)))
    }
}
