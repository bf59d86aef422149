//! The rows as text for a terminal and as CSV for a spreadsheet.

use core::fmt::Write as _;

use super::{Row, Summary};

/// The number that a column is compared by, and which end is the good one; NaN where unmeasured.
#[derive(Debug, Clone, Copy)]
pub(super) enum Better {
    Higher(fn(&Row) -> f64),
    Lower(fn(&Row) -> f64),
}

/// A column of the table that people read.
pub(super) struct Column<'a> {
    /// Heading, with the unit.
    pub(super) title: &'a str,
    /// One sentence for those who ask.
    pub(super) meaning: &'static str,
    /// The number as printed, empty where it was not measured.
    pub(super) text: fn(&Row) -> String,
    /// What is good; none for a column that is not compared.
    pub(super) better: Option<Better>,
}

/// The numeric columns after scheme and bits: what it costs, then what it yields.
pub(super) fn columns(summary: &Summary) -> [Column<'_>; 8] {
    [
        Column {
            title: "bits/weight",
            meaning: "Size of the packed file in bits per weight, codebooks included",
            text: |row| format!("{:.3}", row.bits_per_weight),
            better: Some(Better::Lower(|row| row.bits_per_weight)),
        },
        Column {
            title: "packed kB",
            meaning: "Size of the packed file, 1 kB = 1000 bytes",
            text: |row| format!("{}.{}", row.packed_bytes / 1000, row.packed_bytes % 1000 / 100),
            better: None,
        },
        Column {
            title: "ratio",
            meaning: "Size of the f32 weights over that of the packed file",
            text: |row| format!("{:.2}", row.ratio),
            better: None,
        },
        Column {
            title: "SQNR dB",
            meaning: "Signal to quantization noise of the weights",
            text: |row| format!("{:.2}", row.sqnr_db),
            better: Some(Better::Higher(|row| row.sqnr_db)),
        },
        Column {
            title: "PSNR dB",
            meaning: "Samples against those of full precision from the same noise",
            text: |row| format!("{:.2}", row.psnr_db),
            better: Some(Better::Higher(|row| row.psnr_db)),
        },
        Column {
            title: "SSIM",
            meaning: "Structural similarity of the same pairs of samples",
            text: |row| row.ssim.map_or_else(String::new, |ssim| format!("{ssim:.4}")),
            better: Some(Better::Higher(|row| row.ssim.unwrap_or(f64::NAN))),
        },
        Column {
            title: &summary.fid_label,
            meaning: "Fréchet distance to the reference set",
            text: |row| format!("{:.2}", row.fid),
            better: Some(Better::Lower(|row| row.fid)),
        },
        Column {
            title: "seconds",
            meaning: "Wall-clock time to quantize, sample and score",
            text: |row| format!("{:.1}", row.seconds),
            better: None,
        },
    ]
}

/// The results for a terminal: a line on what was run, then an aligned table.
pub(crate) fn text(summary: &Summary, rows: &[Row]) -> String {
    let mut out = format!(
        "{}: {} weights, {} samples each, seed {}\n{} against {}: full precision {:.2}, real {:.2}\n\n",
        summary.model,
        summary.parameters,
        summary.n,
        summary.seed,
        summary.fid_label,
        summary.fid_reference,
        summary.fid_full,
        summary.fid_real,
    );
    let columns = columns(summary);
    let titles = ["scheme", "bits"].into_iter().chain(columns.iter().map(|column| column.title));
    let mut lines: Vec<Vec<String>> = vec![titles.map(String::from).collect()];
    lines.extend(rows.iter().map(|row| {
        let numbers = columns.iter().map(|column| (column.text)(row));
        [row.scheme.clone(), row.bits.to_string()].into_iter().chain(numbers).collect()
    }));
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len() + 2).map(width).collect();
    for line in &lines {
        let _ = write!(out, "{:<width$}", line[0], width = widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            let _ = write!(out, "  {cell:>width$}");
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
    out
}

/// The rows as CSV after RFC 4180, at full precision; an SSIM that was not measured is left empty.
pub(crate) fn csv(rows: &[Row]) -> String {
    let mut out = String::from(
        "scheme,bits,sqnr_db,mse,bits_per_weight,packed_bytes,ratio,psnr_db,ssim,fid,seconds\r\n",
    );
    for row in rows {
        let ssim = row.ssim.map(|ssim| ssim.to_string()).unwrap_or_default();
        let _ = write!(
            out,
            "{},{},{},{:e},{},{},{},{},{ssim},{},{}\r\n",
            quoted(&row.scheme),
            row.bits,
            row.sqnr_db,
            row.mse,
            row.bits_per_weight,
            row.packed_bytes,
            row.ratio,
            row.psnr_db,
            row.fid,
            row.seconds,
        );
    }
    out
}

/// `field`, in quotes if it holds any of the characters that CSV itself uses.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn columns_of_the_text_table_line_up() {
        let text = text(&sample::summary(), &sample::rows());
        let lines: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(lines.len(), 1 + sample::rows().len());
        assert!(lines[0].starts_with("scheme     bits  bits/weight"), "{}", lines[0]);
        assert!(lines[1].starts_with("ot            2        2.315"), "{}", lines[1]);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()));
    }

    #[test]
    fn csv_holds_every_field_of_a_row() {
        let csv = csv(&sample::rows());
        let serde_json::Value::Object(fields) = serde_json::to_value(&sample::rows()[0]).unwrap()
        else {
            panic!("a row is an object")
        };
        let header: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
        assert_eq!(header, fields.keys().map(String::as_str).collect::<Vec<_>>());
        assert!(csv.lines().all(|line| line.split(',').count() == header.len()));
        assert_eq!(csv.matches("\r\n").count(), 1 + sample::rows().len());
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        assert_eq!(quoted("ot"), "ot");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"b\"\n"), "\"say \"\"b\"\"\n\"");
    }

    #[test]
    fn csv_numbers_read_back_exactly() {
        let rows = sample::rows();
        let csv = csv(&rows);
        for (line, row) in csv.lines().skip(1).zip(&rows) {
            let fields: Vec<&str> = line.split(',').collect();
            let number = |at: usize| fields[at].parse::<f64>().unwrap().to_bits();
            assert_eq!(number(2), row.sqnr_db.to_bits());
            assert_eq!(number(3), row.mse.to_bits());
            assert_eq!(number(9), row.fid.to_bits());
        }
    }
}
