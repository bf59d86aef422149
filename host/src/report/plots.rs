//! The curves of a sweep, and that of a training run.

use fm_candle::eval::bounds::Bounds;
use fm_candle::eval::pareto;
use quant_core::rate::Rate;

use super::axis::Scale;
use super::chart::{Chart, Point, ReferenceLine, Series};
use super::pen::{Dash, Pen};
use super::{Levels, Row, Summary, bit_counts, distinct, level_histograms};

/// Label of the x axis of most charts.
const BITS: &str = "bits per code";
const TIME: &str = "t, from noise (0) to images (1)";

/// The SVG files of a sweep, by name: those for which something was measured.
pub(crate) fn files(
    summary: &Summary,
    rows: &[Row],
    levels: Option<&Levels>,
) -> Vec<(String, String)> {
    let mut files = vec![
        ("fid.svg".into(), fid(summary, rows)),
        ("sqnr.svg".into(), sqnr(rows)),
        ("psnr.svg".into(), psnr(rows)),
        ("pareto.svg".into(), pareto(summary, rows)),
    ];
    for bits in divergence_bits(rows) {
        files.push((format!("divergence_{bits}.svg"), divergence(summary, rows, bits)));
    }
    files.extend(bounds(rows).map(|svg| ("bounds.svg".into(), svg)));
    files.extend(lipschitz(summary).map(|svg| ("lipschitz.svg".into(), svg)));
    if let Some(known) = levels {
        for bits in level_bits(known) {
            files.push((format!("levels_{bits}.svg"), level_histograms::sheet(known, bits)));
        }
    }
    files
}

/// Fréchet distance over bits, with full precision and real images as levels; an SVG document.
pub(super) fn fid(summary: &Summary, rows: &[Row]) -> String {
    let point = |row: &Row| Point { x: row.bits.bits(), y: row.fid, error: row.fid_error };
    let title = format!("Distance to {}", summary.fid_reference);
    let y_label = format!("{}, lower is better", summary.fid_label);
    let series = by_scheme(rows, point);
    let chart = Chart::new(title, [BITS, &y_label], Scale::Log, series);
    Chart { references: distances(summary), ..chart }.svg()
}

/// The distances to compare with.
fn distances(summary: &Summary) -> Vec<ReferenceLine> {
    let (y, error) = (summary.fid_full, summary.fid_full_error);
    vec![
        ReferenceLine { name: "full precision".into(), y, error },
        ReferenceLine { name: "real images".into(), y: summary.fid_real, error: None },
    ]
}

/// Weight SQNR over true bits per weight; an SVG document.
pub(super) fn sqnr(rows: &[Row]) -> String {
    let labels =
        ["bits per weight, codebooks included", "SQNR of the weights (dB), higher is better"];
    let series = by_scheme(rows, |row| Point::new(row.bits_per_weight, row.sqnr_db));
    let chart = Chart::new("Weight error against true size", labels, Scale::Linear, series);
    Chart { x_scale: Scale::Log, ..chart }.svg()
}

/// PSNR of paired samples over bits; an SVG document.
pub(super) fn psnr(rows: &[Row]) -> String {
    let labels = [BITS, "PSNR of the samples (dB), higher is better"];
    let point = |row: &Row| Point { x: row.bits.bits(), y: row.psnr_db, error: row.psnr_error };
    let title = "Samples against full precision, same noise";
    Chart::new(title, labels, Scale::Linear, by_scheme(rows, point)).svg()
}

/// Fréchet distance against the size of the packed file, with the front of those that no other row
/// beats in both; an SVG document.
pub(super) fn pareto(summary: &Summary, rows: &[Row]) -> String {
    let size = |row: &Row| row.packed_bytes as f64 / 1000.0;
    let front = pareto::front(rows.iter().map(|row| [size(row), row.fid]).collect());
    let mut series = vec![Series {
        name: "Pareto front".into(),
        points: front.into_iter().map(|[x, y]| Point::new(x, y)).collect(),
        pen: Pen::Trace,
    }];
    let point = |row: &Row| Point { x: size(row), y: row.fid, error: row.fid_error };
    let marks = by_scheme(rows, point).into_iter().enumerate();
    series.extend(marks.map(|(at, scheme)| Series { pen: Pen::Marks(at), ..scheme }));
    let labels = [
        "packed file (kB), codebooks included, smaller is better",
        &format!("{}, lower is better", summary.fid_label),
    ];
    let chart = Chart::new("Distance against true size", labels, Scale::Log, series);
    Chart { x_scale: Scale::Log, references: distances(summary), ..chart }.svg()
}

/// Distance between the trajectories of `bits` bits and of full precision over t; an SVG document.
/// The axis has room for all bits, so that the charts compare.
pub(super) fn divergence(summary: &Summary, rows: &[Row], bits: Rate) -> String {
    let schemes = distinct(rows.iter().map(|row| row.scheme.as_str()));
    let line = |row: &Row| Series {
        name: row.scheme.clone(),
        points: summary
            .times
            .iter()
            .zip(&row.divergence)
            .map(|(&t, &d)| Point::new(t, d))
            .collect(),
        pen: Pen::Line(
            schemes.iter().position(|scheme| *scheme == row.scheme).unwrap_or(0),
            Dash::Solid,
        ),
    };
    let series = rows.iter().filter(|row| row.bits == bits).map(line).collect();
    let title = format!("Distance to the trajectories of full precision, {bits} bits");
    let labels = [TIME, "root mean square distance, same noise"];
    let chart = Chart::new(title, labels, Scale::Log, series);
    let room = rows.iter().flat_map(|row| row.divergence.iter().copied()).collect();
    Chart { room, ..chart }.svg()
}

/// The numbers of bits for which trajectories were compared.
pub(super) fn divergence_bits(rows: &[Row]) -> Vec<Rate> {
    bit_counts(rows.iter().filter(|row| !row.divergence.is_empty()).map(|row| row.bits))
}

/// The numbers of bits for which levels are known.
pub(super) fn level_bits(levels: &Levels) -> Vec<Rate> {
    bit_counts(levels.rows.iter().map(|&(_, bits, _)| bits))
}

/// Measured error of the samples and its bounds over bits; an SVG document, none where nothing was
/// measured.
pub(super) fn bounds(rows: &[Row]) -> Option<String> {
    type Kind = (Dash, &'static str, fn(&Bounds) -> f64);
    let kinds: [Kind; 3] = [
        (Dash::Solid, "measured", |bounds| bounds.error),
        (Dash::Dashed, "bound from the velocity", |bounds| bounds.from_velocity),
        (Dash::Dotted, "bound from the weights", |bounds| bounds.from_weights),
    ];
    rows.iter().find_map(|row| row.bounds)?;
    let series = kinds.iter().flat_map(|&(dash, _, value)| {
        let value = |row: &Row| row.bounds.as_ref().map_or(f64::NAN, value);
        let lines = by_scheme(rows, |row| Point::new(row.bits.bits(), value(row)));
        let dashed = move |(at, line)| Series { pen: Pen::Line(at, dash), ..line };
        lines.into_iter().enumerate().map(dashed)
    });
    let labels = [BITS, "root mean square error of an image"];
    let title = "Error of the samples and its bounds";
    let chart = Chart::new(title, labels, Scale::Log, series.collect());
    let dashes = kinds.map(|(dash, name, _)| (dash, name.to_string())).into();
    Some(Chart { dashes, ..chart }.svg())
}

/// Lipschitz constants of full precision over t; an SVG document, none where not measured.
pub(super) fn lipschitz(summary: &Summary) -> Option<String> {
    let constants = summary.lipschitz.as_ref()?;
    let line = |at, name: &str, values: &[f64]| Series {
        name: name.into(),
        points: constants.t.iter().zip(values).map(|(&t, &value)| Point::new(t, value)).collect(),
        pen: Pen::Line(at, Dash::Solid),
    };
    let series = vec![
        line(0, "in the image, |∂v/∂x|", &constants.x),
        line(1, "in the weights, |∂v/∂θ|", &constants.theta),
    ];
    let title = "Lipschitz constants of the velocity, full precision";
    let labels = [TIME, "greatest norm of the derivative"];
    Some(Chart::new(title, labels, Scale::Log, series).svg())
}

/// Mean loss over epochs, `(epoch, loss)`; an SVG document. Of a long run neighbouring epochs share
/// a point, their mean.
pub(crate) fn loss(epochs: &[(f64, f64)]) -> String {
    const POINTS: usize = 60;
    let mean = |chunk: &[(f64, f64)]| {
        let sum = chunk.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        Point::new(sum.0 / chunk.len() as f64, sum.1 / chunk.len() as f64)
    };
    let points = epochs.chunks(epochs.len().div_ceil(POINTS).max(1)).map(mean).collect();
    let series = vec![Series { name: "train loss".into(), points, pen: Pen::Line(0, Dash::Solid) }];
    let labels = ["epoch", "mean squared error of the velocity"];
    Chart::new("Training loss", labels, Scale::Log, series).svg()
}

/// A line for each scheme, in order of first appearance so that colours agree between plots.
fn by_scheme(rows: &[Row], point: impl Fn(&Row) -> Point) -> Vec<Series> {
    distinct(rows.iter().map(|row| row.scheme.as_str()))
        .into_iter()
        .enumerate()
        .map(|(at, scheme)| {
            let own = rows.iter().filter(|row| row.scheme == scheme);
            let mut points: Vec<_> = own.map(&point).collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            Series { name: scheme.into(), points, pen: Pen::Line(at, Dash::Solid) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, assert_well_formed};
    use super::*;

    #[test]
    fn every_scheme_has_a_line_and_every_row_a_point() {
        let (summary, rows) = (sample::summary(), sample::rows());
        for svg in [fid(&summary, &rows), sqnr(&rows), psnr(&rows)] {
            assert_eq!(svg.matches("<polyline").count(), 4);
            assert_eq!(svg.matches("<title>").count(), rows.len());
            for scheme in ["ot", "uniform", "log", "lloyd-max"] {
                assert!(svg.contains(&format!(">{scheme}</text>")), "{scheme}");
            }
        }
    }

    #[test]
    fn files_are_those_of_what_was_measured() {
        let names = |files: Vec<(String, String)>| -> Vec<String> {
            let names = files.into_iter().map(|(name, svg)| {
                assert_well_formed(&svg);
                name
            });
            names.collect()
        };
        let few = names(files(&sample::summary(), &sample::rows(), None));
        assert_eq!(few, ["fid.svg", "sqnr.svg", "psnr.svg", "pareto.svg"]);
        let (summary, rows) = sample::analysed();
        let all = names(files(&summary, &rows, Some(&sample::levels())));
        assert_eq!(all.len(), 4 + 6 + 2 + 3);
        for name in ["divergence_5.svg", "bounds.svg", "lipschitz.svg", "levels_8.svg"] {
            assert!(all.iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn bounds_share_the_colours_and_differ_in_dashes() {
        let (_, rows) = sample::analysed();
        let svg = bounds(&rows).unwrap();
        assert_eq!(svg.matches("<polyline").count(), 12);
        assert_eq!(svg.matches(">ot</text>").count(), 1, "one entry in the legend");
        assert_eq!(svg.matches(">bound from the weights</text>").count(), 1);
        assert!(bounds(&sample::rows()).is_none());
    }

    #[test]
    fn a_long_run_has_a_point_for_several_epochs() {
        let epochs = |n: u32| (0..n).map(|i| (f64::from(i), 1.0 + f64::from(i % 2))).collect();
        let marks = |epochs: Vec<_>| loss(&epochs).matches("<title>").count();
        assert_eq!([marks(epochs(1)), marks(epochs(60)), marks(epochs(120))], [1, 60, 60]);
        assert!(loss(&epochs(120)).contains("train loss: 1.50 at 0.50"));
        assert!(loss(&[(0.0, 0.194_203_09)]).contains(">0.195</text>"), "few digits on the axis");
    }

    #[test]
    fn points_are_sorted_whatever_the_order_of_the_rows() {
        let mut rows = sample::rows();
        rows.reverse();
        let lines = by_scheme(&rows, |row| Point::new(row.bits.bits(), row.fid));
        for series in &lines {
            assert!(series.points.is_sorted_by(|a, b| a.x < b.x));
        }
        assert_eq!(lines[0].name, "lloyd-max");
    }
}
