//! Looks through an Arrow IPC stream before it is read: the reader trusts the places of its buffers, which a damaged file may put anywhere.

use arrow_ipc::{MessageHeader, RecordBatch, root_as_message};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Longest description of a message that is ours: the schema's, with the names of many files.
const MAX_HEAD: u64 = 256 << 20;
/// Bytes of the two columns' values.
const WIDTHS: [i64; 2] = [8, 4];

/// Looks at every message of `file`.
///
/// # Errors
/// What is wrong with the first that is.
pub(super) fn check(file: &File) -> Result<(), String> {
    let size = file.metadata().map_err(|e| e.to_string())?.len();
    let mut at = 0;
    loop {
        let mut front = [0; 8];
        file.read_exact_at(&mut front, at).map_err(|_| "expected the mark of its end, found none")?;
        let (mark, length) = front.split_at(4);
        if mark != [0xff; 4] {
            return Err(format!("expected a message at byte {at}, found something else"));
        }
        let length = u64::from(u32::from_le_bytes([length[0], length[1], length[2], length[3]]));
        if length == 0 {
            return Ok(());
        }
        at += 8;
        if length > MAX_HEAD || at + length > size {
            return Err(format!(
                "expected a message that ends before byte {size}, found {length} bytes from {at}"
            ));
        }
        let mut head = vec![0; length as usize];
        file.read_exact_at(&mut head, at).map_err(|e| e.to_string())?;
        at += length;
        let message = root_as_message(&head).map_err(|e| format!("message before byte {at}: {e}"))?;
        let body = u64::try_from(message.bodyLength()).ok().filter(|body| *body <= size - at);
        let body =
            body.ok_or_else(|| format!("expected a body that ends before byte {size}, found another"))?;
        match (message.header_type(), message.header_as_record_batch()) {
            (MessageHeader::Schema, _) => {}
            (MessageHeader::RecordBatch, Some(batch)) => {
                check_batch(&batch, body as i64)
                    .ok_or_else(|| format!("batch at byte {at}: its buffers are not those of two columns"))?;
            }
            _ => return Err(format!("expected a batch before byte {at}, found something else")),
        }
        at += body;
    }
}

fn check_batch(batch: &RecordBatch<'_>, body: i64) -> Option<()> {
    let (rows, nodes, buffers) = (batch.length(), batch.nodes()?, batch.buffers()?);
    let right = rows >= 0 && batch.compression().is_none() && nodes.len() == 2 && buffers.len() == 4;
    let nodes_right = nodes.iter().all(|node| node.length() == rows && node.null_count() == 0);
    let inside = buffers.iter().all(|buffer| {
        let (offset, length) = (buffer.offset(), buffer.length());
        offset >= 0
            && offset % 8 == 0
            && length >= 0
            && offset.checked_add(length).is_some_and(|end| end <= body)
    });
    // Validity and values of the one column, then of the other.
    let full = right
        && WIDTHS.iter().enumerate().all(|(column, width)| {
            let needed = rows.checked_mul(*width);
            needed.is_some_and(|needed| buffers.get(2 * column + 1).length() >= needed)
        });
    (right && nodes_right && inside && full).then_some(())
}
