//! The style of the series of a chart: colour, marker and strokes.

use core::fmt::Write as _;

use super::svg::{COLORS, INK};

/// The style of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pen {
    /// In the colour and with the marker of this number, joined by a line.
    Line(usize, Dash),
    /// In the colour and with the marker of this number, without a line.
    Marks(usize),
    /// A thin dashed line in the colour of the text, without markers.
    Trace,
}

/// Strokes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dash {
    Solid,
    Dashed,
    Dotted,
}

/// Markers about the origin, of about equal area: circle, square, triangle, diamond, triangle on its
/// tip, plus and cross.
const MARKERS: [&str; 7] = [
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "M-4 -4h8v8h-8z",
    "M0 -5.2L5 3.8H-5z",
    "M0 -5.6L5.6 0L0 5.6L-5.6 0z",
    "M0 5.2L5 -3.8H-5z",
    "M-1.8 -5.4h3.6v3.6h3.6v3.6h-3.6v3.6h-3.6v-3.6h-3.6v-3.6h3.6z",
    "M-5 -2.6L-2.6 -5L0 -2.4L2.6 -5L5 -2.6L2.4 0L5 2.6L2.6 5L0 2.4L-2.6 5L-5 2.6L-2.4 0z",
];

impl Pen {
    /// The style of the line, if there is one.
    pub(super) fn stroke(self) -> Option<String> {
        match self {
            Self::Line(_, dash) => {
                Some(format!(r#"{} stroke-width="2" {}"#, self.color(), dash.attribute()))
            }
            Self::Marks(_) => None,
            Self::Trace => Some(format!(r#"{INK} stroke-width="1.2" stroke-dasharray="5 3""#)),
        }
    }

    /// The colour, as the stroke of a line.
    pub(super) fn color(self) -> String {
        match self {
            Self::Line(index, _) | Self::Marks(index) => {
                format!(r#"stroke="{}""#, COLORS[index % COLORS.len()])
            }
            Self::Trace => INK.into(),
        }
    }

    /// Draws the marker, with `title` to be shown under the pointer.
    pub(super) fn mark(self, out: &mut String, [x, y]: [f64; 2], title: &str) {
        let (Self::Line(index, _) | Self::Marks(index)) = self else { return };
        let _ = write!(
            out,
            concat!(
                r#"<path class="mark" transform="translate({:.2} {:.2})" d="{}" "#,
                r##"fill="{}" stroke="#ffffff">{}</path>"##
            ),
            x,
            y,
            // Past the last colour both repeat, but not in the same pairs.
            MARKERS[(index + index / COLORS.len()) % MARKERS.len()],
            COLORS[index % COLORS.len()],
            title
        );
    }
}

impl Dash {
    /// The strokes, none for a whole line.
    pub(super) fn attribute(self) -> &'static str {
        match self {
            Self::Solid => "",
            Self::Dashed => r#"stroke-dasharray="7 4""#,
            Self::Dotted => r#"stroke-dasharray="2 3""#,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_markers_pair_up_without_repeating() {
        let pair = |i: usize| (i % COLORS.len(), (i + i / COLORS.len()) % MARKERS.len());
        let pairs: std::collections::HashSet<_> = (0..49).map(pair).collect();
        assert_eq!(pairs.len(), 49);
    }
}
