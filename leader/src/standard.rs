//! Standard input and output, for whoever reads or writes them: a stream that was closed is an error, not an empty file.

use crate::failure::Failure;
use shm_layout::process::was_closed;
use std::fs::File;
use std::io::Error;
use std::os::fd::AsFd;

const CLOSED: &str = "expected it to be open, found it closed";

/// A descriptor of standard input of its own.
///
/// # Errors
/// When this process was started without, or there are no file descriptors left.
pub fn input() -> Result<File, Error> {
    if was_closed(0) {
        return Err(Error::other(CLOSED));
    }
    std::io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

/// A descriptor of standard output of its own.
///
/// # Errors
/// When this process was started without, or there are no file descriptors left.
pub fn output() -> Result<File, Failure> {
    if was_closed(1) {
        let failure = Failure::error(format!("standard output: {CLOSED}"));
        return Err(failure.hint("give it a place: > FILE"));
    }
    let copy = std::io::stdout().as_fd().try_clone_to_owned();
    copy.map(File::from).map_err(|e| crate::output::stdout_error(&e))
}
