//! One HTML page with everything: it opens offline, runs no script and loads nothing.

use core::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tables::{Better, Column, columns};
use super::{Row, Summary, escape, plots};

/// What the page shows beside the numbers.
pub(crate) struct Pictures<'a> {
    /// PNG of the full-precision net's samples.
    pub(crate) full: &'a [u8],
    /// PNG of real images, if any are to be shown.
    pub(crate) real: Option<&'a [u8]>,
    /// PNG of samples for the row at the same place, from the same noise as `full`; rows beyond
    /// the last have none.
    pub(crate) rows: &'a [Vec<u8>],
}

/// The page. Bits ascend; schemes keep the order of `rows`.
pub(crate) fn page(summary: &Summary, rows: &[Row], pictures: &Pictures<'_>) -> String {
    let mut out = format!(
        concat!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n",
            "<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        ),
        title = escape(&format!("Quantizing {}", summary.model)),
        style = STYLE,
    );
    facts(&mut out, summary);
    out.push_str("<h2>Results</h2>\n");
    table(&mut out, summary, rows);
    out.push_str("<h2>Curves</h2>\n<div class=\"plots\">\n");
    for svg in [plots::psnr(rows), plots::sqnr(rows), plots::fid(summary, rows)] {
        let _ = writeln!(out, "<figure>{svg}</figure>");
    }
    out.push_str("</div>\n<h2>Samples</h2>\n");
    samples(&mut out, summary, rows, pictures);
    notes(&mut out, summary);
    out.push_str("</body>\n</html>\n");
    out
}

/// What was run.
fn facts(out: &mut String, summary: &Summary) {
    let facts = [
        (
            "Weights",
            format!("{}, {} in f32", grouped(summary.parameters), bytes(summary.dense_bytes)),
        ),
        ("Samples", format!("{} for each row, from the same noise", summary.n)),
        ("Sampler", format!("{}, seed {}", summary.sampler, summary.seed)),
        ("Distance", format!("{} against {}", summary.fid_label, summary.fid_reference)),
        ("Distance at full precision", format!("{:.2}", summary.fid_full)),
        (
            "Distance of real images",
            format!(
                "{:.2} for {} that the reference does not hold",
                summary.fid_real, summary.n_real
            ),
        ),
    ];
    out.push_str("<dl>\n");
    for (term, fact) in facts {
        let _ = writeln!(out, "<div><dt>{term}</dt><dd>{}</dd></div>", escape(&fact));
    }
    out.push_str("</dl>\n");
}

/// The table, a block of rows for each number of bits.
fn table(out: &mut String, summary: &Summary, rows: &[Row]) {
    let columns = columns(summary);
    out.push_str(
        "<div class=\"wide\"><table class=\"numbers\">\n<thead><tr><th>bits</th><th>scheme</th>",
    );
    for column in &columns {
        let _ =
            write!(out, "<th title=\"{}\">{}</th>", escape(column.meaning), escape(column.title));
    }
    out.push_str("</tr></thead>\n");
    for bits in bit_counts(rows) {
        let block: Vec<&Row> = rows.iter().filter(|row| row.bits == bits).collect();
        let best = columns.each_ref().map(|column| best(column, &block));
        out.push_str("<tbody>\n");
        for row in &block {
            let _ = write!(out, "<tr><td>{bits}</td><th>{}</th>", escape(&row.scheme));
            for (column, best) in columns.iter().zip(&best) {
                let text = (column.text)(row);
                let class = if best.as_ref() == Some(&text) { " class=\"best\"" } else { "" };
                let _ = write!(out, "<td{class}>{text}</td>");
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n");
    }
    out.push_str(
        "</table></div>\n<p class=\"small\">Tinted: the best of the schemes at the same bits. \
         Hover over a heading for its meaning.</p>\n",
    );
}

/// The best entry of a column as printed, unless all entries read the same.
fn best(column: &Column<'_>, block: &[&Row]) -> Option<String> {
    let (value, sign): (fn(&Row) -> f64, f64) = match column.better? {
        Better::Higher(value) => (value, 1.0),
        Better::Lower(value) => (value, -1.0),
    };
    let known = block.iter().filter(|row| !value(row).is_nan());
    let best = known.max_by(|a, b| (sign * value(a)).total_cmp(&(sign * value(b))));
    let text = (column.text)(best?);
    block.iter().any(|row| (column.text)(row) != text).then_some(text)
}

/// Full precision on top, then a row for each scheme and a column for each number of bits.
fn samples(out: &mut String, summary: &Summary, rows: &[Row], pictures: &Pictures<'_>) {
    out.push_str("<div class=\"top\">\n");
    let label = &summary.fid_label;
    let full = format!("full precision\n{label} {:.2}", summary.fid_full);
    picture(out, pictures.full, "full precision", &full);
    if let Some(real) = pictures.real {
        picture(out, real, "real images", &format!("real images\n{label} {:.2}", summary.fid_real));
    }
    out.push_str("</div>\n<div class=\"wide\"><table class=\"samples\">\n<thead><tr><td></td>");
    let all_bits = bit_counts(rows);
    for bits in &all_bits {
        let _ = write!(out, "<th>{bits} {}</th>", if *bits == 1 { "bit" } else { "bits" });
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for scheme in plots::schemes(rows) {
        let _ = write!(out, "<tr><th>{}</th>", escape(scheme));
        for bits in &all_bits {
            out.push_str("<td>");
            let at = rows.iter().position(|row| row.scheme == scheme && row.bits == *bits);
            if let Some((row, png)) = at.and_then(|at| rows.get(at).zip(pictures.rows.get(at))) {
                let name = format!("{scheme}, {bits} bits");
                let caption = format!("{:.2} bpw\n{label} {:.2}", row.bits_per_weight, row.fid);
                picture(out, png, &name, &caption);
            }
            out.push_str("</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
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

/// How to read the page, then the run's own remarks.
fn notes(out: &mut String, summary: &Summary) {
    let n = summary.n;
    let reading = [
        "SQNR and PSNR decide between schemes: they compare the same weights, and samples from the \
         same noise, before and after, so chance hardly enters."
            .to_string(),
        format!(
            "{} at n = {n} illustrates. It depends on n and on which images were drawn: read \
             differences beside that of real images ({:.2}) and of full precision ({:.2}), and only \
             against distances on the same features at the same n.",
            summary.fid_label, summary.fid_real, summary.fid_full
        ),
        "Bits per weight (bpw) counts the whole packed file, codebooks and kept tensors included, \
         so schemes are compared at true size."
            .to_string(),
    ];
    out.push_str("<h2>How to read the numbers</h2>\n<ul>\n");
    for note in reading.iter().chain(&summary.notes) {
        let _ = writeln!(out, "<li>{}</li>", escape(note));
    }
    out.push_str("</ul>\n");
}

/// The numbers of bits in `rows`, ascending, each once.
fn bit_counts(rows: &[Row]) -> Vec<u8> {
    let mut bits: Vec<u8> = rows.iter().map(|row| row.bits).collect();
    bits.sort_unstable();
    bits.dedup();
    bits
}

/// `1234567` as `1 234 567`, with no-break spaces.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join("\u{a0}")
}

/// A file size with a decimal unit.
fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{} kB", n / 1000),
        _ => format!("{} MB", n / 1_000_000),
    }
}

const STYLE: &str = include_str!("style.css");

#[cfg(test)]
mod tests {
    use super::super::sample::{self, assert_well_formed};
    use super::*;

    fn page_of(rows: &[Row], pictures: usize) -> String {
        let grids = vec![b"grid".to_vec(); pictures];
        let pictures = Pictures { full: b"full", real: Some(b"real"), rows: &grids };
        page(&sample::summary(), rows, &pictures)
    }

    #[test]
    fn page_stands_alone() {
        let page = page_of(&sample::rows(), sample::rows().len());
        let body = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for outside in ["http", "//", "<script", "<link", "@import", "url("] {
            assert!(!body.contains(outside), "{outside}");
        }
        let (style_at, style_end) = (page.find("<style>").unwrap(), page.find("</style>").unwrap());
        assert_well_formed(&format!("{}{}", &page[..style_at + 7], &page[style_end..]));
    }

    #[test]
    fn text_from_outside_is_escaped() {
        let mut rows = sample::rows();
        rows[0].scheme = "<b>ot".into();
        let page = page_of(&rows, 0);
        assert!(page.contains("&lt;b&gt;ot") && !page.contains("<b>"));
        assert!(page.contains("<li>Digits 4 &amp; 9 are &lt;often&gt; confused.</li>"));
    }

    #[test]
    fn pictures_are_placed_by_scheme_and_bits() {
        let rows = sample::rows();
        let page = page_of(&rows, rows.len());
        assert_eq!(page.matches(&STANDARD.encode("grid")).count(), rows.len());
        assert!(page.contains(&STANDARD.encode("full")) && page.contains(&STANDARD.encode("real")));
        assert!(page.contains("alt=\"samples: lloyd-max, 8 bits\""));
        // A sweep that has drawn only some of its samples still has a page.
        assert_eq!(page_of(&rows, 3).matches(&STANDARD.encode("grid")).count(), 3);
        assert_well_formed(
            &page_of(&[], 0)[page.find("</style>").unwrap() + 8..]
                .replace("</head>", "")
                .replace("</html>", ""),
        );
    }

    #[test]
    fn the_best_of_each_block_is_marked() {
        let (ot, mut log) = (sample::rows()[0].clone(), sample::rows()[12].clone());
        log.ssim = Some(0.5);
        let summary = sample::summary();
        let columns = columns(&summary);
        let column = |title| columns.iter().find(|column| column.title == title).unwrap();
        let best = |title| best(column(title), &[&ot, &log]);
        assert_eq!(best("SQNR dB").as_deref(), Some("10.04"));
        assert_eq!(best("FID (LeNet features)").unwrap(), format!("{:.2}", ot.fid));
        assert_eq!(best("SSIM").as_deref(), Some("0.5000"), "the other was not measured");
        assert_eq!(best("bits/weight"), None, "equal entries are not marked");
        assert_eq!(best("seconds"), None, "not compared");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(grouped(1_234_567), "1\u{a0}234\u{a0}567");
        assert_eq!(grouped(12), "12");
        assert_eq!([bytes(9_999), bytes(38_000), bytes(28_500_000)], ["9999 B", "38 kB", "28 MB"]);
    }
}
