//! The pieces that SVG documents are made of.
//!
//! Colours are attributes, so that a file is right wherever it is opened, and the neutral ones
//! carry a class (`paper`, `ink`, `grid`) by which a page that inlines the drawing restyles them.

use core::fmt::Write as _;

use super::escape;

/// Colours of Okabe and Ito, "Color universal design" (2008), told apart by colour-blind readers
/// too; their yellow and black are replaced by a grey that shows on light and on dark.
pub(super) const COLORS: [&str; 9] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#882255",
    "#117733",
];

/// Style of axes and levels.
pub(super) const INK: &str = r##"class="ink-line" stroke="#333333""##;

/// Style of the lines that lead the eye.
pub(super) const GRID: &str = r##"class="grid" stroke="#e3e3e3""##;

/// Text about its place.
pub(super) const CENTRED: &str = r#"text-anchor="middle""#;

/// Width of a letter over its size, on average.
const LETTER: f64 = 0.58;

/// A document of `width` by `height` units that holds `body` on paper.
pub(super) fn document([width, height]: [f64; 2], title: &str, body: &str) -> String {
    format!(
        concat!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" "#,
            r#"viewBox="0 0 {w} {h}" role="img" aria-label="{title}" font-size="14" "#,
            r#"font-family="system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif">"#,
            r##"<rect class="paper" width="{w}" height="{h}" fill="#ffffff"/>{body}</svg>"##,
            "\n",
        ),
        w = width,
        h = height,
        title = escape(title),
        body = body,
    )
}

pub(super) fn line(out: &mut String, [x1, y1, x2, y2]: [f64; 4], style: &str) {
    let _ = write!(out, r#"<line x1="{x1:.2}" y1="{y1:.2}" x2="{x2:.2}" y2="{y2:.2}" {style}/>"#);
}

pub(super) fn text(out: &mut String, [x, y]: [f64; 2], style: &str, text: &str) {
    let _ = write!(
        out,
        r##"<text class="ink" x="{x:.2}" y="{y:.2}" fill="#222222" {style}>{}</text>"##,
        escape(text)
    );
}

/// The font size at which `text` fits into `room`, at most `size`.
pub(super) fn fitted(text: &str, room: f64, size: f64) -> f64 {
    size.min(room / width(text, 1.0))
}

/// About how wide `text` is at a font size.
pub(super) fn width(text: &str, size: f64) -> f64 {
    text.chars().count().max(1) as f64 * LETTER * size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_set_smaller_and_short_text_is_not() {
        assert!((fitted("short", 400.0, 16.0) - 16.0).abs() < 1e-9);
        let long = "x".repeat(100);
        assert!(width(&long, fitted(&long, 400.0, 16.0)) <= 400.1);
        assert!(fitted("", 400.0, 16.0) > 0.0);
    }
}
