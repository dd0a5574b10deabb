//! A picture with two axes, as SVG: grid, round values, titles with units, and what is drawn in between.
//!
//! Every picture is made twice, for wide and for narrow screens, so that letters have the size of letters on both; the page shows one of them.

use super::scale::Scale;
use super::text::escape;
use std::fmt::Write as _;

/// Widths of the two pictures.
pub const WIDTHS: [f64; 2] = [760.0, 350.0];
const RIGHT: f64 = 14.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 46.0;

/// Where a picture's parts are.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Of the whole picture.
    pub width: f64,
    /// Of the whole picture.
    pub height: f64,
    /// Left of it are labels.
    pub left: f64,
}

impl Frame {
    /// Left to right.
    pub fn across(&self) -> (f64, f64) {
        (self.left, self.width - RIGHT)
    }

    /// Bottom to top.
    pub fn up(&self) -> (f64, f64) {
        (self.height - BOTTOM, TOP)
    }

    /// About how many labels there is room for below.
    pub fn labels(&self) -> usize {
        if self.width > 500.0 { 8 } else { 4 }
    }
}

/// A picture that is being drawn.
pub struct Chart {
    svg: String,
    frame: Frame,
}

impl Chart {
    /// Begins a picture; `alt` says in a sentence what is seen.
    pub fn new(frame: Frame, alt: &str) -> Self {
        let Frame { width, height, .. } = frame;
        let alt = escape(alt);
        let svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{alt}\">");
        Self { svg, frame }
    }

    /// The axis below: lines of the grid, values, and its title.
    pub fn x_axis(&mut self, scale: &Scale, label: impl Fn(f64) -> String, title: &str) {
        let ((bottom, top), (left, right)) = (self.frame.up(), self.frame.across());
        for value in scale.ticks(self.frame.labels()) {
            let x = scale.at(value);
            let _ = write!(self.svg, "<path class=\"grid\" d=\"M{x:.1} {bottom}V{top}\"/>");
            let anchor = if x > right - 12.0 { "end" } else { "middle" };
            let (x, y) = (if anchor == "end" { right + 6.0 } else { x }, bottom + 17.0);
            self.text(x, y, anchor, &label(value));
        }
        let _ = write!(self.svg, "<path class=\"axis\" d=\"M{left} {bottom}H{right}\"/>");
        self.text((left + right) / 2.0, self.frame.height - 8.0, "middle", title);
    }

    /// The axis at the left; its title is above it.
    pub fn y_axis(&mut self, scale: &Scale, label: impl Fn(f64) -> String, title: &str) {
        let ((bottom, top), (left, right)) = (self.frame.up(), self.frame.across());
        for value in scale.ticks(5) {
            let y = scale.at(value);
            let _ = write!(self.svg, "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>");
            self.text(left - 6.0, y + 4.5, "end", &label(value));
        }
        let _ = write!(self.svg, "<path class=\"axis\" d=\"M{left} {bottom}V{top}\"/>");
        self.text(4.0, 13.0, "start", title);
    }

    /// Letters at a place.
    pub fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escape(text);
        let _ = write!(self.svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    }

    /// A path of a class, which decides on its looks; it says `title` to who asks.
    pub fn path(&mut self, class: &str, d: &str, title: &str) {
        if d.is_empty() {
            return;
        }
        let title =
            if title.is_empty() { String::new() } else { format!("<title>{}</title>", escape(title)) };
        let _ = write!(self.svg, "<path class=\"{class}\" d=\"{d}\">{title}</path>");
    }

    /// A line from bottom to top with a word beside it.
    pub fn mark(&mut self, x: f64, word: &str) {
        let ((bottom, top), (_, right)) = (self.frame.up(), self.frame.across());
        self.path("mark", &format!("M{x:.1} {bottom}V{top}"), word);
        let (at, anchor) = if x > right - 70.0 { (x - 4.0, "end") } else { (x + 4.0, "start") };
        self.text(at - if anchor == "start" { 8.0 } else { -8.0 }, top - 6.0, anchor, word);
    }

    /// Ends the picture.
    pub fn end(self) -> String {
        self.svg + "</svg>"
    }
}

/// Draws a picture for wide and for narrow screens.
pub fn both(height: impl Fn(f64) -> f64, left: f64, draw: impl Fn(Frame) -> String) -> String {
    let [wide, narrow] = WIDTHS.map(|width| draw(Frame { width, height: height(width), left }));
    format!("<div class=\"wide\">{wide}</div><div class=\"narrow\">{narrow}</div>")
}
