//! Files that would take the place of others: two outputs in one file, and an output in the place of what is read.
//!
//! A relation is more than the file that was named: its segments and forks lie beside it, and the sidecar that says what its columns are. So whatever
//! would be one of them is refused, also where none is there yet: the next reader would take it for one.

use crate::failure::Failure;
use kmer_worker::feed::STDIN;
use kmer_worker::job::{Job, path_of};
use relation::Sidecar;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What stands for standard output where a file is named.
pub const STDOUT: &str = "-";

/// Something that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// The first file of a relation, and so all that belong to it.
    Relation(PathBuf),
    /// What standard input is, which may be a file.
    Stdin,
}

/// All that a job reads.
pub fn files_of(job: &Job) -> Vec<Input> {
    let mut files = Vec::new();
    for leaf in &job.leaves {
        let path = path_of(&leaf.path).to_path_buf();
        files.push(match leaf.sequence {
            _ if leaf.path == STDIN => Input::Stdin,
            Some(_) => Input::File(path),
            None => Input::Relation(path),
        });
        files.extend(leaf.toast.iter().map(|toast| Input::Relation(path_of(&toast.path).to_path_buf())));
    }
    files
}

impl Input {
    /// Whether a file of that name, which is the whole path, would be one of its files.
    pub fn has(&self, file: &Path) -> bool {
        match self {
            Self::File(path) => full(path) == file,
            Self::Relation(path) => {
                let (first, sidecar) = (full(path), full(&Sidecar::path_for(path)));
                first == file || first.parent() == file.parent() && (file == sidecar || is_part(&first, file))
            }
            Self::Stdin => {
                let identity =
                    |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
                let stdin = identity(Path::new("/proc/self/fd/0"));
                stdin.is_some() && stdin == identity(file)
            }
        }
    }
}

/// Whether `file`, beside a relation's `first`, bears the name of a segment of it, or of one of its forks.
fn is_part(first: &Path, file: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
    let (first, file) = (name(first), name(file));
    let Some(mut rest) = file.strip_prefix(&first[..]) else { return false };
    // relpath.c: forkNames.
    for fork in [&b"_fsm"[..], b"_vm", b"_init"] {
        rest = rest.strip_prefix(fork).unwrap_or(rest);
    }
    match rest.split_first() {
        Some((b'.', number)) => !number.is_empty() && number.iter().all(u8::is_ascii_digit),
        other => other.is_none(),
    }
}

/// The path of a file behind all symbolic links, also of one that is not there yet.
pub fn full(path: &Path) -> PathBuf {
    if let Ok(full) = path.canonicalize() {
        return full;
    }
    let full = std::path::absolute(path).unwrap_or_else(|_| path.into());
    match (full.parent().map(Path::canonicalize), full.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => full,
    }
}

/// Refuses two outputs in one file, and an output that would take the place of what is read.
///
/// # Errors
/// Exit code 2, naming the two.
pub fn refuse_same(inputs: &[Input], outputs: &[(&str, Option<&Path>)]) -> Result<(), Failure> {
    let mut seen: Vec<(&str, PathBuf)> = Vec::new();
    for (option, path) in outputs.iter().filter_map(|(option, path)| Some((*option, (*path)?))) {
        // A device may be written to twice.
        let is_special = std::fs::metadata(path).is_ok_and(|meta| !meta.is_file());
        if is_special && path != Path::new(STDOUT) {
            continue;
        }
        let full = if path == Path::new(STDOUT) { path.into() } else { full(path) };
        let refuse = |other: &str| {
            Err(Failure::usage(format!("{option} {path:?}: expected a file of its own, found {other}")))
        };
        if let Some((other, _)) = seen.iter().find(|(_, known)| *known == full) {
            return refuse(&format!("that of {other}"));
        }
        if let Some(input) = inputs.iter().find(|input| path != Path::new(STDOUT) && input.has(&full)) {
            return refuse(&match input {
                Input::File(_) | Input::Stdin => "that of the input".into(),
                Input::Relation(first) => format!("one of relation {first:?}, which is read"),
            });
        }
        seen.push((option, full));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_output_is_one_file() {
        let dash = Some(Path::new(STDOUT));
        assert!(refuse_same(&[Input::Stdin], &[("-o", dash), ("--dense", None)]).is_ok());
        assert!(refuse_same(&[], &[("-o", dash), ("--dense", dash)]).is_err());
    }

    #[test]
    fn a_relation_is_more_than_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().canonicalize().expect("it is there");
        let relation = Input::Relation(dir.join("24601"));
        for name in ["24601", "24601.1", "24601.17", "24601_vm", "24601_fsm.2", "24601.schema"] {
            assert!(relation.has(&dir.join(name)), "{name}");
        }
        for name in ["24601.tsv", "24601.", "24601.1x", "246011", "2460", "24601.toast", "24601_vmx"] {
            assert!(!relation.has(&dir.join(name)), "{name}");
        }
        let file = Input::File(dir.join("x.fa"));
        assert!(file.has(&dir.join("x.fa")) && !file.has(&dir.join("x.fa.1")));
        // By another way, and where nothing is yet.
        std::fs::create_dir(dir.join("real")).expect("made");
        std::os::unix::fs::symlink(dir.join("real"), dir.join("link")).expect("made");
        assert_eq!(full(&dir.join("link/new")), dir.join("real/new"));
        let same = [("-o", Some(dir.join("link/new"))), ("--dense", Some(dir.join("real/new")))];
        let same: Vec<_> = same.iter().map(|(option, path)| (*option, path.as_deref())).collect();
        assert!(refuse_same(&[], &same).is_err() && refuse_same(&[], &same[..1]).is_ok());
    }
}
