//! Every way in which a run ends, and the one map from it to an exit code.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | the result is whole |
//! | 1 | an error; nothing was written |
//! | 2 | the command line is wrong |
//! | 3 | the result is whole but for damaged pages, tuples or runs of blocks that were skipped and counted |
//! | 4 | workers were lost beyond repair; nothing was written |
//! | 128 + n | died by signal n (130 for Ctrl-C, 143 for SIGTERM, 141 for a closed pipe), after cleaning up |

use kmer_worker::WorkError;
use nix::sys::signal::Signal;
use std::fmt::Display;
use std::path::Path;

/// Why a run ended without a whole result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Exit code 1.
    Error(Message),
    /// Exit code 2.
    Usage(Message),
    /// Exit code 4.
    Lost(Message),
    /// Died by a signal, or by writing into a closed pipe.
    Signal(Signal),
}

/// An error and perhaps a way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What is wrong: object, place, expected, found.
    pub error: String,
    /// What may help.
    pub hint: Option<String>,
}

/// What the system says when a process may open no more files (EMFILE).
const TOO_MANY_FILES: &str = "Too many open files (os error 24)";

/// How the error ends about blocks whose rows several workers share.
pub const HALF_COUNTED: &str = "and others have counted their part of the same rows";

/// Exit code of a wrong command line.
pub const EXIT_USAGE: i32 = 2;
/// Exit code of a result with skipped damage.
pub const EXIT_SKIPPED: i32 = 3;

impl Message {
    fn new(error: impl Display) -> Self {
        let error = error.to_string();
        let hint =
            error.contains(TOO_MANY_FILES).then(|| "allow this process more open files: ulimit -n".into());
        Self { error, hint }
    }
}

impl Failure {
    /// An error.
    pub fn error(error: impl Display) -> Self {
        Self::Error(Message::new(error))
    }

    /// A wrong command line.
    pub fn usage(error: impl Display) -> Self {
        Self::Usage(Message::new(error))
    }

    /// Workers lost beyond repair.
    pub fn lost(error: impl Display) -> Self {
        Self::Lost(Message::new(error))
    }

    /// An error of the system about a file.
    pub fn io(action: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::error(format!("could not {action} file {path:?}: {error}"))
    }

    /// The same failure with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Display) -> Self {
        if let Self::Error(m) | Self::Usage(m) | Self::Lost(m) = &mut self {
            m.hint = Some(hint.to_string());
        }
        self
    }

    /// The same failure, of which it is known `place` it has.
    #[must_use]
    pub fn within(mut self, place: &str) -> Self {
        if let Self::Error(m) | Self::Usage(m) | Self::Lost(m) = &mut self {
            m.error = format!("{place}: {}", m.error);
        }
        self
    }

    /// An error from the text that a worker left: the error, and on a second line perhaps a hint.
    pub fn from_report(text: &str) -> Self {
        match text.split_once("\nhint: ") {
            Some((error, hint)) => Self::error(error).hint(hint),
            None => Self::error(text),
        }
    }

    /// Whether the arena of a segment was too small, by whosoever's report.
    pub fn is_arena_full(&self) -> bool {
        self.message()
            .is_some_and(|m| m.error.starts_with("arena of segment ") && m.error.contains(" is full: "))
    }

    /// Whether rows cannot be left out, since others have counted a part of them.
    pub fn is_half_counted(&self) -> bool {
        self.message().is_some_and(|m| m.error.ends_with(HALF_COUNTED))
    }

    /// The exit code.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Error(_) => 1,
            Self::Usage(_) => EXIT_USAGE,
            Self::Lost(_) => 4,
            Self::Signal(signal) => 128 + *signal as i32,
        }
    }

    /// What is to be said, if anything.
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Error(m) | Self::Usage(m) | Self::Lost(m) => Some(m),
            Self::Signal(_) => None,
        }
    }
}

impl From<WorkError> for Failure {
    fn from(e: WorkError) -> Self {
        Self::from_report(&e.report())
    }
}

impl From<shm_layout::Error> for Failure {
    fn from(e: shm_layout::Error) -> Self {
        WorkError::from(e).into()
    }
}

impl From<relation::Error> for Failure {
    fn from(e: relation::Error) -> Self {
        WorkError::from(e).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_hints() {
        assert_eq!(Failure::error("x").exit_code(), 1);
        assert_eq!(Failure::usage("x").exit_code(), 2);
        assert_eq!(Failure::lost("x").exit_code(), 4);
        assert_eq!(Failure::Signal(Signal::SIGINT).exit_code(), 130);
        assert_eq!(Failure::Signal(Signal::SIGTERM).exit_code(), 143);
        let message = Message { error: "page bad".into(), hint: Some("look".into()) };
        assert_eq!(Failure::from_report("page bad\nhint: look"), Failure::Error(message));
    }
}
