//! The leader at a worker's work: where nobody could be started, or all have died and may not be replaced, it does what is left itself, in the slot
//! behind the workers'. In between it sees to what a leader has to see to: signals, and a feeder that dies.

use crate::console::Console;
use crate::failure::Failure;
use crate::lead::{Leader, PARCEL_WAIT};
use crate::signals::Signals;
use crate::watch::Watched;
use kmer_worker::WorkError;
use kmer_worker::engine::{Surroundings, Worker};
use kmer_worker::feed::Feeder;
use kmer_worker::shared::Shared;
use nix::sys::signal::Signal;
use shm_layout::state::Phase;
use shm_layout::words::SlotState;
use std::time::{Duration, Instant};

/// How long a leader that works alone waits for parcels before it looks whether the feeder hangs.
const FEEDER_WAIT: Duration = Duration::from_millis(500);
/// What a leader that works looks at.
struct Alone<'a, 'b> {
    signals: &'a Signals,
    caught: Option<Signal>,
    console: &'a mut Console,
    shared: &'b Shared,
    feeder: Option<Feeder<'b>>,
    feeder_process: Option<&'a Watched>,
    /// Since when it waits for that process.
    began: Option<Instant>,
}

impl Surroundings for Alone<'_, '_> {
    fn idle(&mut self) {
        // Nobody else is there whose death could be seen.
        let _ = self.shared.state.count_look();
    }

    fn may_go_on(&mut self) -> bool {
        self.console.look(self.shared);
        self.caught = self.caught.or_else(|| self.signals.caught());
        // A feeder that is gone has to be seen to.
        self.caught.is_none()
            && self.feeder_process.is_none_or(|feeder| feeder.process.ended().is_none())
            && self.began.is_none_or(|began| began.elapsed() < FEEDER_WAIT)
    }

    fn await_parcel(&mut self) -> Result<(), WorkError> {
        match &mut self.feeder {
            Some(feeder) => {
                if !feeder.step()? {
                    std::thread::sleep(PARCEL_WAIT);
                }
                Ok(())
            }
            None => {
                self.began.get_or_insert_with(Instant::now);
                std::thread::sleep(PARCEL_WAIT);
                Ok(())
            }
        }
    }
}

impl Leader<'_> {
    /// The leader does what is left of the phase itself, in the slot behind the workers'.
    pub(crate) fn work_alone(&mut self, phase: Phase) -> Result<(), Failure> {
        let feeder = if self.must_feed(phase)? { Some(self.own_feeder()?) } else { None };
        let owner = self.shared.slots.start((self.shared.slots.len() - 1) as u16)?;
        self.shared.slots.change(owner, SlotState::Starting, SlotState::Running)?;
        // In the drain nobody waits for it.
        let slot = self.shared.feeder_slot().filter(|_| phase == Phase::Scan);
        let feeder_process = self.running.iter().find(|w| Some(w.process.owner.slot) == slot);
        let (signals, console, shared) = (self.signals, &mut *self.console, self.shared);
        let (caught, began) = (None, None);
        let mut alone = Alone { signals, caught, console, shared, feeder, feeder_process, began };
        let mut worker = Worker::new(self.shared, owner).without_mapping();
        let done = match phase {
            Phase::Scan => worker.scan_all(&mut alone),
            _ => worker.drain_all(&mut alone),
        };
        self.shared.slots.change(owner, SlotState::Running, SlotState::Done)?;
        let (feeder, caught) = (alone.feeder, alone.caught);
        self.own_feeder = feeder;
        match caught {
            Some(signal) => Err(Failure::Signal(signal)),
            None => Ok(done?),
        }
    }
}
