//! The rows as text for a terminal and as CSV for a spreadsheet.

use core::fmt::Write as _;

use serde_json::{Map, Value};

use super::column::{Column, Mark};
use super::{Row, Summary, themes};

/// The results for a terminal: a line on what was run, then an aligned table. Where intervals are
/// known, the best of the schemes at the same bits is marked, and those tied with it.
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
    let columns = themes::results(summary);
    let titles = ["scheme", "bits"].into_iter().chain(columns.iter().map(|column| column.title));
    let mut lines: Vec<Vec<String>> = vec![titles.map(String::from).collect()];
    lines.extend(rows.iter().map(|row| vec![row.scheme.clone(), row.bits.to_string()]));
    let mut marked = false;
    for column in &columns {
        let intervals = rows.iter().any(|row| (column.error)(row).is_some());
        marked |= intervals;
        for (row, line) in rows.iter().zip(&mut lines[1..]) {
            // As narrow as can be read.
            let text = column.text(row).replace(" ± ", "±");
            line.push(text + if intervals { mark(column, row, rows) } else { "" });
        }
    }
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
    if marked {
        out += "\n± half of the 95 % interval; * best at these bits, ~ tied with it\n";
    }
    out
}

/// The mark of `row` among those with as many bits, one letter wide.
fn mark(column: &Column<'_, Row>, row: &Row, rows: &[Row]) -> &'static str {
    let block: Vec<&Row> = rows.iter().filter(|other| other.bits == row.bits).collect();
    let own = block.iter().zip(column.marks(&block)).find(|(other, _)| other.scheme == row.scheme);
    match own.and_then(|(_, mark)| mark) {
        Some(Mark::Best) => "*",
        Some(Mark::Tie) => "~",
        None => " ",
    }
}

/// The rows as CSV after RFC 4180, at full precision. The columns are the fields of `results.json`,
/// those of a group after its name (`latent_own_mean`); the values of a list are separated by
/// spaces. What was not measured is left empty.
pub(crate) fn csv(rows: &[Row]) -> String {
    let rows: Vec<Vec<(String, String)>> = rows.iter().map(fields).collect();
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut out = names.join(",") + "\r\n";
    for row in &rows {
        let value = |name: &&str| row.iter().find(|(known, _)| known == name).map(|it| &it.1[..]);
        let line: Vec<_> = names.iter().map(|name| quoted(value(name).unwrap_or(""))).collect();
        out += &(line.join(",") + "\r\n");
    }
    out
}

/// The fields of a row with their values as text.
fn fields(row: &Row) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    if let Ok(Value::Object(row)) = serde_json::to_value(row) {
        flatten("", &row, &mut fields);
    }
    fields
}

fn flatten(prefix: &str, object: &Map<String, Value>, fields: &mut Vec<(String, String)>) {
    for (name, value) in object {
        let name = format!("{prefix}{name}");
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            value => value.to_string(),
        };
        match value {
            // Groups are two deep at most.
            Value::Object(group) => flatten(&format!("{name}_"), group, fields),
            Value::Array(values) => {
                fields.push((name, values.iter().map(text).collect::<Vec<_>>().join(" ")));
            }
            value => fields.push((name, text(value))),
        }
    }
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
    use fm_candle::eval::bounds::Bounds;

    use super::super::sample;
    use super::*;

    #[test]
    fn columns_of_the_text_table_line_up() {
        let mut rows = sample::rows();
        for row in &mut rows {
            (row.fid_error, row.psnr_error) = (None, None);
        }
        let text = text(&sample::summary(), &rows);
        let lines: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(lines.len(), 1 + sample::rows().len());
        assert!(lines[0].starts_with("scheme     bits  bits/weight"), "{}", lines[0]);
        assert!(lines[1].starts_with("ot            2        2.315"), "{}", lines[1]);
        assert!(lines.iter().all(|line| line.len() == lines[0].len()));
        assert!(!text.contains(['*', '~', '±']), "{text}");
    }

    #[test]
    fn the_text_table_marks_the_best_and_its_ties() {
        let mut rows = sample::rows();
        rows.retain(|row| row.bits == sample::whole(8));
        let text = text(&sample::summary(), &rows);
        let line = |scheme: &str| {
            text.lines().find(|line| line.split(' ').next() == Some(scheme)).unwrap().to_string()
        };
        // The distances at 8 bits differ by less than 0.01, the PSNR by dB.
        assert!(line("lloyd-max").contains("±0.30*") && line("lloyd-max").contains("±0.10*"));
        let line = line("uniform");
        assert!(line.contains("±0.30~") && line.contains("±0.10 "), "{text}");
        let length = |line: &str| line.chars().count();
        assert!(text.lines().all(|line| length(line) <= 112), "{text}");
        assert!(text.ends_with("~ tied with it\n"));
    }

    #[test]
    fn csv_holds_every_field_of_a_row() {
        let (mut first, second) = (sample::rows()[0].clone(), sample::rows()[1].clone());
        first.bounds =
            Some(Bounds { weights: 0.5, error: 1.0, from_velocity: 2.0, from_weights: 1e30 });
        first.divergence = vec![0.0, 0.25];
        let csv = csv(&[first, second]);
        let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
        let value = |line: usize, name: &str| {
            lines[line][lines[0].iter().position(|known| *known == name).unwrap()]
        };
        assert!(lines.iter().all(|line| line.len() == lines[0].len()));
        assert_eq!((value(1, "scheme"), value(2, "bits"), value(1, "ssim")), ("ot", "3", ""));
        assert_eq!((value(1, "bounds_error"), value(1, "bounds_from_weights")), ("1.0", "1e+30"));
        assert_eq!((value(2, "bounds_error"), value(1, "divergence")), ("", "0.0 0.25"));
        assert_eq!(csv.matches("\r\n").count(), 3);
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
        let mut lines = csv.lines();
        let names: Vec<&str> = lines.next().unwrap().split(',').collect();
        for (line, row) in lines.zip(&rows) {
            let number = |name: &str| {
                let at = names.iter().position(|known| *known == name).unwrap();
                line.split(',').nth(at).unwrap().parse::<f64>().unwrap().to_bits()
            };
            assert_eq!(number("sqnr_db"), row.sqnr_db.to_bits());
            assert_eq!(number("mse"), row.mse.to_bits());
            assert_eq!(number("fid"), row.fid.to_bits());
        }
    }
}
