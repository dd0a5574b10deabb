//! Memory on large pages, where the system has them: for what is written all over at random, so that a page's place in memory need not be looked up for each record.
//!
//! That is advice (`madvise(2)`, `MADV_HUGEPAGE`): the contents are the same without, and whoever gets none is none the worse. Memory on large pages is there as a whole once it is
//! touched, so it is not for what may stay empty.

use nix::sys::mman::{MmapAdvise, madvise};
use std::ptr::NonNull;

/// Bytes of a page, of the smallest there are; larger ones begin at a multiple of it, too.
const PAGE: usize = 4096;

/// Asks for large pages for the whole pages of `memory`, before anything is written to it.
pub(crate) fn on_large_pages<T: Copy>(memory: &mut [T]) {
    let bytes = size_of_val(memory);
    let first: NonNull<T> = NonNull::from(memory).cast();
    let before = first.addr().get().next_multiple_of(PAGE) - first.addr().get();
    let whole = bytes.saturating_sub(before) / PAGE * PAGE;
    if whole == 0 || cfg!(miri) {
        return;
    }
    let Some(begin) = NonNull::new(first.as_ptr().wrapping_byte_add(before)) else { return };
    #[allow(unsafe_code, reason = "the corner for advice about memory")]
    // SAFETY: `begin..begin + whole` lies in `memory`, which nobody else has, and this advice changes no contents.
    let asked = unsafe { madvise(begin.cast(), whole, MmapAdvise::MADV_HUGEPAGE) };
    // A system without large pages says so, and that is no error.
    let _ = asked;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_as_it_was() {
        for len in [0, 1, 1000, 1 << 20, (1 << 20) + 1] {
            let mut memory: Vec<u32> = (0..len).collect();
            on_large_pages(&mut memory);
            on_large_pages(&mut memory[..len as usize / 2]);
            memory.iter_mut().for_each(|word| *word += 1);
            assert!(memory.iter().copied().eq(1..=len));
        }
    }
}
