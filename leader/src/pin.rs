//! `--pin NAME`: keeps the result in shared memory, for look-ups by any number of processes; the bytes are [`kmer_pin`]'s to say.
//!
//! The name is looked at before the work begins. The segment is written when the result is known, under a random name, reserved to its last byte, and
//! gets its own name just before the other outputs get theirs. Whatever fails after that takes the name back, and gives it to the result that had it
//! before; a SIGKILL before it leaves a segment that nobody can open and the next run removes. A run that was killed after it and is
//! resumed finds its own result under the name, and lets it be.

use crate::cli::AnalysisArgs;
use crate::failure::Failure;
use crate::format::facts::Facts;
use crate::limits;
use crate::report::Entries;
use clap::Args;
use kmer_pin::{Pinned, Provisional, Ready, Spec, Writer};
use shm_layout::inject::{Point, at};
use shm_layout::pin::pin_name;
use shm_layout::place::path_of;
use shm_layout::takeover::sweep;
use std::os::unix::fs::MetadataExt;

/// Options of pinning.
#[derive(Clone, Debug, Default, Args)]
pub struct PinArgs {
    /// Keep what is reported in shared memory as NAME, for 'lookup' and 'dump', until 'segments --remove NAME'
    #[arg(long, value_name = "NAME", value_parser = checked, help_heading = "Output")]
    pub pin: Option<String>,
}

fn checked(name: &str) -> Result<String, String> {
    match pin_name(name) {
        Ok(_) => Ok(name.into()),
        Err(_) => Err("expected 1 to 200 letters, digits, '.', '_' and '-', the first of them no '-'".into()),
    }
}

/// A result that is to be pinned.
pub struct Pin {
    name: String,
    replace: bool,
    resumed: bool,
    ready: Option<Ready>,
    named: Option<Provisional>,
}

impl Pin {
    /// Looks whether the name is free, unless the run is `resumed`: then its own result may have it.
    ///
    /// # Errors
    /// When it is not, and is not to be replaced.
    pub fn begin(args: &AnalysisArgs, resumed: bool) -> Result<Option<Self>, Failure> {
        let database = &args.database;
        let Some(name) = args.pin.pin.clone() else {
            if database.replace && !database.save {
                let text = "--replace: expected --save or --pin with it, found neither";
                return Err(Failure::usage(text));
            }
            return Ok(None);
        };
        let _ = sweep(None, false);
        if !database.replace && !resumed && kmer_pin::exists(&name) {
            return Err(taken(shm_layout::Error::PinExists { name: pin_name(&name)? }));
        }
        Ok(Some(Self { name, replace: database.replace, resumed, ready: None, named: None }))
    }

    /// Writes the result, which has the k-mers in more than `threshold` rows, or some of them (`narrowed`), under a name that nobody knows.
    ///
    /// # Errors
    /// No room.
    pub fn write(
        &mut self,
        facts: &Facts,
        (threshold, narrowed): (u64, bool),
        entries: &Entries,
    ) -> Result<(), Failure> {
        let spec = Spec {
            k: facts.k,
            occur_bitlen: facts.occur_bitlen,
            canonical: facts.canonical,
            entries: entries.count,
            total_rows: facts.total_rows,
            threshold: Some(threshold).filter(|t| *t > 0 || narrowed),
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
        let Some(ready) = self.ready.take() else { return Ok(()) };
        if self.resumed && !self.replace && kmer_pin::exists(&self.name) {
            // The one that this run gave the name to before it was resumed has the same k-mers, and may stay.
            let found = Pinned::open(&self.name).map_err(failure)?;
            if !ready.equals(&found).map_err(failure)? {
                let hint = "it is another result; remove it with kmer-leader segments --remove NAME, and resume again";
                let name = pin_name(&self.name)?;
                return Err(Failure::error(shm_layout::Error::PinExists { name }).hint(hint));
            }
        } else {
            self.named = Some(ready.pin_for_now(&self.name, self.replace).map_err(failure)?);
        }
        Ok(at(Point::PinNamed)?)
    }

    /// Leaves the segment to its users.
    pub fn keep(self) {
        if let Some(named) = self.named {
            named.keep();
        }
    }
}

fn taken(e: shm_layout::Error) -> Failure {
    let is_ours = match &e {
        shm_layout::Error::PinExists { name } => std::fs::symlink_metadata(path_of(name))
            .is_ok_and(|found| found.is_file() && found.uid() == nix::unistd::geteuid().as_raw()),
        _ => true,
    };
    if !is_ours {
        return Failure::error(e).hint("it is no segment of yours: choose another name");
    }
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
