//! `kmer-leader torture`: runs a job again and again while its processes are killed, stopped and starved, and compares the bytes each time.
//!
//! A run gets options drawn anew (workers, sizes of units, chunks and batches, stripes), so that deaths meet every path. While it runs, after
//! delays drawn from its seed, one of its processes drawn likewise is killed, crashed, or stopped for a while; with `--leader` the leader as
//! well, and then the run is resumed, under the same treatment. Whatever was done, the result must be the bytes of a run in peace, and nothing
//! may be left. The same seed draws the same options and the same plan of faults; which instruction each of them hits is up to the machine.

use crate::failure::Failure;
use crate::signals::Signals;
use clap::Args;
use nix::sys::signal::Signal;
use shm_layout::process::{pidfd_open, pidfd_send};
use shm_layout::takeover::{self, State};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Seconds after which a worker is taken for hung, at least.
const LEAST_TIMEOUT: f64 = 0.5;
/// So many times slower than in peace a worker may be among those that are started and killed.
const SLOWER: f64 = 4.0;

/// Options of `torture`.
#[derive(Debug, Args)]
pub struct TortureArgs {
    /// Relation to count, a small one: the deaths are to hit everything, not only the long loops
    #[arg(value_name = "RELATION")]
    pub relation: PathBuf,
    /// SIGKILLs to do
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub kills: u64,
    /// Draws everything [default: drawn, and said]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Most workers of a run
    #[arg(short = 'j', long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// Kill and stop the leader as well, and resume
    #[arg(long)]
    pub leader: bool,
    /// Only kill: neither stop nor crash
    #[arg(long)]
    pub kill_only: bool,
    /// Options of the analysis, like -k 21
    #[arg(last = true, value_name = "OPTIONS")]
    pub options: Vec<String>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    runs: u64,
    worker_kills: u64,
    leader_kills: u64,
    crashes: u64,
    stops: u64,
    resumes: u64,
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

/// A directory for results that goes when it is dropped.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Torture<'a> {
    args: &'a TortureArgs,
    program: PathBuf,
    place: Place,
    /// Segments that were there before.
    before: Vec<String>,
    expected: Vec<u8>,
    /// How long a run in peace takes.
    usual: Duration,
    done: Done,
}

/// Tortures, and gives what was done as text.
///
/// # Errors
/// Exit code 1 when a run in peace fails; when a result is not the same or something is left, with the seed and the run.
pub fn run(args: &TortureArgs, say: &mut dyn FnMut(&str)) -> Result<String, Failure> {
    refuse_options(args)?;
    let signals = Signals::catch()?;
    let program = std::env::current_exe()
        .map_err(|e| Failure::error(format!("could not find the own program: {e}")))?;
    let place = Place(std::env::temp_dir().join(format!("kmer-torture.{}", std::process::id())));
    fs::create_dir(&place.0).map_err(|e| Failure::io("create", &place.0, &e))?;
    let seed =
        args.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ shm_layout::process::boot_digest());
    let before = takeover::list(None)?.into_iter().map(|s| s.name).collect();
    let (expected, usual, done) = (Vec::new(), Duration::ZERO, Done::default());
    let mut torture = Torture { args, program, place, before, expected, usual, done };
    torture.in_peace()?;
    let (start, mut told) = (Instant::now(), Instant::now());
    while torture.done.worker_kills + torture.done.leader_kills < args.kills {
        let number = torture.done.runs;
        let mut rng = Rng(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        let ended = torture.one_run(&mut rng);
        if let Some(signal) = signals.caught() {
            return Err(Failure::Signal(signal));
        }
        ended.map_err(|e| {
            let text = e.message().map(|m| m.error.clone()).unwrap_or_default();
            Failure::error(format!("torture: seed {seed}, run {number}: {text}"))
        })?;
        torture.done.runs += 1;
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            say(&torture.done.text(start.elapsed()));
        }
    }
    torture.sweep_cut_off()?;
    Ok(format!(
        "{}\nseed {seed}: every result was the same {} bytes, and nothing was left\n",
        torture.done.text(start.elapsed()),
        torture.expected.len()
    ))
}

/// Options that would take a run's outcome, or its segment, to where it is not looked for.
fn refuse_options(args: &TortureArgs) -> Result<(), Failure> {
    for (name, why) in [
        ("--pin", "what is pinned stays when all is over"),
        ("--segment-dir", "what is left is looked for in /dev/shm"),
    ] {
        if let Some(option) = args.options.iter().find(|option| option.starts_with(name)) {
            let text = format!(
                "torture: expected options whose outcome is in one file, and segments in /dev/shm, found {option:?}"
            );
            return Err(Failure::usage(text).hint(why));
        }
    }
    Ok(())
}

impl Done {
    fn text(&self, time: Duration) -> String {
        let Self { runs, worker_kills, leader_kills, crashes, stops, resumes } = self;
        let seconds = time.as_secs_f64();
        format!(
            "{runs} runs, {worker_kills} workers killed, {leader_kills} leaders killed, {crashes} crashed, {stops} stopped, {resumes} resumed, {seconds:.1} s ({:.0} kills/s)",
            (worker_kills + leader_kills) as f64 / seconds
        )
    }
}

impl Torture<'_> {
    fn out(&self) -> PathBuf {
        self.place.0.join("out")
    }

    fn spawn<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Result<Child, Failure> {
        let log = fs::File::create(self.place.0.join("log"))
            .map_err(|e| Failure::io("create", &self.place.0, &e))?;
        let mut command = Command::new(&self.program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().map_err(|e| Failure::io("execute", &self.program, &e))
    }

    fn command(&self, more: &[String]) -> Vec<String> {
        let mut words: Vec<String> = self.args.options.clone();
        words.extend(["-o".into(), self.out().to_string_lossy().into_owned()]);
        words.extend_from_slice(more);
        words.push(self.args.relation.to_string_lossy().into_owned());
        words
    }

    fn in_peace(&mut self) -> Result<(), Failure> {
        let workers = self.args.workers.to_string();
        let words = self.command(&["-j".into(), workers]);
        for _ in 0..2 {
            let start = Instant::now();
            let status =
                self.spawn(&words)?.wait().map_err(|e| Failure::io("wait for", &self.program, &e))?;
            self.usual = start.elapsed();
            if !status.success() {
                let text = format!("a run in peace ended with {status}: {}", self.log());
                let is_usage = status.code() == Some(2);
                return Err(if is_usage { Failure::usage(text) } else { Failure::error(text) });
            }
        }
        self.expected = fs::read(self.out()).map_err(|e| Failure::io("read", &self.out(), &e))?;
        Ok(())
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.place.0.join("log")).unwrap_or_default();
        let told = |line: &&str| line.contains("error: ") || line.contains("hint: ");
        let told: Vec<&str> = log.lines().filter(told).collect();
        let all = log.lines().count();
        let lines = if told.is_empty() { log.lines().skip(all.saturating_sub(4)).collect() } else { told };
        lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" | ")
    }

    fn drawn(&self, rng: &mut Rng) -> Vec<String> {
        let workers = 1 + rng.below(self.args.workers.into());
        let (unit, chunk) = (rng.one_of(&[1, 1, 2, 5]), rng.one_of(&[4096, 4096, 8192, 65536]));
        let (bits, batch) = (rng.below(5), rng.one_of(&[2000, 8000, 100_000]));
        let passes = rng.one_of(&[0, 0, 0, 1, 2]);
        let text = format!(
            "-j {workers} --unit-blocks {unit} --chunk-bytes {chunk} --stripe-bits {bits} --batch-bytes {batch} \
             --pass-bits {passes} --max-attempts 63 --max-respawns 1000000 --worker-timeout {}",
            self.timeout()
        );
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        words.extend(self.args.leader.then(|| "--resumable".into()));
        words
    }

    /// Seconds after which a worker that does nothing is taken for hung. One that counts a stripe has nothing to tell meanwhile, and a run may have one
    /// stripe only: it takes as long as all workers together.
    fn timeout(&self) -> f64 {
        (self.usual.as_secs_f64() * f64::from(self.args.workers) * SLOWER).max(LEAST_TIMEOUT)
    }

    fn one_run(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let _ = fs::remove_file(self.out());
        // Process ids are used again: what was there before is not of this run.
        let before: Vec<String> = takeover::list(None)?.into_iter().map(|s| s.name).collect();
        let words = self.command(&self.drawn(rng));
        // So many faults; then it may end in peace.
        let mut faults = 1 + rng.below(40);
        let (mut child, mut segment) = (self.spawn(&words)?, None);
        let mut leaders = Vec::new();
        loop {
            leaders.push(child.id());
            let leader_died = self.treat(&mut child, rng, &mut faults)?;
            let status = child.wait().map_err(|e| Failure::io("wait for", &self.program, &e))?;
            if !leader_died {
                return if status.success() {
                    self.compare(&leaders, &before)
                } else {
                    Err(Failure::error(format!("{status}: {}", self.log())))
                };
            }
            self.done.leader_kills += 1;
            let pid = child.id();
            // One that was killed before it was written into the header has left the segment of the leader before it; one that had begun another
            // pass has left that one's.
            segment = self.left(pid, segment.as_deref(), &before)?;
            child = match &segment {
                Some(name) => {
                    self.done.resumes += 1;
                    self.spawn(&["resume", name])?
                }
                // It died before it had a segment, or after it had removed it.
                None => self.spawn(&words)?,
            };
        }
    }

    /// Does faults until the run has ended, or none are left; true when the leader was killed.
    fn treat(&mut self, child: &mut Child, rng: &mut Rng, faults: &mut u64) -> Result<bool, Failure> {
        let usual = self.usual.as_micros() as u64;
        let longest = rng.one_of(&[200, 1000, usual / 16, usual / 4]).max(100);
        let mut crashes = 2;
        while *faults > 0 {
            std::thread::sleep(Duration::from_micros(rng.below(longest)));
            if child.try_wait().is_ok_and(|status| status.is_some()) {
                return Ok(false);
            }
            *faults -= 1;
            let (at_leader, what) = (rng.below(8) == 0, rng.below(10));
            let (target, pause) = (rng.next(), Duration::from_micros(rng.below(20_000)));
            let kills = self.args.kill_only || what < 7;
            if at_leader && self.args.leader {
                if kills {
                    let killed = child.kill().is_ok();
                    return Ok(killed && child.wait().is_ok_and(|s| !s.success() && s.code().is_none()));
                }
                self.done.stops += u64::from(signal(child.id(), None, Signal::SIGSTOP));
                std::thread::sleep(pause);
                signal(child.id(), None, Signal::SIGCONT);
                continue;
            }
            let workers = children(child.id());
            let Some(worker) = workers.get((target % workers.len().max(1) as u64) as usize) else { continue };
            let parent = Some(child.id());
            if kills {
                self.done.worker_kills += u64::from(signal(*worker, parent, Signal::SIGKILL));
            } else if what == 7 && crashes > 0 {
                crashes -= 1;
                self.done.crashes += u64::from(signal(*worker, parent, Signal::SIGSEGV));
            } else {
                // Stopped before it has begun its program it would be out of everybody's reach, should its leader die.
                if !is_worker(*worker) {
                    continue;
                }
                self.done.stops += u64::from(signal(*worker, parent, Signal::SIGSTOP));
                // One in four is not woken: the leader has to see that.
                if what != 9 || target % 4 != 0 {
                    std::thread::sleep(pause);
                    signal(*worker, parent, Signal::SIGCONT);
                }
            }
        }
        Ok(false)
    }

    /// The segment that the leader left, if another can go on with it.
    fn left(&self, pid: u32, known: Option<&str>, before: &[String]) -> Result<Option<String>, Failure> {
        // Until its workers are gone a segment counts as in use.
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let is_ours = |s: &takeover::Listed| {
                known == Some(&*s.name) || s.leader == pid && !before.contains(&s.name)
            };
            match takeover::list(None)?.into_iter().find(|s| is_ours(s) && s.state != State::Orphan) {
                Some(segment) if segment.state == State::Running && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Some(segment) if segment.state == State::Running => {
                    return Err(Failure::error(format!(
                        "workers of {} live 20 s after their leader",
                        segment.name
                    )));
                }
                other => return Ok(other.map(|segment| segment.name)),
            }
        }
    }

    /// Waits until what leaders left that died between making a segment and writing its header has come of age, and removes it.
    fn sweep_cut_off(&self) -> Result<(), Failure> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            takeover::sweep(None, false)?;
            let is_left = |s: &takeover::Listed| {
                s.leader == 0 && s.state != State::Foreign && !self.before.contains(&s.name)
            };
            let Some(left) = takeover::list(None)?.into_iter().find(is_left) else { return Ok(()) };
            if Instant::now() > end {
                let name = left.name;
                return Err(Failure::error(format!("left behind: segment {name:?}, {}", left.state)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn compare(&self, leaders: &[u32], before: &[String]) -> Result<(), Failure> {
        let found = fs::read(self.out()).map_err(|e| Failure::io("read", &self.out(), &e))?;
        if found != self.expected {
            let kept = std::env::temp_dir().join("kmer-torture.wrong");
            let _ = fs::write(&kept, found);
            return Err(Failure::error(format!("other bytes; they are in {kept:?}")));
        }
        let names: Vec<String> = takeover::list(None)?
            .into_iter()
            .filter(|s| leaders.contains(&s.leader) && !before.contains(&s.name))
            .map(|s| s.name)
            .collect();
        let files = fs::read_dir(&self.place.0).map_or(0, |dir| dir.count());
        if !names.is_empty() || files > 2 {
            return Err(Failure::error(format!(
                "left behind: segments {names:?}, {} files",
                files.saturating_sub(2)
            )));
        }
        Ok(())
    }
}

/// Children of a process, as far as the kernel tells.
fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(Path::new("/proc").join(format!("{pid}/task/{pid}/children")));
    list.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Whether the process hears of its leader's death: not yet a moment after its program began.
fn is_worker(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps"))
        .is_ok_and(|maps| maps.contains("/kmer-worker") && maps.contains("/dev/shm/"))
}

/// Sends a signal, and makes sure that it goes to a child of `parent`: process ids are used again.
fn signal(pid: u32, parent: Option<u32>, signal: Signal) -> bool {
    let Ok(pidfd) = pidfd_open(pid) else { return false };
    parent.is_none_or(|parent| children(parent).contains(&pid)) && pidfd_send(&pidfd, signal).is_ok()
}
