//! Named points at which a process can be made to die, stop, fail or wait, for tests and for people who study crashes.
//!
//! A rule is `POINT[:worker=N|:leader][:nth=K][:again]:ACTION`, for example `scan.stored:worker=1:nth=2:kill`. Each process counts its own
//! visits of a point, from 1, and a rule acts at the `nth` of them (by default the first); `nth=all` acts at every one. A rule with `worker=N`
//! is for the worker in slot N, one with `leader` for the leader (also where it does a worker's work), one with neither for both. Replacements
//! of dead workers obey only rules with `again`: else one rule could kill every worker there ever is. So what a rule does depends on no clock.
//!
//! | action | what happens |
//! |---|---|
//! | `kill` | SIGKILL to itself |
//! | `stop` | SIGSTOP to itself |
//! | `segv` | death by SIGSEGV |
//! | `exit` | exit code 0 at once, without a word: destructors do not run |
//! | `error` | the step fails with an error |
//! | `delay=MS` | sleeps so many milliseconds |
//!
//! `trace=FILE` instead of a rule appends a line `ROLE POINT` to FILE at every visit, so that a test can see which points a run comes by.
//!
//! Cost when unused: [`at`] is inlined and is one load of a static and a branch that is never taken.

use crate::error::{Error, Result};
use crate::planted::RECOVERS;
use crate::sync::{AtomicU32, Ordering};
use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;
use std::time::Duration;

macro_rules! points {
    ($($point:ident $name:literal $what:literal,)*) => {
        /// A point.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Point { $(#[doc = $what] $point,)* }

        /// Every point with its name and what happens there.
        pub const POINTS: &[(Point, &str, &str)] = &[$((Point::$point, $name, $what),)*];
    };
}

points! {
    CreateHeader "create.header" "leader: the segment has its size and a header without its magic, and no name yet",
    CreateNamed "create.named" "leader: it has its name",
    CreateBeside "create.beside" "leader: one of the objects beside the first one has its name",
    CreateFilled "create.filled" "leader: every structure is made, the magic is not there yet",
    CreatePublished "create.published" "leader: the segment can be attached to",
    LaunchSlot "launch.slot" "leader: a slot is STARTING, its worker is not started",
    LaunchForked "launch.forked" "leader: a worker runs that nobody watches yet; with the action error there is no file descriptor for that",
    LaunchSpawned "launch.spawned" "leader: a worker was started",
    LeaderWait "leader.wait" "leader: about to wait for workers",
    LeaderHung "leader.hung" "leader: a worker made no progress for too long; with the action error it is not killed, as if it could not be",
    LeaderFenced "leader.fenced" "leader: that worker is fenced, its claims are not taken back yet",
    RecoverBegin "recover.begin" "leader: a worker is seen dead, nothing is recovered",
    RecoverUnits "recover.units" "leader: its units are taken back, its stripes are not",
    RecoverStripes "recover.stripes" "leader: its stripes are taken back, its chunks are not",
    RecoverChain "recover.chain" "leader: knows a result that is done, and has not walked its chain",
    RecoverChunk "recover.chunk" "leader: about to free one of its chunks",
    RecoverSwept "recover.swept" "leader: its chunks are free, its slot is not DEAD",
    RecoverDead "recover.dead" "leader: its slot is DEAD, it is not reaped",
    RecoverReaped "recover.reaped" "leader: it is reaped, and not replaced",
    CollectBegin "collect.begin" "leader: all units are settled",
    CollectEnd "collect.end" "leader: the units are added up, the drain's order is not written",
    OrderWritten "order.written" "leader: the drain's order is written, the drain is not open",
    DrainOpened "drain.opened" "leader: the drain is open",
    DrainSettled "drain.settled" "leader: all stripes are settled",
    Finished "finished" "leader: the sums agree and the last phase is open",
    RemoveBeside "remove.beside" "leader: the first object of a segment has no name any more, one beside it has",
    PassBegin "pass.begin" "leader: a pass is over and its k-mers are taken out, the next one's segment is not made",
    PassMade "pass.made" "leader: the next pass's segment is whole, that of the last one is still there",
    PassLeft "pass.left" "leader: the last pass's segment is gone, the next pass is not begun",
    ResumeLocked "resume.locked" "leader: has the lock of a segment that it resumes",
    ResumeTaken "resume.taken" "leader: its identity is in the header",
    ResumeOwner "resume.owner" "leader: about to recover from one of the dead",
    ResumeReady "resume.ready" "leader: has recovered from all of the dead",
    ReportBegin "report.begin" "leader: about to write the result",
    PinFilled "pin.filled" "leader: the segment that is to be pinned is whole, and has a passing name",
    PinNamed "pin.named" "leader: it has its name, the output is not where it belongs",
    ReportWritten "report.written" "leader: the result is written, and not yet where it belongs",
    OutputSynced "output.synced" "leader: the result's bytes are on disk",
    OutputLinked "output.linked" "leader: the result has a temporary name",
    OutputRenamed "output.renamed" "leader: the result is where it belongs, the segment is still there",
    WorkerStart "worker.start" "worker: started",
    WorkerArmed "worker.armed" "worker: will hear of the leader's death",
    WorkerAttached "worker.attached" "worker: attached, its slot is STARTING",
    WorkerRunning "worker.running" "worker: its slot is RUNNING",
    WorkerIdle "worker.idle" "worker: found nothing to claim",
    WorkerLeaving "worker.leaving" "worker: the run is over, its slot is RUNNING",
    WorkerDone "worker.done" "worker: its slot is DONE",
    ClaimLocked "claim.locked" "has the mutex, has claimed nothing",
    ClaimTaken "claim.taken" "has the mutex and a unit, next_block is not moved",
    ClaimMoved "claim.moved" "has the mutex and a unit, next_block is moved",
    ClaimAgain "claim.again" "has a unit or stripe that had come back",
    ScanClaimed "scan.claimed" "has a unit and has read nothing of it",
    ScanBlock "scan.block" "about to take a block's rows",
    ScanBundled "scan.bundled" "has scanned a unit that is to be committed with others",
    ScanStored "scan.stored" "a unit's result, or that of a bundle, is stored, and not committed",
    ScanCommitted "scan.committed" "a unit, or a bundle, is committed, and not yet among the slot's figures",
    ScanFenced "scan.fenced" "a commit was refused, the chunks are not given back",
    DrainNumber "drain.number" "has drawn a stripe's number, and not claimed it",
    DrainClaimed "drain.claimed" "has a stripe and has read nothing of it",
    DrainBuilt "drain.built" "a stripe's table is built in private memory",
    DrainStored "drain.stored" "a stripe's table is stored, and not published",
    DrainPublished "drain.published" "a stripe is published, and not yet among the slot's figures",
    DrainFenced "drain.fenced" "a publication was refused, the chunks are not given back",
    ChunkTaken "chunk.taken" "has allocated a chunk, and written nothing",
    ChunkAgain "chunk.again" "has a chunk of spent records for a second use, and has written nothing over them",
    ChunkWritten "chunk.written" "a chunk's bytes are written, its link is not",
    ChunkLinked "chunk.linked" "a chunk's bytes and link are written",
    ChainLinked "chain.linked" "a batch's chunks were strung to those before them",
    ChainFree "chain.free" "about to give a chunk back",
    FeedClaimed "feed.claimed" "feeder: has a parcel's word, and has stored nothing",
    FeedStored "feed.stored" "feeder: a parcel is stored, and not committed",
    FeedCommitted "feed.committed" "feeder: a parcel is there for workers",
    FeedConsumed "feed.consumed" "feeder: a parcel's word leads nowhere any more, its chunks are not free",
    FeedEnded "feed.ended" "feeder: the text has ended, workers do not know",
    RoomWait "room.wait" "found no free chunk, gave its task back, and waits whether a recovery makes room",
    ErrorBegin "error.begin" "worker: met an error, has said nothing",
    ErrorSaid "error.said" "worker: has left last words in its slot",
    ErrorLocked "error.locked" "has the mutex to record the run's error",
    ErrorText "error.text" "the run's error has its text, its flag is not set",
    ErrorFlag "error.flag" "the run's error is recorded, the mutex is held",
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
    /// Death by SIGSEGV.
    Segv,
    /// Exit code 0, without a word.
    Exit,
    /// The step fails.
    Error,
    /// Sleeps.
    Delay(Duration),
}

/// Whom a rule is for, and who a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The leader.
    Leader,
    /// A worker in a slot.
    Worker(u16),
}

/// A parsed rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Act at a point.
    Act {
        /// Where.
        point: Point,
        /// In which process; `None` for all.
        who: Option<Who>,
        /// At which visit; `None` for every one.
        nth: Option<u32>,
        /// In replacements of dead workers as well.
        again: bool,
        /// What to do.
        action: Action,
    },
    /// Write every visit into a file.
    Trace(String),
}

impl std::str::FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Some(file) = text.strip_prefix("trace=") {
            return Ok(Self::Trace(file.into()));
        }
        let mut words: Vec<&str> = text.split(':').collect();
        let name = words.remove(0);
        let found = POINTS.iter().find(|(_, point, _)| *point == name);
        let (point, ..) =
            *found.ok_or_else(|| format!("expected a point of --inject list, found {name:?}"))?;
        let action = match words.pop() {
            Some("kill") => Action::Kill,
            Some("stop") => Action::Stop,
            Some("segv") => Action::Segv,
            Some("exit") => Action::Exit,
            Some("error") => Action::Error,
            other => match other.and_then(|word| word.strip_prefix("delay=")).map(str::parse) {
                Some(Ok(ms)) => Action::Delay(Duration::from_millis(ms)),
                _ => {
                    let found = other.unwrap_or("nothing");
                    return Err(format!(
                        "expected kill, stop, segv, exit, error or delay=MS, found {found:?}"
                    ));
                }
            },
        };
        let (mut who, mut nth, mut again) = (None, Some(1), false);
        for word in words {
            let number = |text: &str| text.parse().map_err(|_| format!("expected a number in {word:?}"));
            match word.split_once('=') {
                None if word == "leader" => who = Some(Who::Leader),
                None if word == "again" => again = true,
                Some(("worker", slot)) => who = Some(Who::Worker(number(slot)?)),
                Some(("nth", "all")) => nth = None,
                Some(("nth", visit)) => nth = Some(number(visit)?.into()),
                _ => return Err(format!("expected worker=N, leader, nth=K or again, found {word:?}")),
            }
        }
        Ok(Self::Act { point, who, nth, again, action })
    }
}

struct Armed {
    rules: Vec<(Point, Option<u32>, Action)>,
    visits: [AtomicU32; POINTS.len()],
    trace: Option<File>,
    role: &'static str,
}

/// Not 0 when this process obeys rules. Relaxed: set before the process has anything to share.
static IS_ARMED: AtomicU32 = AtomicU32::new(0);
static ARMED: OnceLock<Armed> = OnceLock::new();

/// Makes this process obey those of `rules` that are for it. `replacement` says that it stands for a worker that died. Once a process.
///
/// # Errors
/// When the file of a trace cannot be opened.
pub fn arm(rules: &[Rule], me: Who, replacement: bool) -> std::io::Result<()> {
    let mut armed = Armed {
        rules: Vec::new(),
        visits: [const { AtomicU32::new(0) }; POINTS.len()],
        trace: None,
        role: if me == Who::Leader { "leader" } else { "worker" },
    };
    for rule in rules {
        match rule {
            Rule::Act { point, who, nth, again, action } => {
                if who.is_none_or(|who| who == me) && (*again || !replacement) {
                    armed.rules.push((*point, *nth, *action));
                }
            }
            Rule::Trace(path) => {
                armed.trace = Some(File::options().append(true).create(true).open(path)?);
            }
        }
    }
    if !armed.rules.is_empty() || armed.trace.is_some() {
        let _ = ARMED.set(armed);
        IS_ARMED.store(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Comes by `point`: nothing happens unless a rule says so.
///
/// # Errors
/// [`Error::Injected`] when a rule says so.
#[inline(always)]
pub fn at(point: Point) -> Result<()> {
    if !RECOVERS || IS_ARMED.load(Ordering::Relaxed) == 0 { Ok(()) } else { visit(point) }
}

#[cold]
fn visit(point: Point) -> Result<()> {
    let Some(armed) = ARMED.get() else { return Ok(()) };
    let visit = armed.visits[point as usize].fetch_add(1, Ordering::Relaxed) + 1;
    let name = POINTS[point as usize].1;
    if let Some(mut file) = armed.trace.as_ref() {
        let _ = file.write_all(format!("{} {name}\n", armed.role).as_bytes());
    }
    for (_, _, action) in armed.rules.iter().filter(|(p, n, _)| *p == point && n.is_none_or(|n| n == visit)) {
        match action {
            Action::Kill => crate::process::send_to_self(libc::SIGKILL),
            Action::Stop => crate::process::send_to_self(libc::SIGSTOP),
            Action::Segv => crate::process::die_by(nix::sys::signal::Signal::SIGSEGV),
            Action::Exit => crate::process::exit_at_once(0),
            Action::Error => return Err(Error::Injected { point: name }),
            Action::Delay(time) => std::thread::sleep(*time),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_where_their_numbers_say() {
        for (place, (point, name, what)) in POINTS.iter().enumerate() {
            assert_eq!(*point as usize, place, "{name}");
            assert!(!what.is_empty() && POINTS.iter().filter(|(_, other, _)| other == name).count() == 1);
        }
    }

    #[test]
    fn rules() {
        let rule = |text: &str| text.parse::<Rule>();
        let plain = Rule::Act {
            point: Point::ScanStored,
            who: None,
            nth: Some(1),
            again: false,
            action: Action::Kill,
        };
        assert_eq!(rule("scan.stored:kill"), Ok(plain));
        let full = Rule::Act {
            point: Point::ClaimTaken,
            who: Some(Who::Worker(3)),
            nth: Some(2),
            again: true,
            action: Action::Delay(Duration::from_millis(40)),
        };
        assert_eq!(rule("claim.taken:worker=3:nth=2:again:delay=40"), Ok(full));
        assert_eq!(rule("trace=x:y"), Ok(Rule::Trace("x:y".into())));
        for (text, word) in [
            ("nowhere:kill", "nowhere"),
            ("scan.stored", "nothing"),
            ("scan.stored:explode", "explode"),
            ("scan.stored:delay=x", "delay=x"),
            ("scan.stored:worker=x:kill", "worker=x"),
            ("scan.stored:twice:kill", "twice"),
        ] {
            assert!(rule(text).expect_err(text).contains(word), "{text}");
        }
    }

    #[test]
    fn a_process_that_is_not_armed_passes() {
        assert!(at(Point::ScanStored).is_ok());
    }
}
