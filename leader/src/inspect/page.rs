//! A page: parts with fields, tables, strips of cells and bars. Knows neither text nor HTML.

use std::fmt::Display;

/// All that is said of a segment.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Name of the segment.
    pub name: String,
    /// What it is, in a line.
    pub lead: String,
    /// Its parts, in the order of their offsets where they have one.
    pub parts: Vec<Part>,
}

/// A structure of the segment.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Its name here.
    pub name: String,
    /// PostgreSQL's counterpart.
    pub postgres: &'static str,
    /// Where this is done here.
    pub file: &'static str,
    /// What is in it.
    pub items: Vec<Item>,
}

/// Something in a part.
#[derive(Clone, Debug)]
pub enum Item {
    /// Fields, their values, and PostgreSQL's names of them.
    Fields(Vec<(String, String, &'static str)>),
    /// A table.
    Table(Vec<&'static str>, Vec<Vec<String>>),
    /// Cells in a row, one letter each, and what the letters mean.
    Strip(String, &'static str),
    /// Numbers to scale, and their unit.
    Bars(Vec<(String, u64)>, &'static str),
    /// A remark.
    Note(String),
}

impl Part {
    /// A part with nothing in it yet.
    pub fn new(name: &str, postgres: &'static str, file: &'static str) -> Self {
        Self { name: name.into(), postgres, file, items: Vec::new() }
    }

    /// Adds a field, behind the fields that were added last.
    pub fn field(&mut self, name: &str, value: impl Display, postgres: &'static str) {
        let field = (name.to_owned(), value.to_string(), postgres);
        match self.items.last_mut() {
            Some(Item::Fields(fields)) => fields.push(field),
            _ => self.items.push(Item::Fields(vec![field])),
        }
    }
}

/// Cells that stand for many things each: the letter of the first of `order` that one of them has.
pub fn strip(letters: &[u8], most: usize, order: &[u8]) -> String {
    let group = letters.len().div_ceil(most).max(1);
    let first = |cell: &[u8]| order.iter().find(|letter| cell.contains(letter)).copied().unwrap_or(b'?');
    letters.chunks(group).map(|cell| char::from(first(cell))).collect()
}

/// Bytes for people: with the unit that leaves the fewest digits.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_240_000 => format!("{bytes} bytes ({:.1} KiB)", bytes as f64 / 1024.0),
        _ => format!("{bytes} bytes ({:.1} MiB)", bytes as f64 / (1 << 20) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_shows_what_matters_most_in_it() {
        assert_eq!(strip(b"..#.!...", 8, b"!#."), "..#.!...");
        assert_eq!(strip(b"..#.!...", 4, b"!#."), ".#!.");
        assert_eq!(strip(b"..#.!...", 3, b"!#."), "#!.");
        assert_eq!(strip(b"", 3, b"."), "");
    }
}
