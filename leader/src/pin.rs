//! `--pin NAME`: keeps the result in shared memory, for look-ups by any number of processes; the bytes are [`kmer_pin`]'s to say.
//!
//! The name is looked at before the work begins. The segment is written when the result is known, under a random name, reserved to its last byte, and
//! gets its own name just before the other outputs get theirs. Whatever fails after that removes it again; a SIGKILL before it leaves a
//! segment that nobody can open and the next run removes.

use crate::cli::AnalysisArgs;
use crate::failure::Failure;
use crate::format::facts::Facts;
use crate::limits;
use crate::report::Entries;
use clap::Args;
use kmer_pin::{Ready, Spec, Writer};
use shm_layout::inject::{Point, at};
use shm_layout::pin::pin_name;
use shm_layout::takeover::sweep;

/// Options of pinning.
#[derive(Clone, Debug, Default, Args)]
pub struct PinArgs {
    /// Keep what is reported in shared memory as NAME, for 'lookup' and 'dump', until 'segments --remove NAME'
    #[arg(long, value_name = "NAME", value_parser = checked, help_heading = "Output")]
    pub pin: Option<String>,
}

fn checked(name: &str) -> Result<String, String> {
    pin_name(name)
        .map(|_| name.into())
        .map_err(|_| "expected 1 to 200 letters, digits, '.', '_' and '-'".into())
}

/// A result that is to be pinned.
pub struct Pin {
    name: String,
    replace: bool,
    ready: Option<Ready>,
    named: bool,
}

impl Pin {
    /// Looks whether the name is free.
    ///
    /// # Errors
    /// When it is not, and is not to be replaced.
    pub fn begin(args: &AnalysisArgs) -> Result<Option<Self>, Failure> {
        let database = &args.database;
        let Some(name) = args.pin.pin.clone() else {
            if database.replace && !database.save {
                let text = "--replace: expected --save or --pin with it, found neither";
                return Err(Failure::usage(text));
            }
            return Ok(None);
        };
        let _ = sweep(None, false);
        if !database.replace && kmer_pin::exists(&name) {
            return Err(taken(shm_layout::Error::PinExists { name: pin_name(&name)? }));
        }
        Ok(Some(Self { name, replace: database.replace, ready: None, named: false }))
    }

    /// Writes the result, which has the k-mers in more than `threshold` rows, under a name that nobody knows.
    ///
    /// # Errors
    /// No room.
    pub fn write(&mut self, facts: &Facts, threshold: u64, entries: &Entries) -> Result<(), Failure> {
        let spec = Spec {
            k: facts.k,
            occur_bitlen: facts.occur_bitlen,
            canonical: facts.canonical,
            entries: entries.count,
            total_rows: facts.total_rows,
            threshold: Some(threshold).filter(|t| *t > 0),
            facts: facts.report_head(),
        };
        if let Some(left) = limits::cgroup_left().filter(|left| *left < spec.bytes()) {
            let text = format!(
                "memory: expected {} bytes for the pinned result, found {left} left in the control group",
                spec.bytes()
            );
            return Err(Failure::error(text).hint("report fewer k-mers, or use --dense FILE"));
        }
        let mut writer = Writer::create(&spec).map_err(failure)?;
        entries.each(&mut |range| {
            range.iter().try_for_each(|(key, count)| writer.put(*key, *count).map_err(failure))
        })?;
        self.ready = Some(writer.finish().map_err(failure)?);
        Ok(())
    }

    /// Gives the segment its name.
    ///
    /// # Errors
    /// When the name was taken in the meantime.
    pub fn publish(&mut self) -> Result<(), Failure> {
        if let Some(ready) = self.ready.take() {
            ready.pin(&self.name, self.replace).map_err(failure)?;
            self.named = true;
            at(Point::PinNamed)?;
        }
        Ok(())
    }

    /// Leaves the segment to its users.
    pub fn keep(mut self) {
        self.named = false;
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if self.named {
            let _ = kmer_pin::remove(&self.name);
        }
    }
}

fn taken(e: shm_layout::Error) -> Failure {
    Failure::error(e).hint("choose another name, put this result in its place with --replace, or remove it with kmer-leader segments --remove NAME")
}

/// What went wrong with a pinned segment, and a way out.
pub fn failure(e: kmer_pin::Error) -> Failure {
    match e {
        kmer_pin::Error::Segment(e @ shm_layout::Error::PinExists { .. }) => taken(e),
        kmer_pin::Error::Segment(e) => e.into(),
        other => Failure::error(other),
    }
}
