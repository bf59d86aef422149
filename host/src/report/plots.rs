//! The curves of a sweep, and that of a training run.

use super::axis::Scale;
use super::chart::{Chart, Reference, Series};
use super::{Row, Summary};

/// Fréchet distance over bits, with full precision and real images as levels; an SVG document.
pub(crate) fn fid(summary: &Summary, rows: &[Row]) -> String {
    Chart {
        title: format!("{} against {}", summary.fid_label, summary.fid_reference),
        x_label: "bits per code".into(),
        y_label: format!("{}, lower is better", summary.fid_label),
        y_scale: Scale::Log,
        series: by_scheme(rows, |row| (f64::from(row.bits), row.fid)),
        references: vec![
            Reference { name: "full precision".into(), y: summary.fid_full },
            Reference { name: "real images".into(), y: summary.fid_real },
        ],
    }
    .svg()
}

/// Weight SQNR over true bits per weight; an SVG document.
pub(crate) fn sqnr(rows: &[Row]) -> String {
    Chart {
        title: "Weight error against true size".into(),
        x_label: "bits per weight, codebooks included".into(),
        y_label: "SQNR of the weights (dB), higher is better".into(),
        y_scale: Scale::Linear,
        series: by_scheme(rows, |row| (row.bits_per_weight, row.sqnr_db)),
        references: Vec::new(),
    }
    .svg()
}

/// PSNR of paired samples over bits; an SVG document.
pub(crate) fn psnr(rows: &[Row]) -> String {
    Chart {
        title: "Samples against full precision, same noise".into(),
        x_label: "bits per code".into(),
        y_label: "PSNR of the samples (dB), higher is better".into(),
        y_scale: Scale::Linear,
        series: by_scheme(rows, |row| (f64::from(row.bits), row.psnr_db)),
        references: Vec::new(),
    }
    .svg()
}

/// Mean loss over epochs, `(epoch, loss)`; an SVG document. Of a long run neighbouring epochs share
/// a point, their mean.
pub(crate) fn loss(epochs: &[(f64, f64)]) -> String {
    const POINTS: usize = 60;
    let mean = |chunk: &[(f64, f64)]| {
        let sum = chunk.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / chunk.len() as f64, sum.1 / chunk.len() as f64)
    };
    let points = epochs.chunks(epochs.len().div_ceil(POINTS).max(1)).map(mean).collect();
    Chart {
        title: "Training loss".into(),
        x_label: "epoch".into(),
        y_label: "mean squared error of the velocity".into(),
        y_scale: Scale::Log,
        series: vec![Series { name: "train loss".into(), points }],
        references: Vec::new(),
    }
    .svg()
}

/// A line for each scheme, in order of first appearance so that colours agree between plots.
fn by_scheme(rows: &[Row], point: impl Fn(&Row) -> (f64, f64)) -> Vec<Series> {
    schemes(rows)
        .into_iter()
        .map(|scheme| {
            let own = rows.iter().filter(|row| row.scheme == scheme);
            let mut points: Vec<_> = own.map(&point).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series { name: scheme.into(), points }
        })
        .collect()
}

/// The schemes of `rows`, each once, in order of first appearance.
pub(super) fn schemes(rows: &[Row]) -> Vec<&str> {
    let mut schemes = Vec::new();
    for row in rows {
        if !schemes.contains(&row.scheme.as_str()) {
            schemes.push(&row.scheme);
        }
    }
    schemes
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn every_scheme_has_a_line_and_every_row_a_point() {
        let (summary, rows) = (sample::summary(), sample::rows());
        for svg in [fid(&summary, &rows), sqnr(&rows), psnr(&rows)] {
            assert_eq!(svg.matches("<polyline").count(), 4);
            assert_eq!(svg.matches("<title>").count(), rows.len());
            for scheme in schemes(&rows) {
                assert!(svg.contains(&format!(">{scheme}</text>")), "{scheme}");
            }
        }
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
        for series in by_scheme(&rows, |row| (f64::from(row.bits), row.fid)) {
            assert!(series.points.is_sorted_by(|a, b| a.0 < b.0));
        }
        assert_eq!(schemes(&rows)[0], "lloyd-max");
    }
}
