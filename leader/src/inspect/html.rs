//! A page as one HTML document: no script, no network, as wide as the screen is, dark where the reader's system is.

use super::page::{Item, Page, Part};
use std::fmt::Write as _;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--bar:#3b7dd8}\
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:0 auto;padding:1rem}\
h1{font-size:1.3rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:2rem 0 .2rem}\
p{margin:.3rem 0}code,td,.strip{font-family:ui-monospace,monospace;font-size:.85rem}\
.pg{opacity:.75}.wide{overflow-x:auto}table{border-collapse:collapse}\
td,th{padding:.15rem .7rem .15rem 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top;min-width:4rem;overflow-wrap:anywhere}\
th{font-size:.8rem;font-weight:600}\
.strip{display:flex;flex-wrap:wrap;gap:1px;margin:.4rem 0}\
.strip b{width:.7rem;height:.7rem;border-radius:2px;background:var(--soft)}\
.strip .done{background:#2f9e62}.strip .claimed{background:#d99a1c}.strip .bad{background:#d33f49}\
.strip .owned{background:var(--bar)}\
.bar{background:var(--bar);height:.8rem;border-radius:2px;min-width:1px}\
.bars td:last-child{width:60%}.bars{width:100%}\
nav a{margin-right:.8rem}";

/// The page as a document.
pub fn show(page: &Page) -> String {
    let (name, lead) = (escaped(&page.name), escaped(&page.lead));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Segment {name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>Segment {name}</h1>\n<p>{lead}</p>\n<nav>"
    );
    for (number, part) in page.parts.iter().enumerate() {
        let _ = write!(html, "<a href=\"#p{number}\">{}</a>", escaped(&part.name));
    }
    html.push_str("</nav>\n");
    for (number, part) in page.parts.iter().enumerate() {
        show_part(number, part, &mut html);
    }
    html.push_str("</body>\n</html>\n");
    html
}

fn show_part(number: usize, part: &Part, html: &mut String) {
    let (name, postgres, file) = (escaped(&part.name), escaped(part.postgres), escaped(part.file));
    let _ = write!(
        html,
        "<section id=\"p{number}\">\n<h2>{name}</h2>\n<p class=\"pg\">PostgreSQL: {postgres}; here: <code>{file}</code></p>\n"
    );
    part.items.iter().for_each(|item| show_item(item, html));
    html.push_str("</section>\n");
}

fn show_item(item: &Item, html: &mut String) {
    match item {
        Item::Fields(fields) => {
            let rows = fields.iter().map(|(name, value, pg)| vec![name.clone(), value.clone(), (*pg).into()]);
            table(&["field", "value", "PostgreSQL"], rows, html);
        }
        Item::Table(head, rows) => table(head, rows.iter().cloned(), html),
        Item::Strip(cells, legend) => {
            let _ = write!(
                html,
                "<p>{}</p>\n<div class=\"strip\" role=\"img\" aria-label=\"{}\">",
                escaped(legend),
                escaped(cells)
            );
            for cell in cells.chars() {
                let class = match cell {
                    '#' => " class=\"done\"",
                    '+' => " class=\"claimed\"",
                    '!' => " class=\"bad\"",
                    'o' => " class=\"owned\"",
                    _ => "",
                };
                let _ = write!(html, "<b{class}></b>");
            }
            html.push_str("</div>\n");
        }
        Item::Bars(bars, unit) => {
            let most = bars.iter().map(|bar| bar.1).max().unwrap_or(0).max(1);
            let _ = write!(html, "<p>{}</p>\n<table class=\"bars\">\n", escaped(unit));
            for (name, n) in bars {
                let percent = *n as f64 * 100.0 / most as f64;
                let name = escaped(name);
                let _ = writeln!(
                    html,
                    "<tr><td>{name}</td><td>{n}</td><td><div class=\"bar\" style=\"width:{percent:.2}%\"></div></td></tr>"
                );
            }
            html.push_str("</table>\n");
        }
        Item::Note(note) => {
            let _ = writeln!(html, "<p>{}</p>", escaped(note));
        }
    }
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>, html: &mut String) {
    html.push_str("<div class=\"wide\"><table>\n<tr>");
    head.iter().for_each(|cell| {
        let _ = write!(html, "<th>{}</th>", escaped(cell));
    });
    html.push_str("</tr>\n");
    for row in rows {
        html.push_str("<tr>");
        row.iter().for_each(|cell| {
            let _ = write!(html, "<td>{}</td>", escaped(cell));
        });
        html.push_str("</tr>\n");
    }
    html.push_str("</table></div>\n");
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut html, c| {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            c if c.is_control() && c != '\n' => html.push('\u{fffd}'),
            c => html.push(c),
        }
        html
    })
}
