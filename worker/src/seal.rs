//! A digest over everything in a segment that says what is asked for, and does not change once the segment is published.
//!
//! | part | what another value would do |
//! |---|---|
//! | sizes in the header, table of contents | other places: found by their checks, or not |
//! | the job, the TOAST indexes | another question, other hashes, other rows |
//! | the command line | another question of a leader that resumes |
//! | blocks, blocks of a unit, units of the ramp, workers asked for | units left out |
//!
//! The creator writes it before it publishes; everybody who attaches compares. Words that change during a run are not in it: they are checked
//! where they are used, and what they lead to has digests of its own ([`crate::spool`], [`crate::drain`], [`crate::shared::DrainOrder`]). It is
//! no proof against somebody who means harm, who could write it as well: whoever uses a number from the segment checks it nevertheless (I6).

use crate::error::WorkError;
use crate::shared::{KEY_COMMAND, KEY_JOB, KEY_SEAL, KEY_STATE, KEY_TOAST};
use crate::spool::digest;
use shm_layout::segment::Segment;
use shm_layout::state::SharedState;

/// Bytes of the seal.
pub const SEAL_BYTES: usize = 8;

/// Computes the seal of what is in the segment now.
///
/// # Errors
/// When the table of contents is damaged or leaves a part out.
pub fn compute(segment: &Segment) -> Result<u64, WorkError> {
    let toc = segment.toc()?;
    let mut bytes = segment.constants()?;
    bytes.extend(toc.used()?);
    bytes.extend(SharedState::constants(segment, toc.lookup(KEY_STATE)?)?);
    let mut seal = digest(0, 0, &bytes);
    for key in [KEY_JOB, KEY_COMMAND, KEY_TOAST] {
        // A part that is not there is not in the table of contents either.
        let Ok(area) = toc.lookup(key) else { continue };
        bytes.clear();
        segment.map().read_to_vec(area.offset, area.len, &mut bytes)?;
        seal = digest(seal as usize, key as usize, &bytes);
    }
    Ok(seal)
}

/// Writes the seal: the creator's last step before it publishes.
///
/// # Errors
/// As [`compute`].
pub fn write(segment: &Segment) -> Result<(), WorkError> {
    let area = segment.toc()?.lookup(KEY_SEAL)?;
    Ok(segment.map().write(area.offset, &compute(segment)?.to_le_bytes())?)
}

/// Compares the seal with what is in the segment.
///
/// # Errors
/// [`shm_layout::Error::Damaged`] when they differ.
pub fn check(segment: &Segment) -> Result<(), WorkError> {
    let area = segment.toc()?.lookup(KEY_SEAL)?;
    let mut bytes = [0; SEAL_BYTES];
    segment.map().read(area.offset, &mut bytes)?;
    let (expected, found) = (u64::from_le_bytes(bytes), compute(segment)?);
    if expected == found {
        return Ok(());
    }
    let (expected, found) = (format!("{expected:016x}"), format!("{found:016x}"));
    let (name, what) = (segment.name().into(), "digest of what is asked for");
    Err(shm_layout::Error::Damaged { name, what, expected, found }.into())
}
