//! Charts of lines and points as SVG documents that stand alone.

use core::fmt::Write as _;

use super::axis::{Axis, Scale};
use super::escape;
use super::pen::{Dash, Pen};
use super::svg::{self, CENTRED, GRID, INK, line, text};

/// A chart before it is drawn.
pub(super) struct Chart {
    pub(super) title: String,
    /// Label of the x axis, with its unit.
    pub(super) x_label: String,
    /// Label of the y axis, with its unit.
    pub(super) y_label: String,
    /// Scale of the x axis; linear unless set otherwise.
    pub(super) x_scale: Scale,
    pub(super) y_scale: Scale,
    pub(super) series: Vec<Series>,
    pub(super) references: Vec<ReferenceLine>,
    /// Legend of the dashes of the series, where they mean something.
    pub(super) dashes: Vec<(Dash, String)>,
    /// Further values for which the upright axis has room, so that charts compare.
    pub(super) room: Vec<f64>,
}

/// Points that belong together, in drawing order.
pub(super) struct Series {
    /// Its name in the legend; series of one name share its entry.
    pub(super) name: String,
    pub(super) points: Vec<Point>,
    pub(super) pen: Pen,
}

/// A measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    /// The measured value; what its axis cannot place (not finite, or no logarithm) is left out, as
    /// for `x`.
    pub(super) y: f64,
    /// Half of the interval about `y`.
    pub(super) error: Option<f64>,
}

/// A level to compare with, drawn as a dashed line.
pub(super) struct ReferenceLine {
    pub(super) name: String,
    pub(super) y: f64,
    /// Half of the interval about `y`.
    pub(super) error: Option<f64>,
}

/// Dashes of the reference lines.
const DASHES: [&str; 2] = ["7 4", "2 3"];

const WIDTH: f64 = 540.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 524.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 330.0;
/// Middle of the legend's first line.
const LEGEND: f64 = BOTTOM + 72.0;
/// Distance between lines of the legend.
const LEADING: f64 = 22.0;
/// Width of the samples in the legend, and of the room that they take.
const KEY: (f64, f64) = (26.0, 34.0);

/// Room of an interval beside those of other lines at the same place.
const BAR: f64 = 5.0;

/// Left end of the legend.
const MARGIN: f64 = 16.0;

/// Draws the sample of an entry of the legend, its left end at a place.
type Mark<'a> = Box<dyn Fn(&mut String, [f64; 2]) + 'a>;

/// An entry of the legend, with its words.
type Entry<'a> = (Mark<'a>, String);

impl Chart {
    /// A chart of the series alone.
    pub(super) fn new(
        title: impl Into<String>,
        [x_label, y_label]: [&str; 2],
        y_scale: Scale,
        series: Vec<Series>,
    ) -> Self {
        Self {
            title: title.into(),
            x_label: x_label.into(),
            y_label: y_label.into(),
            x_scale: Scale::Linear,
            y_scale,
            series,
            references: Vec::new(),
            dashes: Vec::new(),
            room: Vec::new(),
        }
    }

    /// The chart as an SVG document.
    pub(super) fn svg(&self) -> String {
        let mut body = String::new();
        let size = svg::fitted(&self.title, RIGHT - LEFT, 16.0);
        let style = format!(r#"font-size="{size:.1}" font-weight="600""#);
        text(&mut body, [LEFT, 26.0], &style, &self.title);
        let mut height = BOTTOM + 60.0;
        match self.frame() {
            Some(frame) => {
                self.axes(&mut body, &frame);
                for reference in self.references.iter().zip(DASHES.iter().cycle()) {
                    reference.0.draw(&mut body, reference.1, &frame);
                }
                for (series, aside) in self.series.iter().zip(self.asides()) {
                    series.draw(&mut body, &frame, aside);
                }
                height = legend(&mut body, &self.entries(&frame));
            }
            None => text(&mut body, [LEFT, TOP + 20.0], "", "no finite values to show"),
        }
        svg::document([WIDTH, height], &self.title, &body)
    }

    /// The shift of each series to the right, so that the intervals of lines stand side by side.
    fn asides(&self) -> Vec<f64> {
        let barred = |series: &Series| {
            matches!(series.pen, Pen::Line(..)) && series.points.iter().any(|p| p.error.is_some())
        };
        let count = self.series.iter().filter(|series| barred(series)).count();
        let mut place = -0.5 * BAR * (count.max(1) - 1) as f64;
        let next = |series: &Series| {
            if !barred(series) {
                return 0.0;
            }
            place += BAR;
            place - BAR
        };
        self.series.iter().map(next).collect()
    }

    /// A frame that holds all points and levels; none when there is no point.
    fn frame(&self) -> Option<Frame> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let values = || points().map(|point| point.y);
        let ends = points().flat_map(Point::ends);
        let levels = self.references.iter().map(|reference| reference.y);
        let room = self.room.iter().copied();
        let x = Axis::fit(points().map(|point| point.x), self.x_scale)?;
        let y = Axis::fit(values(), self.y_scale).and_then(|_| {
            Axis::fit(values().chain(ends).chain(levels).chain(room), self.y_scale)
        })?;
        Some(Frame { x, y })
    }

    fn axes(&self, out: &mut String, frame: &Frame) {
        for (tick, name) in frame.y.ticks() {
            let y = frame.up(tick);
            line(out, [LEFT, y, RIGHT, y], GRID);
            text(out, [LEFT - 8.0, y + 5.0], r#"text-anchor="end""#, &name);
        }
        for (tick, name) in frame.x.ticks() {
            let x = frame.right(tick);
            line(out, [x, BOTTOM, x, BOTTOM + 5.0], INK);
            text(out, [x, BOTTOM + 22.0], CENTRED, &name);
        }
        line(out, [LEFT, BOTTOM, RIGHT, BOTTOM], INK);
        let (across, down) = (f64::midpoint(LEFT, RIGHT), f64::midpoint(TOP, BOTTOM));
        let centred = |label: &str, room: f64| {
            format!(r#"{CENTRED} font-size="{:.1}""#, svg::fitted(label, room, 14.0))
        };
        text(out, [across, BOTTOM + 44.0], &centred(&self.x_label, RIGHT - LEFT), &self.x_label);
        let turned = format!(
            r#"{} transform="rotate(-90 14 {down})""#,
            centred(&self.y_label, BOTTOM - 20.0)
        );
        text(out, [14.0, down], &turned, &self.y_label);
    }

    /// Levels, series and dashes, each a group with columns of its own.
    fn entries(&self, frame: &Frame) -> [Vec<Entry<'_>>; 3] {
        let rule = |style: String| -> Mark<'_> {
            Box::new(move |out, [x, y]| line(out, [x, y, x + KEY.0, y], &style))
        };
        let levels = self.references.iter().zip(DASHES.iter().cycle());
        let levels = levels.filter(|(reference, _)| frame.y.places(reference.y));
        let levels = levels.map(|(reference, dash)| {
            let error = reference.error.map_or_else(String::new, |e| format!(" ± {e:.2}"));
            (rule(level(dash)), format!("{} {:.2}{error}", reference.name, reference.y))
        });
        let series = self.series.iter().enumerate().filter(|(at, series)| {
            self.series[..*at].iter().all(|earlier| earlier.name != series.name)
        });
        let series = series.map(|(_, series)| -> Entry<'_> {
            (Box::new(|out, place| series.sample(out, place)), series.name.clone())
        });
        let dashes = self.dashes.iter().map(|(dash, meaning)| {
            let style = format!(r#"{INK} stroke-width="1.6" {}"#, dash.attribute());
            (rule(style), meaning.clone())
        });
        [levels.collect(), series.collect(), dashes.collect()]
    }
}

/// Draws each group in as many columns as fit; returns where the last row ends.
fn legend(out: &mut String, groups: &[Vec<Entry<'_>>]) -> f64 {
    let mut y = LEGEND;
    for entries in groups {
        let room = entries.iter().map(|(_, words)| svg::width(words, 14.0)).fold(0.0, f64::max);
        let pitch = KEY.1 + room + 12.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 9")]
        let columns = ((RIGHT - MARGIN + 12.0) / pitch).floor().max(1.0) as usize;
        for row in entries.chunks(columns) {
            let mut x = MARGIN;
            for (sample, words) in row {
                sample(out, [x, y]);
                text(out, [x + KEY.1, y + 5.0], "", words);
                x += pitch;
            }
            y += LEADING;
        }
    }
    y
}

/// Style of a level to compare with.
fn level(dash: &str) -> String {
    format!(r#"{INK} stroke-width="1.4" stroke-dasharray="{dash}""#)
}

impl ReferenceLine {
    fn draw(&self, out: &mut String, dash: &str, frame: &Frame) {
        if frame.y.places(self.y) {
            let y = frame.up(self.y);
            line(out, [LEFT, y, RIGHT, y], &level(dash));
        }
    }
}

impl Point {
    pub(super) fn new(x: f64, y: f64) -> Self {
        Self { x, y, error: None }
    }

    /// The ends of the interval, if there is one.
    fn ends(&self) -> impl Iterator<Item = f64> + use<> {
        let (y, error) = (self.y, self.error);
        error.into_iter().flat_map(move |error| [y - error, y + error])
    }
}

impl Series {
    /// The line below, then intervals, then markers.
    fn draw(&self, out: &mut String, frame: &Frame, aside: f64) {
        let moved = |[x, y]: [f64; 2]| [x + aside, y];
        let place = |point: &Point| frame.places(point).then(|| moved(frame.place(point)));
        let placed: Vec<_> = self.points.iter().filter_map(|p| Some((p, place(p)?))).collect();
        if let Some(stroke) = self.pen.stroke() {
            let path: Vec<_> = placed.iter().map(|(_, [x, y])| format!("{x:.2},{y:.2}")).collect();
            let _ = write!(out, r#"<polyline points="{}" fill="none" {stroke}/>"#, path.join(" "));
        }
        for (point, [x, _]) in &placed {
            let ends: Vec<f64> = point.ends().map(|end| frame.up_clamped(end)).collect();
            if let [low, high] = ends[..] {
                let d = format!("M{:.2} {low:.2}h4m-2 0V{high:.2}m-2 0h4", x - 2.0);
                let stroke = self.pen.color();
                let _ = write!(out, r#"<path d="{d}" fill="none" {stroke} stroke-width="1.3"/>"#);
            }
        }
        for (point, place) in placed {
            let error = point.error.map_or_else(String::new, |e| format!(" ± {}", number(e)));
            let (name, x, y) = (escape(&self.name), number(point.x), number(point.y));
            self.pen.mark(out, place, &format!("<title>{name}: {y}{error} at {x}</title>"));
        }
    }

    /// The sample in the legend, with its left end at a place.
    fn sample(&self, out: &mut String, [x, y]: [f64; 2]) {
        if let Some(stroke) = self.pen.stroke() {
            line(out, [x, y, x + KEY.0, y], &stroke);
        }
        self.pen.mark(out, [x + KEY.0 / 2.0, y], "");
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

    /// The height of `y` on the page; that of a value without a place on the axis is the bottom.
    fn up_clamped(&self, y: f64) -> f64 {
        if self.y.places(y) { self.up(y) } else { BOTTOM }
    }

    fn places(&self, point: &Point) -> bool {
        self.x.places(point.x) && self.y.places(point.y)
    }

    fn place(&self, point: &Point) -> [f64; 2] {
        [self.right(point.x), self.up(point.y)]
    }
}

/// Two decimals, or three digits and a power of ten where those say little.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size.is_infinite() => if value > 0.0 { "∞" } else { "-∞" }.into(),
        size if size != 0.0 && !(0.095..1e6).contains(&size) => format!("{value:.2e}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::assert_well_formed;
    use super::*;

    fn chart(points: &[(f64, f64)]) -> Chart {
        let series = vec![Series {
            name: "o<t".into(),
            points: points.iter().map(|&(x, y)| Point::new(x, y)).collect(),
            pen: Pen::Line(0, Dash::Solid),
        }];
        let references =
            vec![ReferenceLine { name: "full precision".into(), y: 9.5, error: Some(0.3) }];
        let labels = ["bits", "distance"];
        Chart { references, ..Chart::new("a < b & \"c\"", labels, Scale::Log, series) }
    }

    #[test]
    fn finite_points_are_marked_and_others_skipped() {
        let svg =
            chart(&[(2.0, 90.0), (3.0, f64::NAN), (f64::INFINITY, 8.0), (4.0, 0.0), (5.0, 10.0)])
                .svg();
        assert_well_formed(&svg);
        assert_eq!(svg.matches("<title>").count(), 2);
        assert!(svg.contains("<title>o&lt;t: 90.00 at 2.00</title>"));
        assert!(svg.contains("<title>o&lt;t: 10.00 at 5.00</title>"));
        let (_, line) = svg.split_once("<polyline points=\"").unwrap();
        let (points, _) = line.split_once('"').unwrap();
        assert_eq!(points.split(' ').count(), 2);
        assert!(svg.contains(">full precision 9.50 ± 0.30</text>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn intervals_are_drawn_and_have_room() {
        let mut chart = chart(&[(2.0, 10.0), (3.0, 20.0)]);
        chart.references.clear();
        let bars = |svg: &str| svg.matches("stroke-width=\"1.3\"").count();
        assert_eq!(bars(&chart.svg()), 0);
        // The second reaches below zero, where a logarithm has no place.
        chart.series[0].points[0].error = Some(5.0);
        chart.series[0].points[1].error = Some(60.0);
        let svg = chart.svg();
        assert_eq!(bars(&svg), 2);
        assert!(svg.contains("20.00 ± 60.00 at 3.00") && svg.contains("<path d=\"M5"), "{svg}");
        let frame = chart.frame().unwrap();
        assert!((frame.up_clamped(-40.0) - BOTTOM).abs() < 1e-9 && frame.up(80.0) > TOP);
    }

    #[test]
    fn intervals_of_lines_stand_side_by_side() {
        let mut chart = chart(&[(2.0, 10.0), (3.0, 20.0)]);
        assert_eq!(chart.asides(), [0.0]);
        chart.series[0].points[0].error = Some(1.0);
        for pen in [Pen::Line(1, Dash::Solid), Pen::Marks(2), Pen::Line(3, Dash::Solid)] {
            let points = chart.series[0].points.clone();
            chart.series.push(Series { name: "another".into(), points, pen });
        }
        assert_eq!(chart.asides(), [-BAR, 0.0, 0.0, BAR]);
        let bars = |x: f64| chart.svg().matches(&format!("M{x:.2} ")).count();
        let x = chart.frame().unwrap().right(2.0) - 2.0;
        assert_eq!([x - BAR, x, x + BAR].map(bars), [1, 2, 1]);
    }

    #[test]
    fn nothing_to_draw_is_said_so() {
        for points in [vec![], vec![(f64::NAN, 1.0)], vec![(1.0, f64::NAN)]] {
            let svg = chart(&points).svg();
            assert_well_formed(&svg);
            assert!(svg.contains("no finite values"));
        }
    }

    #[test]
    fn every_series_has_a_place_in_the_legend() {
        let mut chart = chart(&[]);
        let series = |i: usize| Series {
            name: format!("s{}", i % 40),
            points: vec![Point::new(2.0, i as f64)],
            pen: Pen::Line(i, Dash::Solid),
        };
        chart.series = (0..80).map(series).collect();
        let svg = chart.svg();
        assert_well_formed(&svg);
        for i in 0..40 {
            assert_eq!(svg.matches(&format!(">s{i}</text>")).count(), 1, "once per name");
        }
        // A row for the level, then the series in seven columns.
        let height = LEGEND + LEADING * 7.0;
        assert!(svg.contains(&format!(r#"viewBox="0 0 540 {height}""#)), "{}", &svg[..200]);
    }

    #[test]
    fn numbers_show_what_they_hold() {
        let shown = [0.0, 2.0, 0.0123, -12.5, 1e30, f64::INFINITY].map(number);
        assert_eq!(shown, ["0.00", "2.00", "1.23e-2", "-12.50", "1.00e30", "∞"]);
    }
}
