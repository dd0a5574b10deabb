//! Unpacks PostgreSQL's own compression, pglz.
//!
//! Promises: total on any input; a copy from before the start or with distance 0 is refused; input and output must both end
//! exactly at the last item; no more is written than the caller's buffer holds.
//!
//! Source of the format: `pg_lzcompress.c` (a control byte, lowest bit first, for each eight items; bit clear: one literal
//! byte; bit set: two bytes of 4 bits length - 3 and 12 bits distance, and a third byte that adds to a length of 18).

use crate::error::{Result, value_error};

/// The most bytes one compressed byte can stand for, rounded up: eight items of 273 bytes take 25.
pub const MAX_RATIO: usize = 88;

/// Unpacks `source` so that it fills `target` exactly.
///
/// # Errors
/// [`crate::ErrorKind::Value`] with the byte of the input it is about.
pub fn decompress(source: &[u8], target: &mut [u8]) -> Result<()> {
    let (mut from, mut to) = (0, 0);
    while from < source.len() && to < target.len() {
        let Some(&control) = source.get(from) else { break };
        from += 1;
        if control == 0
            && let (Some(room), Some(bytes)) = (target.get_mut(to..to + 8), source.get(from..from + 8))
        {
            room.copy_from_slice(bytes);
            (from, to) = (from + 8, to + 8);
            continue;
        }
        for bit in 0..8 {
            if from >= source.len() || to >= target.len() {
                break;
            }
            if control >> bit & 1 == 0 {
                if let (Some(slot), Some(&byte)) = (target.get_mut(to), source.get(from)) {
                    *slot = byte;
                }
                from += 1;
                to += 1;
            } else {
                let (length, distance, used) = tag(source, from)?;
                copy(target, to, distance, length, from)?;
                from += used;
                to += length;
            }
        }
    }
    if from != source.len() {
        let found = format!("{} bytes left over", source.len() - from);
        return Err(value_error("pglz data", "an end with the value", found));
    }
    if to != target.len() {
        let expected = format!("{} bytes of value", target.len());
        return Err(value_error("pglz data", expected, to));
    }
    Ok(())
}

/// Length, distance and size of the copy item at `from`.
#[inline]
fn tag(source: &[u8], from: usize) -> Result<(usize, usize, usize)> {
    let cut = || value_error("pglz data", "a whole copy item", format!("its end at byte {}", source.len()));
    let &[first, second] = source.get(from..).and_then(|s| s.first_chunk()).ok_or_else(cut)?;
    let distance = usize::from(first & 0xf0) << 4 | usize::from(second);
    let length = usize::from(first & 0x0f) + 3;
    if length < 18 {
        return Ok((length, distance, 2));
    }
    let &more = source.get(from + 2).ok_or_else(cut)?;
    Ok((length + usize::from(more), distance, 3))
}

#[inline]
fn copy(target: &mut [u8], to: usize, distance: usize, length: usize, at: usize) -> Result<()> {
    if distance == 0 || distance > to {
        let found = format!("{distance} at byte {at}");
        return Err(value_error("pglz data", format!("a distance of 1 to {to}"), found));
    }
    let room = target.len() - to;
    if length > room {
        let found = format!("{length} at byte {at}");
        return Err(value_error("pglz data", format!("a copy of at most {room} bytes"), found));
    }
    if distance >= length {
        target.copy_within(to - distance..to - distance + length, to);
        return Ok(());
    }
    // The copy reads what it writes: what is there already repeats, so each round can copy twice as much.
    let (start, end) = (to - distance, to + length);
    let mut written = to;
    while written < end {
        let round = (written - start).min(end - written);
        target.copy_within(start..start + round, written);
        written += round;
    }
    Ok(())
}
