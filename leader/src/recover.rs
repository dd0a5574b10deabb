//! Recovers from the dead: takes their claims back and frees the chunks that only they knew.
//!
//! | step | by | what a death of the recoverer behind it leaves |
//! |---|---|---|
//! | bundles of the dead are given up: what is in them is free. Units and parcels, then stripes CLAIMED by the dead go back to FREE, or to POISON | compare-and-swap from the exact word | some are back, the others still name the dead: the next one finds them |
//! | chunks of the dead that no DONE word reaches go back to FREE | the same | as above |
//! | the slot becomes DEAD | the same | the slot still names a generation that has nothing: recovering it again changes nothing |
//!
//! So everything here may be done again by the next leader (I5); there is one at a time, which holds the segment's lock.
//! Claims may be taken from a worker that is only *believed* dead, since its commit will then fail; chunks are freed of the confirmed dead only.

use crate::failure::Failure;
use kmer_worker::shared::Shared;
use shm_layout::arena::{Chain, NOTHING};
use shm_layout::inject::{Point, at};
use shm_layout::planted;
use shm_layout::state::Phase;
use shm_layout::takeover::SoleUser;
use shm_layout::words::{Owner, SlotState};

/// Takes back every task that `dead` had claimed, and counts an attempt on it. Suspicion is enough.
///
/// # Errors
/// When the segment is damaged.
pub fn take_claims(shared: &Shared, dead: Owner) -> Result<(), Failure> {
    let limit = shared.job.max_attempts;
    let limit = if planted::is("recovery-gives-up") { 1 } else { limit };
    if !planted::is("units-not-taken-back") {
        shared.units.recover(dead, limit)?;
    }
    shared.parcels.recover(dead, limit)?;
    at(Point::RecoverUnits)?;
    if !planted::is("stripes-not-taken-back") {
        shared.stripes.recover(dead, limit)?;
    }
    Ok(at(Point::RecoverStripes)?)
}

/// Recovers from `dead`, whose death is confirmed.
///
/// # Errors
/// When the segment is damaged.
pub fn recover(shared: &Shared, dead: Owner) -> Result<(), Failure> {
    at(Point::RecoverBegin)?;
    take_claims(shared, dead)?;
    shared.arena.sweep(dead, &reachable(shared)?)?;
    shared.state.count_recovery()?;
    at(Point::RecoverSwept)?;
    shared.slots.set_ended(dead, SlotState::Dead)?;
    Ok(at(Point::RecoverDead)?)
}

/// Recovers from everybody who ever was at work, all of whom are proved dead. They died with their leader, so no attempt is counted, and what
/// had been given up is tried again.
///
/// # Errors
/// When the segment is damaged.
pub fn recover_all(shared: &Shared, proof: &SoleUser) -> Result<(), Failure> {
    shared.state.renew_mutex(proof)?;
    let mut owners = shared.units.owners()?;
    owners.extend(shared.parcels.owners()?);
    owners.extend(shared.stripes.owners()?);
    owners.extend(shared.arena.owners()?);
    let reachable = reachable(shared)?;
    for dead in owners {
        at(Point::ResumeOwner)?;
        shared.units.take_back(dead)?;
        shared.parcels.take_back(dead)?;
        shared.stripes.take_back(dead)?;
        shared.arena.sweep(dead, &reachable)?;
    }
    for slot in 0..shared.slots.len() as u16 {
        let generation = shared.slots.look(slot)?.generation;
        shared.slots.set_ended(Owner { slot, generation }, SlotState::Dead)?;
    }
    shared.state.reopen(proof)?;
    // Once the drain is open, what was left out stays out.
    if shared.state.phase()? == Phase::Scan {
        shared.units.pardon(proof)?;
        shared.parcels.pardon(proof)?;
    }
    shared.stripes.pardon(proof)?;
    Ok(at(Point::ResumeReady)?)
}

/// Every chain that a DONE word names. A feeder that lives may be freeing a parcel meanwhile: then its word leads elsewhere, and the chain to nothing.
fn reachable(shared: &Shared) -> Result<Vec<Chain>, Failure> {
    let mut chains = Vec::new();
    for tasks in [&shared.units, &shared.stripes, &shared.parcels] {
        for (number, head) in tasks.results()? {
            if head == NOTHING {
                continue;
            }
            at(Point::RecoverChain)?;
            match shared.arena.open(head) {
                Ok(chain) => chains.push(chain),
                Err(_) if !tasks.results()?.contains(&(number, head)) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(chains)
}
