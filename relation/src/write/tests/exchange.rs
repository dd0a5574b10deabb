//! What is left of an old relation and a new one by a writer that dies, or fails, at each change of a name.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use tempfile::TempDir;

use super::*;
use crate::write::exchange::{Exchange, Step};

type Files = BTreeMap<String, Vec<u8>>;

fn files(directory: &Path) -> Files {
    let read = |name: String| (name.clone(), std::fs::read(directory.join(name)).unwrap());
    names(directory).into_iter().map(read).collect()
}

/// A relation that depends on `seed`, in segments of one block; five rows fill one, and each row that is long a bit less than one of TOAST.
fn ready(path: &Path, seed: u8, rows: u8, long: bool, options: &WriteOptions) -> Ready {
    let options = WriteOptions { blocks_per_segment: 1, ..options.clone() };
    let mut writer = HeapWriter::create(path, &options).unwrap();
    let text = seed.to_string().repeat(1500);
    for row in 0..rows {
        let bits = bit_string(if long { 40_000 } else { 8 }, seed ^ row);
        writer.insert(&[Field::Text(&text), bits.field()]).unwrap();
    }
    let sidecar = Sidecar {
        columns: format!("text{seed} text, bits dna2"),
        column: None,
        toast: long.then(|| "rel.toast".into()),
        checksums: true,
    };
    writer.ready::<WriteError>(|_| Ok(Some(sidecar))).unwrap()
}

/// A directory with the old relation, if there is to be one, and the new one ready to take its place.
fn begun(old: Option<(u8, bool)>, new: (u8, bool), options: &WriteOptions) -> (TempDir, Exchange) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rel");
    if let Some((rows, long)) = old {
        ready(&path, 1, rows, long, options).publish().unwrap();
    }
    let exchange = ready(&path, 2, new.0, new.1, options).exchange;
    (directory, exchange)
}

/// The sets of files before and after; none before where there is no old relation.
fn before_and_after(old: Option<(u8, bool)>, new: (u8, bool), options: &WriteOptions) -> [Files; 2] {
    let (directory, exchange) = begun(old, new, options);
    let before = visible(&files(directory.path()));
    exchange.publish().unwrap();
    [before, files(directory.path())]
}

/// Drops what a process that dies loses, and leaves what it leaves.
fn die(exchange: Exchange) {
    let Exchange { names, new, .. } = exchange;
    drop(new);
    std::mem::forget(names);
}

fn visible(files: &Files) -> Files {
    files.iter().filter(|(name, _)| !name.starts_with('.')).map(|(n, b)| (n.clone(), b.clone())).collect()
}

#[test]
fn whoever_dies_at_any_change_of_a_name_leaves_the_old_or_the_new_or_nothing() {
    let mut seen = [0; 3];
    for unnamed in [true, false] {
        for old in [None, Some((1, false)), Some((6, true))] {
            for new in [(1, false), (8, true)] {
                let options = WriteOptions { unnamed, overwrite: true, ..Default::default() };
                let [before, after] = before_and_after(old, new, &options);
                for taken in 0.. {
                    let (directory, exchange) = begun(old, new, &options);
                    let path = directory.path().join("rel");
                    let steps = exchange.steps();
                    steps.iter().take(taken).for_each(|step| exchange.take(step).unwrap());
                    die(exchange);
                    let left = files(directory.path());
                    let is_new = left.get("rel") == after.get("rel");
                    match left.contains_key("rel") {
                        false => seen[0] += 1,
                        true if is_new => {
                            assert_eq!(visible(&left), after);
                            seen[2] += 1;
                        }
                        true => {
                            assert_eq!(visible(&left), before, "{taken} of {steps:?}");
                            seen[1] += 1;
                        }
                    }
                    // The next writer puts in order what it finds, with or without the right to replace it.
                    let overwrite = taken % 2 == 0;
                    let options = WriteOptions { overwrite, blocks_per_segment: 1, ..options.clone() };
                    let next = HeapWriter::create(&path, &options);
                    let expected = if is_new { &after } else { &before };
                    assert_eq!(next.is_ok(), overwrite || expected.is_empty());
                    drop(next);
                    assert_eq!(&files(directory.path()), expected, "{taken} of {steps:?}");
                    if taken > steps.len() {
                        break;
                    }
                }
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
}

#[test]
fn what_fails_at_any_change_of_a_name_is_undone() {
    for (old, new) in [(None, (4, true)), (Some((6, true)), (4, true)), (Some((1, false)), (8, true))] {
        let options = WriteOptions { overwrite: true, ..Default::default() };
        let [before, _] = before_and_after(old, new, &options);
        for failing in 0.. {
            let (directory, exchange) = begun(old, new, &options);
            let steps = exchange.steps();
            let Some(step) = steps.get(failing) else { break };
            steps.iter().take(failing).for_each(|step| exchange.take(step).unwrap());
            // A directory is in the way.
            let to = match step {
                Step::Name(index) => exchange.names.temporary(&exchange.new[*index].target),
                Step::Rename(_, to) => to.clone(),
            };
            std::fs::create_dir(&to).unwrap();
            assert!(exchange.take(step).is_err());
            std::fs::remove_dir(&to).unwrap();
            drop(exchange);
            assert_eq!(files(directory.path()), before, "{step:?}");
        }
    }
}

#[test]
fn new_files_have_the_modes_of_those_that_they_replace() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rel");
    let mode = |name: &str| std::fs::metadata(directory.path().join(name)).unwrap().mode() & 0o777;
    let set = |name: &str, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(directory.path().join(name), permissions).unwrap();
    };
    let options = WriteOptions { overwrite: true, ..Default::default() };
    ready(&path, 1, 1, false, &options).publish().unwrap();
    set("rel", 0o600);
    set("rel.schema", 0o640);
    ready(&path, 2, 8, true, &options).publish().unwrap();
    assert_eq!((mode("rel"), mode("rel.schema")), (0o600, 0o640));
    // What there was none of is no more public than the rest.
    assert_eq!((mode("rel.toast"), mode("rel.1"), mode("rel.toast.1")), (0o600, 0o600, 0o600));
}

#[test]
fn what_no_relation_can_have_had_is_refused_before_anything_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rel");
    let options = WriteOptions { overwrite: true, ..Default::default() };
    ready(&path, 1, 11, true, &options).publish().unwrap();
    // Behind the last segment, which is full, there could be one more.
    let [heap, toast] =
        ["rel", "rel.toast"].map(|name| naive::all_segments(&directory.path().join(name)).len() / 8192);
    for stray in
        [format!("rel.toast.{}", toast + 1), format!("rel.toast.{}", toast + 5), format!("rel.{}", heap + 1)]
    {
        let stray = directory.path().join(stray);
        std::fs::write(&stray, "mine").unwrap();
        let before = files(directory.path());
        let options = WriteOptions { blocks_per_segment: 1, ..options.clone() };
        let mut writer = HeapWriter::create(&path, &options);
        if let Ok(writer) = &mut writer {
            writer.insert(&[bit_string(40_000, 1).field()]).unwrap_or_default();
        }
        let refused = writer.and_then(HeapWriter::finish).unwrap_err();
        let text = format!("file {stray:?}: expected none behind the relation's last segment, found one");
        assert_eq!(refused.to_string(), text);
        assert_eq!(files(directory.path()), before);
        std::fs::remove_file(&stray).unwrap();
    }
}

#[test]
fn what_is_no_file_is_refused_before_anything_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rel");
    for (name, found) in
        [("rel", "a directory"), ("rel.toast", "a symbolic link"), ("rel.schema", "a directory")]
    {
        let at = directory.path().join(name);
        match found {
            "a directory" => std::fs::create_dir(&at).unwrap(),
            _ => std::os::unix::fs::symlink("elsewhere", &at).unwrap(),
        }
        for overwrite in [true, false] {
            let options = WriteOptions { overwrite, blocks_per_segment: 1, ..Default::default() };
            let refused = HeapWriter::create(&path, &options).unwrap_err().to_string();
            let is_found =
                refused.ends_with(&format!("{name}\": exists already: expected a file, found {found}"));
            assert!(is_found || !overwrite && refused.ends_with("exists already"), "{refused}");
        }
        std::fs::remove_dir(&at).or_else(|_| std::fs::remove_file(&at)).unwrap();
    }
}

#[test]
fn empty_segments_that_truncation_left_are_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rel");
    let options = WriteOptions { overwrite: true, blocks_per_segment: 3, ..Default::default() };
    write(&path, &options, &[vec![Owned::Int(7)]]);
    std::fs::write(directory.path().join("rel.1"), "").unwrap();
    std::fs::write(directory.path().join("rel.2"), "").unwrap();
    write(&path, &options, &[vec![Owned::Int(8)]]);
    assert_eq!(names(directory.path()), ["rel"]);
}

#[test]
fn a_name_that_is_too_long_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x".repeat(250));
    let refused = HeapWriter::create(&path, &WriteOptions::default()).unwrap_err();
    assert!(refused.to_string().contains("File name too long"), "{refused}");
    assert_eq!(names(directory.path()), [""; 0]);
}

#[test]
fn what_a_living_writer_has_named_is_left_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rel");
    let options = WriteOptions { unnamed: false, ..Default::default() };
    let first = HeapWriter::create(&path, &options).unwrap();
    let second = HeapWriter::create(&path, &options).unwrap();
    assert_eq!(names(directory.path()).len(), 2);
    drop(second);
    first.finish().unwrap();
    assert_eq!(names(directory.path()), ["rel"]);
}
