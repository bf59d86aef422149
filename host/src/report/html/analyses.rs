//! The sections of the analyses beyond samples and distances, one for each that was made.

use core::fmt::Write as _;

use super::super::column::Column;
use super::super::{Levels, Row, Summary, bits_name, escape, level_histograms, plots, themes};
use super::table::{self, TableRow};

/// All sections for which there are numbers.
pub(super) fn sections(out: &mut String, summary: &Summary, rows: &[Row], levels: Option<&Levels>) {
    let compared = |row: &Row| row.feature_distance.is_some() || row.velocity_psnr_db.is_some();
    if rows.iter().any(compared) {
        heading(
            out,
            "Further comparisons",
            "Other measures of the same rows: of weights, paired samples and, as the paper compares, of velocities.",
        );
        table::of_rows(out, &themes::pairs(), rows);
    }
    analysis(
        out,
        "Latent space",
        &latent_text(summary),
        &themes::latent(),
        summary.latent.as_ref(),
        rows,
        |row| row.latent.as_ref(),
    );
    analysis(
        out,
        "Noise of real images",
        "The ODE run backward from real images: what it finds is normal noise where the net is \
         right, and forward again leads back to the images.",
        &themes::inversion(),
        summary.inversion.as_ref(),
        rows,
        |row| row.inversion.as_ref(),
    );
    divergence(out, summary, rows);
    bounds(out, summary, rows);
    if let Some(levels) = levels {
        weights(out, levels);
    }
}

fn heading(out: &mut String, title: &str, text: &str) {
    let _ = write!(out, "<h2>{}</h2>\n<p>{}</p>\n", escape(title), escape(text));
}

/// A section of one table, if there is anything in it.
fn analysis<T>(
    out: &mut String,
    title: &str,
    text: &str,
    columns: &[Column<'_, T>],
    full: Option<&T>,
    rows: &[Row],
    item: fn(&Row) -> Option<&T>,
) {
    let lines = lines(rows, item);
    if full.is_some() || !lines.is_empty() {
        heading(out, title, text);
        table::table(out, columns, full, lines);
    }
}

/// A line for each row that has the item.
fn lines<T>(rows: &[Row], item: fn(&Row) -> Option<&T>) -> Vec<TableRow<'_, T>> {
    rows.iter()
        .filter_map(|row| Some(TableRow { bits: row.bits, scheme: &row.scheme, item: item(row)? }))
        .collect()
}

fn latent_text(summary: &Summary) -> String {
    let units = summary.latent.map_or_else(String::new, |it| format!(" of {} units", it.units));
    format!(
        "Bottleneck latents{units} of real images. \u{201c}Own\u{201d} are the variances along each \
         net's own principal components, as the paper has them: their axes differ from net to net. \
         \u{201c}Common\u{201d} are those along the components of full precision, which compare."
    )
}

/// A chart for each number of bits.
fn divergence(out: &mut String, summary: &Summary, rows: &[Row]) {
    let all_bits = plots::divergence_bits(rows);
    if all_bits.is_empty() {
        return;
    }
    heading(
        out,
        "Divergence of trajectories",
        "How far samples are from those of full precision on the way from the same noise.",
    );
    out.push_str("<div class=\"by-bits plots\">\n");
    for bits in all_bits {
        let svg = plots::divergence(summary, rows, bits);
        let _ = writeln!(out, "<figure data-bits=\"{bits}\">{svg}</figure>");
    }
    out.push_str("</div>\n");
}

/// The bounds and the constants that they come from.
fn bounds(out: &mut String, summary: &Summary, rows: &[Row]) {
    let charts: Vec<_> = plots::bounds(rows).into_iter().chain(plots::lipschitz(summary)).collect();
    if charts.is_empty() {
        return;
    }
    heading(
        out,
        "Bounds of the error",
        "The error of samples as measured, and what Gr\u{f6}nwall's inequality allows it to be given \
         the Lipschitz constants of the velocity. The constants are estimated at points of \
         trajectories, so the bounds are estimates too.",
    );
    out.push_str("<div class=\"plots\">\n");
    for svg in charts {
        let _ = writeln!(out, "<figure>{svg}</figure>");
    }
    out.push_str("</div>\n");
    let lines = lines(rows, |row| row.bounds.as_ref());
    if !lines.is_empty() {
        table::table(out, &themes::bounds(), None, lines);
    }
}

/// A histogram for each scheme and number of bits.
fn weights(out: &mut String, known: &Levels) {
    let text = format!(
        "The weights of channel {} of {} (grey), and the levels that they are rounded to.",
        known.channel, known.tensor
    );
    heading(out, "Weights and levels", &text);
    out.push_str("<div class=\"by-bits\">\n");
    for bits in plots::level_bits(known) {
        let _ = writeln!(
            out,
            "<figure data-bits=\"{bits}\"><figcaption>{}</figcaption><div class=\"panels\">",
            bits_name(bits)
        );
        out.extend(level_histograms::panels(known, bits));
        out.push_str("</div></figure>\n");
    }
    out.push_str("</div>\n");
}
