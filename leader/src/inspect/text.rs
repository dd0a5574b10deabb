//! A page as text.

use super::page::{Item, Page, Part};
use std::fmt::Write as _;

/// Cells of a strip in a line.
const CELLS: usize = 64;
/// Letters of the longest bar.
const BAR: u64 = 40;

/// The page as lines.
pub fn show(page: &Page) -> String {
    let mut text = format!("segment {}\n {}\n", page.name, page.lead);
    page.parts.iter().for_each(|part| show_part(part, &mut text));
    text
}

fn show_part(part: &Part, text: &mut String) {
    let _ = writeln!(text, "\n{} = {} ({})", part.name, part.postgres, part.file);
    for item in &part.items {
        match item {
            Item::Fields(fields) => {
                let rows: Vec<Vec<&str>> =
                    fields.iter().map(|(name, value, pg)| vec![name.as_str(), value, pg]).collect();
                grid(&rows, text);
            }
            Item::Table(head, rows) => {
                let rows = rows.iter().map(|row| row.iter().map(String::as_str).collect());
                grid(&std::iter::once(head.clone()).chain(rows).collect::<Vec<_>>(), text);
            }
            Item::Strip(cells, legend) => {
                let _ = writeln!(text, "  {legend}");
                for line in cells.as_bytes().chunks(CELLS) {
                    let _ = writeln!(text, "  |{}|", String::from_utf8_lossy(line));
                }
            }
            Item::Bars(bars, unit) => {
                let _ = writeln!(text, "  {unit}");
                let most = bars.iter().map(|bar| bar.1).max().unwrap_or(0).max(1);
                let rows: Vec<[String; 3]> = bars
                    .iter()
                    .map(|(name, n)| {
                        let length = (n * BAR).div_ceil(most) as usize;
                        [name.clone(), n.to_string(), "=".repeat(length)]
                    })
                    .collect();
                grid(
                    &rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect::<Vec<_>>(),
                    text,
                );
            }
            Item::Note(note) => {
                let _ = writeln!(text, "  {note}");
            }
        }
    }
}

/// Columns, as wide as their widest cell; the last one as it is.
fn grid(rows: &[Vec<&str>], text: &mut String) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, " {cell:<width$}", width = *width);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}
