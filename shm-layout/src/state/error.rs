//! The run's first error: its text under the mutex, its flag behind it.

use super::{ERROR_BYTES, ERROR_LEN, ERROR_OCCURRED, ERROR_SLOT, ERROR_TEXT, SharedState};
use crate::error::Result;
use crate::inject::{Point, at};
use crate::sync::Ordering;

/// The first error of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedError {
    /// Slot of the worker that met it.
    pub slot: u16,
    /// Its text.
    pub message: String,
}

impl SharedState {
    /// Records the run's first error; later ones are dropped (I7). Text first, then its length, then the flag. When the mutex cannot be had
    /// the text in the slot has to do: the leader reads it when the worker has ended.
    ///
    /// # Errors
    /// [`Error::Lock`](crate::error::Error::Lock).
    pub fn record_error(&self, slot: u16, message: &str) -> Result<()> {
        let Some(_guard) = self.lock()? else { return Ok(()) };
        at(Point::ErrorLocked)?;
        let flag = self.half(ERROR_OCCURRED)?;
        if flag.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        let text = cut(message, ERROR_BYTES);
        self.segment.map().write(self.at + ERROR_TEXT, text.as_bytes())?;
        self.half(ERROR_LEN)?.store(text.len() as u32, Ordering::Relaxed);
        self.half(ERROR_SLOT)?.store(slot.into(), Ordering::Relaxed);
        at(Point::ErrorText)?;
        flag.store(1, Ordering::Release);
        at(Point::ErrorFlag)
    }

    /// True when a worker failed (Postgres's `worker_error_occurred`).
    ///
    /// # Errors
    /// None for an attached state.
    pub fn error_occurred(&self) -> Result<bool> {
        Ok(self.half(ERROR_OCCURRED)?.load(Ordering::Acquire) != 0)
    }

    /// The run's first error, if there is one.
    ///
    /// # Errors
    /// None for an attached state; damaged text comes with its odd bytes replaced.
    pub fn error(&self) -> Result<Option<SharedError>> {
        if !self.error_occurred()? {
            return Ok(None);
        }
        let len = (self.half(ERROR_LEN)?.load(Ordering::Relaxed) as usize).min(ERROR_BYTES);
        let mut text = vec![0; len];
        self.segment.map().read(self.at + ERROR_TEXT, &mut text)?;
        let slot = self.half(ERROR_SLOT)?.load(Ordering::Relaxed) as u16;
        Ok(Some(SharedError { slot, message: printable(&text) }))
    }
}

/// At most `limit` bytes of `text`, whole characters only.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Text out of shared memory with nothing in it that a terminal would obey.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}
