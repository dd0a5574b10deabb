//! psql sessions that stay open: statements through a pipe, transactions that are held.

use std::io::{BufRead, BufReader, Write};
use std::process::Child;

/// An open transaction, until it is dropped; see [`super::Server::hold_snapshot`].
#[derive(Debug)]
pub struct HeldSnapshot {
    pub(super) _session: Session,
}

/// A psql session; it ends, and its transaction with it, when this is dropped.
#[derive(Debug)]
pub struct Session {
    pub(super) child: Child,
}

impl Session {
    /// Sends statements without waiting for them.
    ///
    /// # Panics
    /// When the session does not listen.
    pub fn send(&mut self, statements: &str) {
        let input = self.child.stdin.as_mut().expect("its standard input");
        input.write_all(format!("{statements}\n").as_bytes()).expect("a session that listens");
    }

    /// Runs statements and waits until they are done.
    ///
    /// # Panics
    /// When the session ends.
    pub fn run(&mut self, statements: &str) {
        self.send(&format!("{statements}\n\\echo done"));
        let output = self.child.stdout.as_mut().expect("its standard output");
        // Nothing is lost in the buffer: what the session says comes before the mark, and behind it comes nothing.
        let said: Vec<String> =
            BufReader::new(output).lines().map_while(Result::ok).take_while(|line| line != "done").collect();
        assert!(self.child.try_wait().is_ok_and(|status| status.is_none()), "the session ended: {said:?}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
