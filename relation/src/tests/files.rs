//! Files as they are found: segments, gaps, changes, and files that are something else.

use std::path::{Path, PathBuf};

use super::build::{TestPage, row};
use crate::error::Result;
use crate::file::segment_path;
use crate::{ErrorKind, MappedRelation, RelationFile};

/// A page that can be told from others by its row.
fn page(n: i32) -> Vec<u8> {
    TestPage::with(&[row(n, 8, &[n as u8])]).sealed(n as u32)
}

fn write(dir: &Path, name: &str, pages: std::ops::Range<i32>) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, pages.flat_map(page).collect::<Vec<_>>()).unwrap();
    path
}

/// The text of a refusal without the directory.
fn refusal<T>(dir: &Path, opened: Result<T>) -> String {
    let text = opened.err().expect("refused").to_string();
    text.replace(&format!("{}/", dir.display()), "")
}

fn foreign(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rel");
    std::fs::write(&path, bytes).unwrap();
    refusal(dir.path(), RelationFile::open(&path))
}

#[test]
fn segments_are_one_relation() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "rel", 0..3);
    write(dir.path(), "rel.1", 3..6);
    write(dir.path(), "rel.2", 6..7);
    let file = RelationFile::open_with_segment_size(&path, 3).unwrap();
    assert_eq!((file.total_blocks(), file.fingerprint().bytes), (7, 7 * 8192));
    let mut all = vec![0; 7 * 8192];
    file.read_blocks(0, &mut all).unwrap();
    assert_eq!(all, (0..7).flat_map(page).collect::<Vec<_>>());
    let mut some = vec![0; 3 * 8192];
    file.read_blocks(2, &mut some).unwrap();
    assert_eq!(some, (2..5).flat_map(page).collect::<Vec<_>>());
    let mapped = MappedRelation::open_with_segment_size(&path, 3).unwrap();
    for n in 0..7 {
        assert_eq!(mapped.page(n as u32).unwrap(), page(n));
    }
    assert_eq!(mapped.fingerprint(), file.fingerprint());
    let place = format!("relation {path:?}: blocks asked for: expected");
    assert_eq!(mapped.page(7).unwrap_err().to_string(), format!("{place} a block below 7, found 7"));
    for (first, blocks) in [(7, 1), (5, 3), (u32::MAX, 1)] {
        let mut buf = vec![0; blocks * 8192];
        let text = file.read_blocks(first, &mut buf).unwrap_err().to_string();
        assert!(text.starts_with(&format!("{place} whole blocks of the relation, found block ")), "{text}");
    }
    assert!(file.read_blocks(0, &mut [0; 100]).is_err());
    file.read_blocks(7, &mut []).unwrap();
}

#[test]
fn an_empty_relation_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "rel", 0..0);
    assert_eq!(RelationFile::open(&path).unwrap().total_blocks(), 0);
    assert_eq!(MappedRelation::open(&path).unwrap().total_blocks(), 0);
    // Truncation leaves empty segments behind, also behind one that is exactly full.
    let path = write(dir.path(), "cut", 0..2);
    write(dir.path(), "cut.1", 0..0);
    assert_eq!(RelationFile::open_with_segment_size(&path, 3).unwrap().total_blocks(), 2);
    assert_eq!(RelationFile::open_with_segment_size(&path, 2).unwrap().total_blocks(), 2);
    assert_eq!(MappedRelation::open_with_segment_size(&path, 2).unwrap().page(1).unwrap(), page(1));
}

#[test]
fn segments_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "rel", 0..2);
    write(dir.path(), "rel.1", 2..4);
    let open = |blocks| RelationFile::open_with_segment_size(&path, blocks);
    assert_eq!(
        refusal(dir.path(), open(3)),
        "relation \"rel\": segment \"rel\": expected 3 blocks as another segment follows, found 2"
    );
    assert_eq!(
        refusal(dir.path(), open(1)),
        "relation \"rel\": segment \"rel\": expected at most 1 blocks, found 2"
    );
    assert_eq!(open(2).unwrap().total_blocks(), 4);
    std::fs::rename(dir.path().join("rel.1"), dir.path().join("rel.2")).unwrap();
    assert_eq!(
        refusal(dir.path(), open(2)),
        "relation \"rel\": segment \"rel.1\" is missing, but \"rel.2\" is there"
    );
}

#[test]
fn files_that_are_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| refusal(dir.path(), RelationFile::open(&dir.path().join(name)));
    assert_eq!(open("no"), "relation \"no\": cannot open: No such file or directory (os error 2)");
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    assert_eq!(open("sub"), "relation \"sub\": expected a file, found a directory");
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    assert_eq!(
        open("socket"),
        "relation \"socket\": expected a regular file, found a pipe, socket or device"
    );
    for (name, what) in [("16384_fsm", "free space map"), ("16384_vm", "visibility map")] {
        write(dir.path(), name, 0..1);
        assert_eq!(
            open(name),
            format!("relation {name:?}: expected a heap relation, found the {what} of relation \"16384\"")
        );
    }
    write(dir.path(), "my_vm", 0..1);
    assert!(RelationFile::open(&dir.path().join("my_vm")).is_ok());
    assert_eq!(
        foreign(&[0; 8191]),
        "relation \"rel\": expected a size that is a multiple of 8192, found 8191 bytes"
    );
}

#[test]
fn contents_that_are_something_else() {
    let with = |at: usize, bytes: &[u8]| {
        let mut page = page(1);
        page[at..at + bytes.len()].copy_from_slice(bytes);
        foreign(&[page.clone(), page].concat())
    };
    let found = |what: &str| format!("relation \"rel\": expected a heap relation, found {what}");
    assert_eq!(with(16, &8176u16.to_le_bytes()), found("an index (btree, hash or gist)"));
    assert_eq!(with(16, &8184u16.to_le_bytes()), found("an index (gin, brin or spgist) or a sequence"));
    assert_eq!(
        with(18, &0x4004u16.to_le_bytes()),
        "relation \"rel\": expected pages of 8192 bytes, found pages of 16384 bytes"
    );
    assert_eq!(
        with(18, &0x2004u16.to_be_bytes()),
        "relation \"rel\": expected a little-endian relation, found a big-endian one"
    );
    let file = |start: &[u8], fill: u8| {
        let mut bytes = vec![fill; 16384];
        bytes[..start.len()].copy_from_slice(start);
        foreign(&bytes)
    };
    assert_eq!(file(&[0x10, 0xd1, 6, 0, 1, 0, 0, 0], 9), found("a WAL segment"));
    assert_eq!(file(&[0x1f, 0x8b, 8], 9), found("gzip data"));
    assert_eq!(file(b"PGDMP", 9), found("an archive of pg_dump"));
    assert_eq!(file(b">read1\nACGT", b'A'), found("text (FASTA or FASTQ?)"));
    assert_eq!(file(b"id,seq\n", b'A'), found("text"));
    assert_eq!(
        file(&[1, 2, 3], 0x99),
        found("no page header (page size and version 0x9999 instead of 0x2004)")
    );
}

#[test]
fn one_damaged_page_is_left_to_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = (0..3).flat_map(page).collect::<Vec<_>>();
    bytes[18] = 0xff;
    bytes[2 * 8192 + 16] = 0;
    let path = dir.path().join("rel");
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(RelationFile::open(&path).unwrap().total_blocks(), 3);
}

#[test]
fn changes_are_seen() {
    let change = |what: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "rel", 0..2);
        let file = RelationFile::open_with_segment_size(&path, 2).unwrap();
        file.check_unchanged().unwrap();
        let print = file.fingerprint();
        what(&path);
        let text = refusal(dir.path(), file.check_unchanged());
        let again = RelationFile::open_with_segment_size(&path, 2).map(|f| f.fingerprint());
        assert_ne!(again.ok(), Some(print));
        text
    };
    let append = |path: &Path| {
        let bytes = [std::fs::read(path).unwrap(), page(2)].concat();
        std::fs::write(path, bytes).unwrap();
    };
    assert_eq!(
        change(&append),
        "relation \"rel\": file changed while it was read: size: expected 16384, found 24576"
    );
    let touch = |path: &Path| {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(5, 6)).unwrap();
    };
    assert!(change(&touch).ends_with(", found 5.000000006"));
    let replace = |path: &Path| {
        let copy = path.with_extension("new");
        std::fs::copy(path, &copy).unwrap();
        std::fs::rename(copy, path).unwrap();
    };
    assert!(
        change(&replace).starts_with("relation \"rel\": file changed while it was read: inode: expected ")
    );
    let grow = |path: &Path| std::fs::write(segment_path(path, 1), page(2)).unwrap();
    assert!(change(&grow).starts_with("relation \"rel\": file changed while it was read: segments: "));
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    assert!(change(&remove).starts_with("relation \"rel\": cannot look at the file again: "));
}

#[test]
fn a_file_that_shrinks_is_an_error_that_names_the_block() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "rel", 0..4);
    let file = RelationFile::open(&path).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(3 * 8192 + 100).unwrap();
    let error = file.read_blocks(1, &mut [0; 3 * 8192]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Shrank(_)));
    assert_eq!(
        refusal::<()>(dir.path(), Err(error)),
        "relation \"rel\": file shrank: size: expected 32768 bytes, found 24676 (block 3)"
    );
    file.read_blocks(0, &mut [0; 3 * 8192]).unwrap();
}
