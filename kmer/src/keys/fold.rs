//! Adds up what was counted for a k-mer and for its reverse complement.
//!
//! K-mers of the same middle bases are the tile of a table, a line of 64 for each three bases in front, a place of that for each three behind; and so are
//! their reverse complements. Two such tiles are copied side by side, for the lines of one lie in the same few sets of the caches otherwise.

use crate::params::reverse_complement;

/// Bases in front of a k-mer's middle, and behind.
const SIDE: u32 = 3;
/// What they can be.
const SIDES: usize = 1 << (2 * SIDE);

/// Counts of k-mers of the same middle bases: by the bases in front, then by those behind.
type Tile = [[u8; SIDES]; SIDES];

/// Moves the count, modulo 256, of every k-mer to the lesser one of itself and its reverse complement, and adds those whose count came to 256 to
/// `wrapped`.
///
/// # Panics
/// When there is not a cell for each k-mer, or k is less than 7.
pub(super) fn fold(cells: &mut [u8], k: u32, wrapped: &mut Vec<u32>) {
    assert!(k > 2 * SIDE && cells.len() == 1 << (2 * k));
    let bases = k - 2 * SIDE;
    let mut other_way = [0usize; SIDES];
    (0..).zip(&mut other_way).for_each(|(side, other)| *other = reverse_complement(side, SIDE) as usize);
    let (mut one, mut two) = (Box::new([[0; SIDES]; SIDES]), Box::new([[0; SIDES]; SIDES]));
    for middle in 0..1usize << (2 * bases) {
        let other = reverse_complement(middle as u64, bases) as usize;
        if middle > other {
            continue;
        }
        copy(cells, middle, bases, |line, cells| line.copy_from_slice(cells), &mut one);
        let over = if middle == other {
            within(&mut one, &other_way)
        } else {
            copy(cells, other, bases, |line, cells| line.copy_from_slice(cells), &mut two);
            between(&mut one, &mut two, &other_way)
        };
        let kmer = |middle: usize, front: usize, behind: usize| {
            ((front << (2 * bases) | middle) << (2 * SIDE) | behind) as u32
        };
        wrapped.extend(over.iter().map(|(front, behind)| {
            let (mirrored, opposite) = (other_way[*behind], other_way[*front]);
            kmer(middle, *front, *behind).min(kmer(other, mirrored, opposite))
        }));
        copy(cells, middle, bases, |line, cells| cells.copy_from_slice(line), &mut one);
        if middle != other {
            copy(cells, other, bases, |line, cells| cells.copy_from_slice(line), &mut two);
        }
    }
}

/// Copies the lines of the tile of these middle bases, one way or the other.
fn copy(
    cells: &mut [u8],
    middle: usize,
    bases: u32,
    copy: impl Fn(&mut [u8; SIDES], &mut [u8]),
    tile: &mut Tile,
) {
    for (front, line) in tile.iter_mut().enumerate() {
        let first = (front << (2 * bases) | middle) << (2 * SIDE);
        copy(line, &mut cells[first..first + SIDES]);
    }
}

/// Adds up the tiles of middle bases and of their reverse complement, which is greater. Returns for which bases in front and behind, in the first,
/// the sum came to 256.
fn between(one: &mut Tile, two: &mut Tile, other_way: &[usize; SIDES]) -> Vec<(usize, usize)> {
    let mut over = Vec::new();
    for (front, line) in one.iter_mut().enumerate() {
        for (behind, count) in line.iter_mut().enumerate() {
            let other = &mut two[other_way[behind]][other_way[front]];
            let (sum, is_over) = count.overflowing_add(*other);
            if is_over {
                over.push((front, behind));
            }
            // Where the bases in front are the same the middle decides.
            let is_less = front <= other_way[behind];
            (*count, *other) = if is_less { (sum, 0) } else { (0, sum) };
        }
    }
    over
}

/// The same for middle bases that are their own reverse complement.
fn within(tile: &mut Tile, other_way: &[usize; SIDES]) -> Vec<(usize, usize)> {
    let mut over = Vec::new();
    for (front, behind) in (0..SIDES).flat_map(|front| (0..SIDES).map(move |behind| (front, behind))) {
        let other = (other_way[behind], other_way[front]);
        if (front, behind) < other {
            let (sum, is_over) =
                tile[front][behind].overflowing_add(std::mem::take(&mut tile[other.0][other.1]));
            tile[front][behind] = sum;
            if is_over {
                over.push((front, behind));
            }
        }
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::canonical;
    use std::collections::HashMap;

    #[test]
    fn counts_move_to_the_canonical_form() {
        for k in [7, 8] {
            let count = |kmer: u64| (kmer.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as u32;
            let kmers = 0..1u64 << (2 * k);
            let mut want = HashMap::<u64, u32>::new();
            kmers.clone().for_each(|kmer| *want.entry(canonical(kmer, k)).or_default() += count(kmer) % 256);
            let mut cells: Vec<u8> = kmers.clone().map(|kmer| count(kmer) as u8).collect();
            let mut wrapped = Vec::new();
            fold(&mut cells, k, &mut wrapped);
            let mut found: HashMap<u64, u32> = kmers
                .zip(cells)
                .filter(|(_, cell)| *cell > 0)
                .map(|(kmer, cell)| (kmer, cell.into()))
                .collect();
            wrapped.iter().for_each(|kmer| *found.entry(u64::from(*kmer)).or_default() += 256);
            want.retain(|_, count| *count > 0);
            assert!(found == want, "k = {k}");
        }
    }
}
