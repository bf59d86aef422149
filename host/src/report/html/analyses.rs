//! The sections of the analyses beyond samples and distances, one for each that was made.

use maud::{Markup, PreEscaped, html};

use super::super::column::Column;
use super::super::{Levels, Row, Summary, bits_name, level_histograms, plots, themes};
use super::figures;
use super::table::{self, TableRow};

/// All sections for which there are numbers.
pub(super) fn sections(summary: &Summary, rows: &[Row], levels: Option<&Levels>) -> Markup {
    let compared = |row: &Row| row.feature_distance.is_some() || row.velocity_psnr_db.is_some();
    html! {
        @if rows.iter().any(compared) {
            h2 { "Further comparisons" }
            p {
                "Other measures of the same rows: of weights, paired samples and, as the paper \
                compares, of velocities."
            }
            (table::of_rows(&themes::pairs(), rows))
        }
        (analysis(
            "Latent space",
            &latent_text(summary),
            &themes::latent(),
            summary.latent.as_ref(),
            lines(rows, |row| row.latent.as_ref()),
        ))
        (analysis(
            "Noise of real images",
            "The ODE run backward from real images: what it finds is normal noise where the net is \
            right, and forward again leads back to the images.",
            &themes::inversion(),
            summary.inversion.as_ref(),
            lines(rows, |row| row.inversion.as_ref()),
        ))
        (divergence(summary, rows))
        (bounds(summary, rows))
        @if let Some(levels) = levels { (weights(levels)) }
    }
}

/// A section of one table, if there is anything in it.
fn analysis<T>(
    title: &str,
    text: &str,
    columns: &[Column<'_, T>],
    full: Option<&T>,
    lines: Vec<TableRow<'_, T>>,
) -> Markup {
    html! {
        @if full.is_some() || !lines.is_empty() {
            h2 { (title) }
            p { (text) }
            (table::table(columns, full, lines))
        }
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
fn divergence(summary: &Summary, rows: &[Row]) -> Markup {
    let all_bits = plots::divergence_bits(rows);
    html! {
        @if !all_bits.is_empty() {
            h2 { "Divergence of trajectories" }
            p {
                "How far samples are from those of full precision on the way from the same noise."
            }
            .by-bits.plots {
                @for bits in all_bits {
                    figure data-bits=(bits) { (PreEscaped(plots::divergence(summary, rows, bits))) }
                }
            }
        }
    }
}

/// The bounds and the constants that they come from.
fn bounds(summary: &Summary, rows: &[Row]) -> Markup {
    let charts: Vec<_> = plots::bounds(rows).into_iter().chain(plots::lipschitz(summary)).collect();
    let lines = lines(rows, |row| row.bounds.as_ref());
    html! {
        @if !charts.is_empty() {
            h2 { "Bounds of the error" }
            p {
                "The error of samples as measured, and what Gr\u{f6}nwall's inequality allows it \
                to be given the Lipschitz constants of the velocity. The constants are estimated at \
                points of trajectories, so the bounds are estimates too."
            }
            (figures(charts))
            @if !lines.is_empty() { (table::table(&themes::bounds(), None, lines)) }
        }
    }
}

/// A histogram for each scheme and number of bits.
fn weights(known: &Levels) -> Markup {
    html! {
        h2 { "Weights and levels" }
        p {
            "The weights of channel " (known.channel) " of " (known.tensor) " (grey), and the \
            levels that they are rounded to."
        }
        .by-bits {
            @for bits in plots::level_bits(known) {
                figure data-bits=(bits) {
                    figcaption { (bits_name(bits)) }
                    .panels {
                        @for svg in level_histograms::panels(known, bits) { (PreEscaped(svg)) }
                    }
                }
            }
        }
    }
}
