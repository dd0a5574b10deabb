//! `kmer-leader resume SEGMENT`: goes on with a run whose leader died.
//!
//! The segment holds the command line of the run and the directory in which it was typed. Resuming plans the run again from them, so whatever
//! the command line asked for (relation, threshold, output) is asked for again, with as many workers as there were then, by whom files and rows may
//! have been parted; then it compares the plan with the job in the segment, and goes on from the tasks that are committed. What another leader must not do twice it does not: it has the segment's lock, and proof that the
//! old leader and all of its workers are dead ([`shm_layout::takeover`]).
//!
//! Killed at any instruction, it leaves a segment that the next one resumes.

use crate::carried::remove_other;
use crate::cli::{AnalysisArgs, Cli};
use crate::debug::{DebugArgs, Seconds};
use crate::failure::Failure;
use crate::output::same::STDOUT;
use crate::plan::Plan;
use crate::recover::recover_all;
use crate::segments::of_a_run;
use clap::{Args, Parser};
use kmer_worker::job::{Job, path_of};
use kmer_worker::shared::Shared;
use shm_layout::takeover::{SoleUser, users_of};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the workers of a leader that was killed just now get to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Options of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The segment, as kmer-leader segments lists it
    #[arg(value_name = "SEGMENT")]
    pub segment: String,
    /// Directory of the segment, if the run had one
    #[arg(long, value_name = "DIR")]
    pub segment_dir: Option<PathBuf>,
    /// Write the result to FILE instead of where the run would have written it
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Worker processes [default: as many as the run had; at most so many]
    #[arg(short = 'j', long, visible_alias = "jobs", value_name = "N")]
    pub workers: Option<u32>,
    /// Deaths on one unit of blocks after which it is given up, from 1 to 63 [default: as in the run]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=63))]
    pub max_attempts: Option<u8>,
    /// Kill a worker that makes no progress for so many seconds [default: as in the run]
    #[arg(long, value_name = "SECONDS")]
    pub worker_timeout: Option<Seconds>,
    /// Say nothing on standard error but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Options for tests.
    #[command(flatten)]
    pub debug: DebugArgs,
}

/// A run that was taken over.
pub struct Taken {
    /// Its segment.
    pub shared: Shared,
    /// What had been typed, with what was typed now in its place.
    pub analysis: AnalysisArgs,
    /// Workers that are to go on with it.
    workers: u16,
    proof: SoleUser,
}

/// The command line of this process and its directory, for another leader: parts that end with NUL.
///
/// # Errors
/// When there is no such directory any more.
pub fn command() -> Result<Vec<u8>, Failure> {
    let dir = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let mut bytes = Vec::new();
    for part in std::iter::once(dir.into_os_string()).chain(std::env::args_os()) {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0);
    }
    Ok(bytes)
}

/// Takes the run over.
///
/// # Errors
/// When there is no such segment, it is damaged, one of its processes lives, or its command line cannot be understood. The segment is as before.
pub fn take(args: &ResumeArgs) -> Result<Taken, Failure> {
    let name = &of_a_run(&args.segment, args.segment_dir.as_deref())?;
    let shared = Shared::attach(name)?;
    if !shared.segment.is_resumable()? {
        let text = format!("segment {name:?}: expected one of a run with --resumable, found another");
        return Err(Failure::error(text));
    }
    let command = shared.command()?;
    let mut parts = command.split(|b| *b == 0).map(|part| OsString::from_vec(part.to_vec()));
    let dir = PathBuf::from(parts.next().unwrap_or_default());
    let words: Vec<OsString> = parts.collect();
    // Behind the last NUL there is nothing.
    let words = words.split_last().map_or(&[][..], |(_, words)| words);
    let bad = |found: &dyn std::fmt::Display| {
        Failure::error(format!("segment {name:?}: expected the command line of a run, found {found}"))
    };
    let cli =
        Cli::try_parse_from(words).map_err(|e| bad(&e.to_string().lines().next().unwrap_or_default()))?;
    if cli.command.is_some() {
        return Err(bad(&"a subcommand"));
    }
    let mut analysis = cli.analysis;
    if let Some(output) = &args.output {
        let output = match output {
            output if output == Path::new(STDOUT) => output.clone(),
            output => std::path::absolute(output).map_err(|e| Failure::io("find", output, &e))?,
        };
        // A part is the result of its run.
        match &mut analysis.partial.partial {
            Some(partial) => *partial = output,
            None => analysis.output = Some(output),
        }
    }
    let had = shared.worker_slots()?;
    analysis.workers = Some(had.into());
    let workers = args.workers.map_or(had, |asked| u16::try_from(asked).unwrap_or(had).min(had));
    analysis.max_attempts = args.max_attempts.unwrap_or(analysis.max_attempts);
    analysis.worker_timeout = args.worker_timeout.unwrap_or(analysis.worker_timeout);
    analysis.quiet |= args.quiet;
    analysis.debug.inject.clone_from(&args.debug.inject);
    let proof = prove(&shared)?;
    std::env::set_current_dir(&dir).map_err(|e| Failure::io("change to directory", &dir, &e))?;
    Ok(Taken { shared, analysis, workers, proof })
}

/// Waits for the proof that nobody else uses the segment.
fn prove(shared: &Shared) -> Result<SoleUser, Failure> {
    let (start, mut attempt) = (Instant::now(), 0u32);
    loop {
        if let Some(proof) = shared.segment.take_over()? {
            return Ok(proof);
        }
        if start.elapsed() > PATIENCE {
            let name = shared.segment.name();
            let text =
                format!("segment {name:?}: expected its leader and workers to be dead, found one alive");
            let users: Vec<String> = users_of(name).iter().map(u32::to_string).collect();
            let hint = format!("a run can be resumed when its processes are gone: {}", users.join(", "));
            return Err(Failure::error(text).hint(hint));
        }
        attempt += 1;
        if attempt % 100 == 20 {
            shared.segment.wake_users()?;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Taken {
    /// Puts the segment's job into the plan, which must be of the same relation, and repairs the segment.
    ///
    /// # Errors
    /// When the relation or the options are not those of the run; when the segment is damaged.
    pub fn enter(self, plan: &mut Plan) -> Result<Shared, Failure> {
        let old = &self.shared.job;
        let new = Job {
            // Drawn, or chosen by what was free on the machine.
            seed: old.seed,
            windows_bits: old.windows_bits,
            stripe_bits: old.stripe_bits,
            part_bits: old.part_bits,
            stretch: old.stretch,
            pass_bits: old.pass_bits,
            pass: old.pass,
            max_attempts: old.max_attempts,
            batch_bytes: old.batch_bytes,
            ..plan.job.clone()
        };
        if new != *old {
            let path = old.leaves.first().map_or(Path::new(""), |leaf| path_of(&leaf.path));
            let text =
                format!("relation {path:?}: expected it as it was when the run began, found it changed");
            return Err(
                Failure::error(text).hint("begin anew; kmer-leader segments --gc removes the segment")
            );
        }
        plan.workers.workers = self.workers;
        remove_other(&self.shared)?;
        recover_all(&self.shared, &self.proof)?;
        let mut shared = self.shared;
        // For passes that are to come: made like this one, and for a leader that goes on with those what had been typed first.
        plan.command = shared.command()?;
        let place = shared.segment.arena_place()?;
        let units = shared.state.units()?;
        (plan.sizes.unit_blocks, plan.sizes.ramp) = (units.unit_blocks, units.ramp);
        (plan.sizes.chunk_bytes, plan.sizes.chunks) = (place.chunk_bytes, place.chunks);
        plan.sizes.beside = place.beside;
        plan.sizes.twice = plan.sizes.twice.min(place.chunks);
        // Only the leader counts attempts.
        shared.job.max_attempts = plan.job.max_attempts;
        plan.job = shared.job.clone();
        plan.resumable = true;
        Ok(shared)
    }
}
