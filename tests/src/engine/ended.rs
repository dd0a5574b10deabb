//! A run that has ended, and what a test may ask of it.

use crate::head;
use crate::output::Report;
use nix::sys::signal::Signal;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use tempfile::TempDir;

/// A run that has ended, and passed the audit.
pub struct Ended {
    /// The command, as a shell would take it.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: String,
    /// The run's directory with the files that the test asked to keep.
    pub dir: TempDir,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout);
        write!(
            f,
            "\ncommand: {}\n{}\nstdout:\n{}stderr:\n{}",
            self.command,
            self.status,
            head(&stdout, 15),
            head(&self.stderr, 30)
        )
    }
}

impl Ended {
    /// Checks the exit code.
    ///
    /// # Panics
    /// When it is another, or a signal ended the program.
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}expected exit code {code}");
        self
    }

    /// Checks that the program ended by this signal, or with the exit code a shell would give for it.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[must_use]
    pub fn ends_by(self, signal: Signal) -> Self {
        let number = signal as i32;
        let by_signal = self.status.signal() == Some(number);
        let by_code = self.status.code() == Some(128 + number);
        assert!(by_signal || by_code, "{self}expected an end by {signal}");
        self
    }

    /// Checks that the run failed with an error line that has all these words, that every line on standard error is of the program's form,
    /// and that nothing like a panic is in it.
    ///
    /// # Panics
    /// When not.
    #[must_use]
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        let ended = self.exits(code);
        let errors: Vec<&str> =
            ended.stderr.lines().filter(|line| line.starts_with("kmer-leader: error: ")).collect();
        assert!(!errors.is_empty(), "{ended}expected a line \"kmer-leader: error: ...\"");
        let text = ended.stderr.replace('\n', " ");
        for word in words {
            assert!(text.contains(word), "{ended}expected {word:?} in the message");
        }
        assert!(!errors.iter().any(|line| line.ends_with('.')), "{ended}a full stop ends an error");
        assert!(!text.contains("panicked"), "{ended}a panic");
        ended
    }

    /// How many workers extracted k-mers, by the summary's table: worker, blocks, rows, k-mers, stripes and two times.
    #[must_use]
    pub fn busy_workers(&self) -> usize {
        let is_busy = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.len() == 7
                && words[0].parse::<u16>().is_ok()
                && words[3].parse().is_ok_and(|kmers: u64| kmers > 0)
        };
        self.stderr.lines().filter(is_busy).count()
    }

    /// Gives standard output as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap_or_else(|error| panic!("{self}{error}"))
    }

    /// Reads standard output as a report; see [`Report::parse`].
    ///
    /// # Panics
    /// When its form is not right.
    #[must_use]
    pub fn report(&self, k: usize, occur_bitlen: u32) -> Report {
        Report::parse(self.text(), k, occur_bitlen).unwrap_or_else(|error| panic!("{self}{error}"))
    }
}
