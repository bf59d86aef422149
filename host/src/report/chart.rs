//! Line charts as SVG documents that stand alone.
//!
//! Colours are attributes, so that the file is right wherever it is opened, and the neutral ones
//! carry a class (`paper`, `ink`, `grid`) by which a page that inlines the chart can restyle them.

use core::fmt::Write as _;

use super::axis::{Axis, Scale};
use super::escape;

/// A chart before it is drawn.
pub(super) struct Chart {
    pub(super) title: String,
    /// What runs along the bottom, with its unit.
    pub(super) x_label: String,
    /// What runs up the side, with its unit.
    pub(super) y_label: String,
    pub(super) y_scale: Scale,
    pub(super) series: Vec<Series>,
    pub(super) references: Vec<Reference>,
}

/// A line through points, in drawing order.
pub(super) struct Series {
    pub(super) name: String,
    /// `(x, y)`; a point that its axis cannot place (not finite, or no logarithm) is left out.
    pub(super) points: Vec<(f64, f64)>,
}

/// A level to compare with, drawn as a dashed line.
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) y: f64,
}

/// Colours of Okabe and Ito, "Color universal design" (2008), told apart by colour-blind readers
/// too; their yellow and black are replaced by a grey that shows on light and on dark.
const COLORS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"];

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

/// Dashes of the reference lines.
const DASHES: [&str; 2] = ["7 4", "2 3"];

const WIDTH: f64 = 710.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 510.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 380.0;
/// Left end and width of the samples in the legend.
const KEY: f64 = RIGHT + 20.0;
const KEY_WIDTH: f64 = 30.0;
/// Distance between lines of the legend.
const LEADING: f64 = 22.0;

impl Chart {
    /// The chart as an SVG document.
    pub(super) fn svg(&self) -> String {
        let entries = self.series.len() + self.references.len();
        let legend_end = (0..entries).fold(TOP + LEADING, |y, _| y + LEADING);
        let mut svg = format!(
            concat!(
                r#"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" "#,
                r#"viewBox="0 0 {w} {h}" role="img" aria-label="{title}" font-size="13" "#,
                r#"font-family="system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif">"#,
                r##"<rect class="paper" width="{w}" height="{h}" fill="#ffffff"/>"##,
            ),
            w = WIDTH,
            h = legend_end.max(BOTTOM + 60.0),
            title = escape(&self.title),
        );
        text(&mut svg, [LEFT, 28.0], r#"font-size="16" font-weight="600""#, &self.title);
        match self.frame() {
            Some(frame) => self.draw(&mut svg, &frame),
            None => text(&mut svg, [LEFT, TOP + 20.0], "", "no finite values to show"),
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// A frame that holds all points and levels; none when there is no point.
    fn frame(&self) -> Option<Frame> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let values = || points().map(|point| point.1);
        let levels = self.references.iter().map(|reference| reference.y);
        let x = Axis::fit(points().map(|point| point.0), Scale::Linear)?;
        let y = Axis::fit(values(), self.y_scale)
            .and_then(|_| Axis::fit(values().chain(levels), self.y_scale))?;
        Some(Frame { x, y })
    }

    fn draw(&self, svg: &mut String, frame: &Frame) {
        for (tick, name) in frame.y.ticks() {
            let y = frame.up(tick);
            line(svg, [LEFT, y, RIGHT, y], GRID);
            text(svg, [LEFT - 10.0, y + 4.5], r#"text-anchor="end""#, &name);
        }
        for (tick, name) in frame.x.ticks() {
            let x = frame.right(tick);
            line(svg, [x, BOTTOM, x, BOTTOM + 5.0], INK);
            text(svg, [x, BOTTOM + 22.0], CENTRED, &name);
        }
        line(svg, [LEFT, BOTTOM, RIGHT, BOTTOM], INK);
        let (across, down) = (f64::midpoint(LEFT, RIGHT), f64::midpoint(TOP, BOTTOM));
        text(svg, [across, BOTTOM + 46.0], CENTRED, &self.x_label);
        let turned = format!(r#"{CENTRED} transform="rotate(-90 20 {down})""#);
        text(svg, [20.0, down], &turned, &self.y_label);

        let mut legend = TOP + 10.0;
        for (reference, dash) in self.references.iter().zip(DASHES.iter().cycle()) {
            if frame.y.places(reference.y) {
                let y = frame.up(reference.y);
                let style = format!(r#"{INK} stroke-width="1.4" stroke-dasharray="{dash}""#);
                line(svg, [LEFT, y, RIGHT, y], &style);
                line(svg, [KEY, legend, KEY + KEY_WIDTH, legend], &style);
                let name = format!("{} {:.2}", reference.name, reference.y);
                text(svg, [KEY + 40.0, legend + 4.5], "", &name);
                legend += LEADING;
            }
        }
        for (index, series) in self.series.iter().enumerate() {
            series.draw(svg, index, legend, frame);
            legend += LEADING;
        }
    }
}

impl Series {
    /// Draws the line, its markers and, at height `legend`, its entry in the legend.
    fn draw(&self, svg: &mut String, index: usize, legend: f64, frame: &Frame) {
        let color = COLORS[index % COLORS.len()];
        // Past the last colour both repeat, but not in the same pairs.
        let marker = MARKERS[(index + index / COLORS.len()) % MARKERS.len()];
        let stroke = format!(r#"fill="none" stroke="{color}" stroke-width="2""#);
        let mark = |svg: &mut String, (x, y): (f64, f64), title: &str| {
            let _ = write!(
                svg,
                concat!(
                    r#"<path class="mark" transform="translate({:.2} {:.2})" d="{}" "#,
                    r##"fill="{}" stroke="#ffffff">{}</path>"##
                ),
                x, y, marker, color, title
            );
        };

        let placed = self.points.iter().filter_map(|&point| Some((point, frame.point(point)?)));
        let placed: Vec<_> = placed.collect();
        let path: Vec<_> = placed.iter().map(|(_, (x, y))| format!("{x:.2},{y:.2}")).collect();
        let _ = write!(svg, r#"<polyline points="{}" {stroke}/>"#, path.join(" "));
        for ((x, y), place) in placed {
            let title = format!("<title>{}: {y:.2} at {x:.2}</title>", escape(&self.name));
            mark(svg, place, &title);
        }
        line(svg, [KEY, legend, KEY + KEY_WIDTH, legend], &stroke);
        mark(svg, (KEY + KEY_WIDTH / 2.0, legend), "");
        text(svg, [KEY + 40.0, legend + 4.5], "", &self.name);
    }
}

/// The two axes, and where they lie on the page.
struct Frame {
    x: Axis,
    y: Axis,
}

impl Frame {
    fn right(&self, x: f64) -> f64 {
        LEFT + self.x.position(x) * (RIGHT - LEFT)
    }

    fn up(&self, y: f64) -> f64 {
        BOTTOM - self.y.position(y) * (BOTTOM - TOP)
    }

    /// Place of a point, none if an axis has no place for it.
    fn point(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        (self.x.places(x) && self.y.places(y)).then(|| (self.right(x), self.up(y)))
    }
}

/// Style of axes and levels.
const INK: &str = r##"class="ink-line" stroke="#333333""##;

/// Style of the lines that lead the eye.
const GRID: &str = r##"class="grid" stroke="#e3e3e3""##;

const CENTRED: &str = r#"text-anchor="middle""#;

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4], style: &str) {
    let _ = write!(svg, r#"<line x1="{x1:.2}" y1="{y1:.2}" x2="{x2:.2}" y2="{y2:.2}" {style}/>"#);
}

fn text(svg: &mut String, [x, y]: [f64; 2], style: &str, text: &str) {
    let _ = write!(
        svg,
        r##"<text class="ink" x="{x:.2}" y="{y:.2}" fill="#222222" {style}>{}</text>"##,
        escape(text)
    );
}

#[cfg(test)]
mod tests {
    use super::super::sample::assert_well_formed;
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: "a < b & \"c\"".into(),
            x_label: "bits".into(),
            y_label: "distance".into(),
            y_scale: Scale::Log,
            series: vec![Series { name: "o<t".into(), points }],
            references: vec![Reference { name: "full precision".into(), y: 9.5 }],
        }
    }

    #[test]
    fn finite_points_are_marked_and_others_skipped() {
        let svg = chart(vec![
            (2.0, 90.0),
            (3.0, f64::NAN),
            (f64::INFINITY, 8.0),
            (4.0, 0.0),
            (5.0, 10.0),
        ])
        .svg();
        assert_well_formed(&svg);
        assert_eq!(svg.matches("<title>").count(), 2);
        assert!(svg.contains("<title>o&lt;t: 90.00 at 2.00</title>"));
        assert!(svg.contains("<title>o&lt;t: 10.00 at 5.00</title>"));
        let (_, line) = svg.split_once("<polyline points=\"").unwrap();
        let (points, _) = line.split_once('"').unwrap();
        assert_eq!(points.split(' ').count(), 2);
        assert!(svg.contains(">full precision 9.50</text>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn nothing_to_draw_is_said_so() {
        for points in [vec![], vec![(f64::NAN, 1.0)], vec![(1.0, f64::NAN)]] {
            let svg = chart(points).svg();
            assert_well_formed(&svg);
            assert!(svg.contains("no finite values"));
        }
    }

    #[test]
    fn every_series_has_a_place_in_the_legend() {
        let mut chart = chart(vec![(2.0, 1.0)]);
        chart.series = (0..40)
            .map(|i| Series { name: format!("s{i}"), points: vec![(2.0, f64::from(i))] })
            .collect();
        let svg = chart.svg();
        assert_well_formed(&svg);
        assert!(svg.contains(">s39</text>"));
        assert!(svg.contains(r#"viewBox="0 0 710 976""#), "{}", &svg[..200]);
    }

    #[test]
    fn colours_and_markers_pair_up_without_repeating() {
        let pair = |i: usize| (i % COLORS.len(), (i + i / COLORS.len()) % MARKERS.len());
        let pairs: std::collections::HashSet<_> = (0..49).map(pair).collect();
        assert_eq!(pairs.len(), 49);
    }
}
