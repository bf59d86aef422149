//! Grids of samples: a table of schemes and bits, of which the script shows one column at a time.

use core::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::{Levels, Row, Summary, bit_counts, bits_name, distinct, escape};

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
pub(super) fn section(out: &mut String, summary: &Summary, rows: &[Row], pictures: &Pictures<'_>) {
    out.push_str("<h2>Samples</h2>\n<div class=\"by-bits samples\">\n<div class=\"top\">\n");
    let label = &summary.fid_label;
    let known = [
        ("full precision", Some(pictures.full), summary.fid_full),
        ("real images", pictures.real, summary.fid_real),
    ];
    for (name, png, fid) in known {
        if let Some(png) = png {
            let _ = write!(out, "<div><p class=\"name\">{name}</p>");
            picture(out, png, name, &format!("{label} {fid:.2}"));
            out.push_str("</div>\n");
        }
    }
    out.push_str("</div>\n<div class=\"wide\"><table>\n<thead><tr><td></td>");
    let all_bits = bit_counts(rows.iter().map(|row| row.bits));
    for bits in &all_bits {
        let _ = write!(out, "<th scope=\"col\">{}</th>", bits_name(*bits));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for scheme in distinct(rows.iter().map(|row| row.scheme.as_str())) {
        let _ = write!(out, "<tr><th scope=\"row\" class=\"name\">{}</th>", escape(scheme));
        for bits in &all_bits {
            let _ = write!(out, "<td data-bits=\"{bits}\">");
            let at = rows.iter().position(|row| row.scheme == scheme && row.bits == *bits);
            if let Some((row, png)) = at.and_then(|at| rows.get(at).zip(pictures.rows.get(at))) {
                let name = format!("{scheme}, {}", bits_name(*bits));
                let caption = format!("{:.2} bpw\n{label} {:.2}", row.bits_per_weight, row.fid);
                picture(out, png, &name, &caption);
            }
            out.push_str("</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n</div>\n");
}

fn picture(out: &mut String, png: &[u8], name: &str, caption: &str) {
    let _ = write!(
        out,
        "<figure><img alt=\"samples: {}\" src=\"data:image/png;base64,{}\"/><figcaption>{}</figcaption></figure>",
        escape(name),
        STANDARD.encode(png),
        escape(caption)
    );
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
            let mut out = String::new();
            section(&mut out, &sample::summary(), &rows, &pictures);
            out
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
