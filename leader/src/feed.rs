//! The feeder of a stream, as the leader sees it: a process of its own in the slot behind the workers', or, where there is none, the leader.
//!
//! | the feeder | then |
//! |---|---|
//! | has ended well | nothing: all parcels are done with |
//! | died, and may be replaced | another one makes the parcels that are missing: they depend on the input alone |
//! | died, and may not be replaced | the leader feeds, between two looks at its workers |
//! | was killed and does not die | the leader feeds, as above; the other's chunks stay its own until its death is seen |
//! | died over standard input, or does not die | the run ends: what it had read is gone |
//! | the same, but every parcel was made | nothing: workers need it no more |

use crate::failure::Failure;
use crate::lead::Leader;
use crate::watch::Watched;
use kmer_worker::feed::Feeder;
use shm_layout::state::Phase;
use shm_layout::words::{SlotState, Task};
use std::fmt::Display;

impl<'a> Leader<'a> {
    /// The process that feeds, if there is one.
    pub(crate) fn feeder(&self) -> Option<&Watched> {
        let slot = self.shared.feeder_slot()?;
        self.running.iter().find(|worker| worker.process.owner.slot == slot)
    }

    /// Whether all workers are gone that count: a feeder does not.
    pub(crate) fn are_all_lost(&self) -> bool {
        let feeder = self.shared.feeder_slot();
        self.running.iter().all(|worker| worker.is_lost() || Some(worker.process.owner.slot) == feeder)
    }

    /// Starts the feeder, if there is a stream and there can be one.
    pub(crate) fn launch_feeder(&mut self) -> Result<(), Failure> {
        let Some(slot) = self.shared.feeder_slot() else { return Ok(()) };
        if self.launcher.is_none() {
            return Ok(());
        }
        if let Some(why) = self.launch(slot, false)? {
            if self.shared.job.reads_stdin() {
                return Err(Failure::error(format!(
                    "could not start the worker that reads standard input: {why}"
                )));
            }
            self.console
                .tell(&format!("could not start a worker to unpack the input: {why}; the leader does it"));
        }
        Ok(())
    }

    /// Whether the leader must feed in this phase.
    pub(crate) fn must_feed(&self, phase: Phase) -> Result<bool, Failure> {
        if phase != Phase::Scan || self.shared.job.stream.is_none() || self.feeder_done {
            return Ok(false);
        }
        if !self.feeder().is_none_or(Watched::is_lost) {
            return Ok(false);
        }
        // One that has parcels of its own has still to free them.
        Ok(self.own_feeder.is_some() || !self.is_fed()?)
    }

    /// Whether every parcel was made, or the scan is over: then nobody needs a feeder.
    fn is_fed(&self) -> Result<bool, Failure> {
        Ok(self.shared.state.phase()? != Phase::Scan || self.shared.parcels.all_settled()?)
    }

    /// The leader's own feeder, in the feeder's slot. Where somebody who does not die has that, it gets a generation of the leader's slot, which stays
    /// free for the leader's other work: all that is asked of a feeder is that no other has its chunks.
    pub(crate) fn own_feeder(&mut self) -> Result<Feeder<'a>, Failure> {
        if let Some(feeder) = self.own_feeder.take() {
            return Ok(feeder);
        }
        if self.shared.job.reads_stdin() {
            return Err(stdin_is_gone("killed, and does not die"));
        }
        self.check_parcels()?;
        let slots = &self.shared.slots;
        let own = self
            .shared
            .feeder_slot()
            .ok_or_else(|| Failure::error("feeder: expected a stream, found none"))?;
        let (slot, state) = match self.feeder() {
            None => (own, SlotState::Running),
            Some(_) => ((slots.len() - 1) as u16, SlotState::Done),
        };
        let owner = slots.start(slot)?;
        slots.change(owner, SlotState::Starting, state)?;
        Ok(Feeder::new(self.shared, owner, None)?)
    }

    /// Makes a parcel, if it is time for one; false if not.
    pub(crate) fn feed(&mut self) -> Result<bool, Failure> {
        let mut feeder = self.own_feeder()?;
        let fed = feeder.step()?;
        self.own_feeder = Some(feeder);
        Ok(fed)
    }

    /// Whether another feeder is needed after one has died, and can be.
    pub(crate) fn after_feeder(&mut self, why: impl Display) -> Result<(), Failure> {
        self.check_parcels()?;
        if self.is_fed()? {
            self.feeder_done = true;
            return Ok(());
        }
        if self.shared.job.reads_stdin() { Err(stdin_is_gone(why)) } else { Ok(()) }
    }

    /// A parcel cannot be left out.
    fn check_parcels(&self) -> Result<(), Failure> {
        for parcel in 0..self.shared.parcels.len() {
            if let Task::Poison { attempts } = self.shared.parcels.look(parcel)? {
                return Err(Failure::lost(format!(
                    "parcel {parcel} of the input: {attempts} workers died on it"
                )));
            }
        }
        Ok(())
    }
}

fn stdin_is_gone(why: impl Display) -> Failure {
    let text = format!("worker that reads standard input: {why}; what it had read is gone");
    Failure::lost(text).hint("count a file: it can be read again")
}
