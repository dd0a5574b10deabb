//! Text and tables of the page. Everything that is not our own goes through [`escape`].

use std::fmt::{Display, Write as _};

/// Text for HTML, in elements and in attributes with quotes.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // What HTML does not allow, and what turns text around.
            c if (c.is_control() && c != '\n' && c != '\t')
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) =>
            {
                safe.push('\u{fffd}');
            }
            c => safe.push(c),
        }
    }
    safe
}

/// A number in groups of three digits, with spaces at which no line breaks.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A table that can be moved to the side where it is too wide.
pub struct Table {
    html: String,
}

impl Table {
    /// With a caption and the names of its columns.
    pub fn new(caption: &str, columns: &[&str]) -> Self {
        Self::of("", caption, columns)
    }

    /// The same with long words in it, which are broken.
    pub fn wrapped(caption: &str, columns: &[&str]) -> Self {
        Self::of(" class=\"long\"", caption, columns)
    }

    /// The same with k-mers in the first column.
    pub fn lettered(caption: &str, columns: &[&str]) -> Self {
        Self::of(" class=\"letters\"", caption, columns)
    }

    fn of(class: &str, caption: &str, columns: &[&str]) -> Self {
        let caption = escape(caption);
        let mut html = format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table{class}><caption>{caption}</caption><thead><tr>"
        );
        columns.iter().for_each(|name| html += &format!("<th scope=\"col\">{}</th>", escape(name)));
        html += "</tr></thead><tbody>";
        Self { html }
    }

    /// A row; its first cell names it.
    pub fn row(&mut self, cells: &[&dyn Display]) {
        self.named_row("", cells);
    }

    /// A row whose second cell is known by a name to programs.
    pub fn named_row(&mut self, name: &str, cells: &[&dyn Display]) {
        self.html += "<tr>";
        for (at, cell) in cells.iter().enumerate() {
            let text = escape(&cell.to_string());
            let _ = match at {
                0 => write!(self.html, "<th scope=\"row\">{text}</th>"),
                1 if !name.is_empty() => {
                    write!(self.html, "<td data-field=\"{}\">{text}</td>", escape(name))
                }
                _ => write!(self.html, "<td>{text}</td>"),
            };
        }
        self.html += "</tr>";
    }

    /// A row with a bar at its end, which is `share` of its length full.
    pub fn barred_row(&mut self, cells: &[&dyn Display], share: f64) {
        self.row(cells);
        let open = self.html.len() - "</tr>".len();
        self.html.truncate(open);
        let width = (share.clamp(0.0, 1.0) * 1000.0).round() / 10.0;
        let _ = write!(
            self.html,
            "<td><svg class=\"bar\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><path class=\"rest\" d=\"M0 0H100V8H0z\"/><path class=\"area\" d=\"M0 0H{width}V8H0z\"/></svg></td></tr>"
        );
    }

    /// The table.
    pub fn end(self) -> String {
        self.html + "</tbody></table></div>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_through() {
        let evil = "<script>alert('x')</script>\"&\u{1b}[31m\u{202e}\0ok";
        let safe = escape(evil);
        assert_eq!(
            safe,
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;\u{fffd}[31m\u{fffd}\u{fffd}ok"
        );
        let mut table = Table::new(evil, &[evil]);
        table.named_row(evil, &[&evil, &evil]);
        let html = table.end();
        assert!(!html.contains("<script") && !html.contains('\u{1b}'), "{html}");
    }

    #[test]
    fn digits_in_groups() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
