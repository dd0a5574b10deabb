//! `kmer-leader segments`: lists this user's segments, says what each is and what to do about it, and removes them.

use crate::failure::Failure;
use clap::Args;
use kmer_pin::About;
use shm_layout::pin::{PIN_PREFIX, exists, pin_name};
use shm_layout::place::{name_in, path_of};
use shm_layout::takeover::{self, Listed, State, list, sweep};
use std::path::{Path, PathBuf};

/// Options of `segments`.
#[derive(Debug, Args)]
pub struct SegmentsArgs {
    /// Those in this directory instead of /dev/shm
    #[arg(long, value_name = "DIR")]
    pub segment_dir: Option<PathBuf>,
    /// Remove segments that nobody owns: what killed runs left, resumable ones included; pinned ones stay
    #[arg(long)]
    pub gc: bool,
    /// Remove this segment: a pinned one, by its name, or one that nobody owns
    #[arg(long, value_name = "NAME")]
    pub remove: Vec<String>,
}

/// Lists, or removes and says what.
///
/// # Errors
/// When shared memory cannot be listed; when a segment that was named is in use or is none.
pub fn run(args: &SegmentsArgs) -> Result<String, Failure> {
    let (mut text, dir) = (String::new(), args.segment_dir.as_deref());
    let listed = list(dir)?;
    for name in &args.remove {
        text += &remove(name, dir, &listed)?;
    }
    if args.gc {
        sweep(dir, true)?.iter().for_each(|name| text += &format!("removed {name}\n"));
    } else if args.remove.is_empty() {
        text += &format!("{:<37} {:>9} {:>8} {:>12}\n", "segment", "state", "leader", "bytes");
        for found in &listed {
            let Listed { name, state, leader, resident, .. } = found;
            text += &format!("{name:<37} {state:>9} {leader:>8} {resident:>12}\n    {}\n", note(found));
        }
    }
    Ok(text)
}

/// The segment of a run that a user calls `typed`.
///
/// # Errors
/// When there is no such name, or it is a pinned result's, which is no run.
pub(crate) fn of_a_run(typed: &str, dir: Option<&Path>) -> Result<String, Failure> {
    let name = name_in(dir, typed)?;
    let pinned = name.starts_with(PIN_PREFIX)
        || dir.is_none() && !path_of(&name).exists() && pin_name(typed).is_ok_and(|pinned| exists(&pinned));
    if !pinned {
        return Ok(name);
    }
    let failure = Failure::error(format!("segment {typed:?}: expected one of a run, found a pinned result"));
    Err(failure.hint("kmer-leader lookup, dump and inspect read it"))
}

fn remove(name: &str, dir: Option<&Path>, listed: &[Listed]) -> Result<String, Failure> {
    let (pinned, typed) = (pin_name(name).ok(), name_in(dir, name)?);
    let found = listed.iter().find(|found| found.name == typed || Some(&found.name) == pinned.as_ref());
    let Some(found) = found else {
        return Err(Failure::error(format!("segment {name:?}: expected one of yours, found none")));
    };
    let full = &found.name;
    let may_go = |state| {
        matches!(state, State::Pinned | State::Orphan | State::Resumable)
            || (state == State::Foreign && full.starts_with(PIN_PREFIX))
    };
    let state = if may_go(found.state) { takeover::remove(full, may_go)? } else { Some(found.state) };
    match state {
        None => Ok(format!("removed {full}\n")),
        Some(state) => {
            Err(Failure::error(format!("segment {name:?}: expected one that nobody uses, found it {state}")))
        }
    }
}

/// What a segment is, and what to do about it.
fn note(found: &Listed) -> String {
    let name = &found.name;
    match found.state {
        State::Running => format!(
            "a run is under way; watch it with: kmer-leader status {name}; look into it with: kmer-leader inspect {name}"
        ),
        State::Resumable => {
            format!("its leader died; go on with: kmer-leader resume {name}, or remove it with --gc")
        }
        State::Pinned => pinned(name),
        State::Orphan => "left behind by a leader that died; the next run removes it, or --gc".into(),
        State::Foreign => {
            format!("no segment of this version; if you know it: rm {}", path_of(name).display())
        }
    }
}

fn pinned(name: &str) -> String {
    let bare = name.strip_prefix(PIN_PREFIX).unwrap_or(name);
    match kmer_pin::about(name) {
        Ok(About { k, entries }) => format!(
            "{entries} k-mers of k={k}, kept by --pin {bare}; ask with: kmer-leader lookup {bare} KMER; remove with: --remove {bare}"
        ),
        Err(kmer_pin::Error::Segment(e @ shm_layout::Error::Os { .. })) => {
            format!("not to be looked at now ({e})")
        }
        Err(e) => format!("damaged ({e}); remove it with: --remove {bare}"),
    }
}
