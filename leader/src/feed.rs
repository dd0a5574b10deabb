//! The feeder of a stream, as the leader sees it: a process of its own in the slot behind the workers', or, where there is none, the leader.
//!
//! | the feeder | then |
//! |---|---|
//! | has ended well | nothing: all parcels are done with |
//! | died, and may be replaced | another one makes the parcels that are missing: they depend on the input alone |
//! | died, and may not be replaced | the leader feeds, between two looks at its workers |
//! | died over standard input | the run ends: what it had read is gone |

use crate::failure::Failure;
use crate::launch::End;
use crate::lead::Leader;
use crate::watch::Watched;
use kmer_worker::feed::{Feeder, STDIN};
use kmer_worker::shared::Shared;
use shm_layout::state::Phase;
use shm_layout::words::{SlotState, Task};

/// Whether the input of a run is standard input, or has it in it.
pub fn reads_stdin(shared: &Shared) -> bool {
    shared.job.stream.is_some() && shared.job.leaves.iter().any(|leaf| leaf.path == STDIN)
}

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
            if reads_stdin(self.shared) {
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
    pub(crate) fn must_feed(&self, phase: Phase) -> bool {
        phase == Phase::Scan
            && self.shared.job.stream.is_some()
            && !self.feeder_done
            && self.feeder().is_none()
    }

    /// The leader's own feeder, in the feeder's slot.
    pub(crate) fn own_feeder(&mut self) -> Result<Feeder<'a>, Failure> {
        if let Some(feeder) = self.own_feeder.take() {
            return Ok(feeder);
        }
        let slot = self
            .shared
            .feeder_slot()
            .ok_or_else(|| Failure::error("feeder: expected a stream, found none"))?;
        let owner = self.shared.slots.start(slot)?;
        self.shared.slots.change(owner, SlotState::Starting, SlotState::Running)?;
        Ok(Feeder::new(self.shared, owner, None)?)
    }

    /// Makes a parcel, if it is time for one; false if not.
    pub(crate) fn feed(&mut self) -> Result<bool, Failure> {
        let mut feeder = self.own_feeder()?;
        let fed = feeder.step()?;
        self.own_feeder = Some(feeder);
        Ok(fed)
    }

    /// What stands against another feeder after one has died.
    pub(crate) fn after_feeder(&self, end: End) -> Result<(), Failure> {
        if reads_stdin(self.shared) {
            let text = format!("worker that reads standard input: {end}; what it had read is gone");
            return Err(Failure::lost(text).hint("count a file: it can be read again"));
        }
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
