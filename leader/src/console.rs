//! What a run says on standard error: messages, and how far it is.
//!
//! On a terminal progress is one line that is rewritten and goes before a message or the end comes; elsewhere it is a plain line every few
//! seconds, the first one late, so that a short run says nothing. With `--quiet` there is none, and errors and warnings only.

use crate::colour::painted;
use crate::progress::Snapshot;
use crate::progress::line::{Pace, fit};
use kmer_worker::shared::Shared;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// A line on a terminal is rewritten so often.
const REWRITE: Duration = Duration::from_millis(200);
/// Plain lines come so often.
const PLAIN: Duration = Duration::from_secs(5);
/// Columns of a terminal that does not tell.
const COLUMNS: usize = 80;

/// Standard error of a run.
pub struct Console {
    quiet: bool,
    terminal: bool,
    /// A line of progress stands on the terminal.
    shown: bool,
    next: Instant,
    pace: Pace,
}

impl Console {
    /// Standard error; with `quiet` it hears errors and warnings only.
    pub fn new(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = std::io::stderr().is_terminal() && !dumb;
        let next = Instant::now() + if terminal { REWRITE } else { PLAIN };
        Self { quiet, terminal, shown: false, next, pace: Pace::default() }
    }

    /// Says something, unless it is to be quiet.
    pub fn tell(&mut self, text: &str) {
        if !self.quiet {
            self.say("", text);
        }
    }

    /// Says something of a kind (`warning: `).
    pub fn say(&mut self, kind: &str, text: &str) {
        self.clear();
        say(kind, text);
    }

    /// How long a leader that waits should wait before it shows progress again.
    pub fn pause(&self) -> Duration {
        if self.quiet { Duration::MAX } else { self.next.saturating_duration_since(Instant::now()) }
    }

    /// Shows how far the run is, if it is time to. What cannot be read is left to others to find.
    pub fn look(&mut self, shared: &Shared) {
        let due = self.is_due();
        // A phase is looked at when it begins, so that there is something to compare with later.
        let begins = !self.quiet && !self.pace.is_of(shared.state.phase().ok(), shared.job.pass);
        if !due && !begins {
            return;
        }
        if let Ok(seen) = Snapshot::take(shared) {
            let parts = self.pace.parts(&seen, Instant::now());
            if due {
                self.show(&parts);
            }
        }
    }

    /// Shows how much of the result is written, if it is time to.
    pub fn writing(&mut self, done: u64, total: u64) {
        // The result may be written to the very terminal.
        if self.terminal && std::io::stdout().is_terminal() {
            return self.clear();
        }
        let (due, begins) = (self.is_due(), done == 0);
        if due || (begins && !self.quiet) {
            let parts = self.pace.writing(done, total, Instant::now());
            if due {
                self.show(&parts);
            }
        }
    }

    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        if self.quiet || now < self.next {
            return false;
        }
        self.next = now + if self.terminal { REWRITE } else { PLAIN };
        true
    }

    fn show(&mut self, parts: &[String]) {
        // Who does not read must not hold up the run for the sake of its progress.
        if is_full() {
            return;
        }
        if !self.terminal {
            say("", &parts.join(", "));
            return;
        }
        let size = terminal_size::terminal_size_of(std::io::stderr());
        let columns = size.map_or(COLUMNS, |(width, _)| usize::from(width.0)).max(2);
        // The last column stays free: a terminal may begin a new line behind it.
        let _ = write!(std::io::stderr(), "\r{}\x1b[K", fit(parts, columns - 1));
        self.shown = true;
    }

    /// Takes the line of progress away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Whether standard error is a pipe that is full: what is written to it waits for who reads it.
pub fn is_full() -> bool {
    let errors = std::io::stderr();
    let mut errors = [PollFd::new(errors.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut errors, PollTimeout::ZERO), Ok(0))
}

/// Says something on standard error. When that is closed there is nobody to tell.
pub fn say(kind: &str, text: &str) {
    let _ = writeln!(std::io::stderr(), "kmer-leader: {}{text}", painted(kind));
}
