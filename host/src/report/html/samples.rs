//! Grids of samples: a table of schemes and bits, of which the script shows one column at a time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use super::super::{Levels, Row, Summary, bit_counts, bits_name, distinct};

/// The pictures that the page shows beside the numbers.
pub(crate) struct Pictures<'a> {
    /// PNG of the full-precision net's samples.
    pub(crate) full: &'a [u8],
    /// PNG of real images, if any are to be shown.
    pub(crate) real: Option<&'a [u8]>,
    /// PNG of samples for the row at the same place, from the same noise as `full`; rows beyond
    /// the last have none.
    pub(crate) rows: &'a [Vec<u8>],
    /// Weights and the levels that they are rounded to, if these are to be shown.
    pub(crate) levels: Option<&'a Levels>,
}

/// Full precision and real images, then a row for each scheme and a column for each number of bits.
pub(super) fn section(summary: &Summary, rows: &[Row], pictures: &Pictures<'_>) -> Markup {
    let label = &summary.fid_label;
    let known = [
        ("full precision", Some(pictures.full), summary.fid_full),
        ("real images", pictures.real, summary.fid_real),
    ];
    let all_bits = bit_counts(rows.iter().map(|row| row.bits));
    let caption = |row: &Row| format!("{:.2} bpw\n{label} {:.2}", row.bits_per_weight, row.fid);
    let of = |scheme: &str, bits| {
        let at = rows.iter().position(|row| row.scheme == scheme && row.bits == bits)?;
        rows.get(at).zip(pictures.rows.get(at))
    };
    html! {
        h2 { "Samples" }
        .by-bits.samples {
            .top {
                @for (name, png, fid) in known {
                    @if let Some(png) = png {
                        div { p.name { (name) } (picture(png, name, &format!("{label} {fid:.2}"))) }
                    }
                }
            }
            .wide {
                table {
                    thead {
                        tr {
                            td {}
                            @for bits in &all_bits { th scope="col" { (bits_name(*bits)) } }
                        }
                    }
                    tbody {
                        @for scheme in distinct(rows.iter().map(|row| row.scheme.as_str())) {
                            tr {
                                th.name scope="row" { (scheme) }
                                @for bits in &all_bits {
                                    td data-bits=(bits) {
                                        @if let Some((row, png)) = of(scheme, *bits) {
                                            @let name = format!("{scheme}, {}", bits_name(*bits));
                                            (picture(png, &name, &caption(row)))
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn picture(png: &[u8], name: &str, caption: &str) -> Markup {
    html! {
        figure {
            img alt={ "samples: " (name) } src={ "data:image/png;base64," (STANDARD.encode(png)) };
            figcaption { (caption) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    #[test]
    fn pictures_are_placed_by_scheme_and_bits() {
        let rows = sample::rows();
        let section = |count: usize| {
            let grids = vec![b"grid".to_vec(); count];
            let pictures =
                Pictures { full: b"full", real: Some(b"real"), rows: &grids, levels: None };
            section(&sample::summary(), &rows, &pictures).into_string()
        };
        let grids = |page: &str| page.matches(&STANDARD.encode("grid")).count();
        let all = section(rows.len());
        assert_eq!(grids(&all), rows.len());
        assert!(all.contains(&STANDARD.encode("full")) && all.contains(&STANDARD.encode("real")));
        assert!(all.contains("alt=\"samples: lloyd-max, 8 bits\""));
        assert_eq!(all.matches("data-bits=\"8\"").count(), 4);
        // A sweep that has drawn only some of its samples still has a page.
        assert_eq!(grids(&section(3)), 3);
    }
}
