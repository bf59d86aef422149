//! Tables of numbers, a block of rows for each number of bits. The script makes them sort.

use core::fmt::Write as _;

use quant_core::rate::Rate;

use super::super::column::{Column, Mark};
use super::super::{Row, escape};

/// Writes the meaning of the marks; that of ties only where there are intervals.
pub(super) fn legend(out: &mut String, intervals: bool) {
    out.push_str(
        "<p class=\"small\"><span class=\"best\">Best</span> of the schemes at the same bits",
    );
    if intervals {
        out.push_str(
            "; <span class=\"tie\">tied</span> with it: they differ by less than the 95 % interval \
             of their difference. ± is half of a 95 % interval",
        );
    }
    out.push_str(".</p>\n");
}

/// A line of a table.
pub(super) struct TableRow<'a, T> {
    pub(super) bits: Rate,
    pub(super) scheme: &'a str,
    pub(super) item: &'a T,
}

/// A table of all rows.
pub(super) fn of_rows(out: &mut String, columns: &[Column<'_, Row>], rows: &[Row]) {
    let lines = rows.iter().map(|row| TableRow { bits: row.bits, scheme: &row.scheme, item: row });
    table(out, columns, None, lines.collect());
}

/// A table of `lines`, after one of full precision. Columns in which nothing was measured are left
/// out.
pub(super) fn table<T>(
    out: &mut String,
    columns: &[Column<'_, T>],
    full: Option<&T>,
    mut lines: Vec<TableRow<'_, T>>,
) {
    let items = || full.into_iter().chain(lines.iter().map(|line| line.item));
    let measured = |column: &&Column<'_, T>| items().any(|item| !column.text(item).is_empty());
    let columns: Vec<&Column<'_, T>> = columns.iter().filter(measured).collect();
    lines.sort_by_key(|line| line.bits);

    out.push_str("<div class=\"wide\" tabindex=\"0\"><table class=\"numbers\">\n<thead><tr>");
    out.push_str("<th scope=\"col\">bits</th><th scope=\"col\">scheme</th>");
    for column in &columns {
        let (title, meaning) = (escape(column.title), escape(column.meaning));
        let _ = write!(out, "<th scope=\"col\" title=\"{meaning}\">{title}</th>");
    }
    out.push_str("</tr></thead>\n");
    if let Some(item) = full {
        out.push_str("<tbody>\n");
        line(out, "32", "full precision", columns.iter().map(|column| (column.text(item), None)));
        out.push_str("</tbody>\n");
    }
    for block in lines.chunk_by(|a, b| a.bits == b.bits) {
        let items: Vec<&T> = block.iter().map(|line| line.item).collect();
        let marks: Vec<_> = columns.iter().map(|column| column.marks(&items)).collect();
        out.push_str("<tbody>\n");
        for (at, entry) in block.iter().enumerate() {
            let cells = columns.iter().zip(&marks);
            let cells = cells.map(|(column, marks)| (column.text(entry.item), marks[at]));
            line(out, &entry.bits.to_string(), entry.scheme, cells);
        }
        out.push_str("</tbody>\n");
    }
    out.push_str("</table></div>\n<details><summary>What the columns say</summary><dl>\n");
    for column in &columns {
        let (title, meaning) = (escape(column.title), escape(column.meaning));
        let _ = writeln!(out, "<div><dt>{title}</dt><dd>{meaning}</dd></div>");
    }
    out.push_str("</dl></details>\n");
}

fn line(
    out: &mut String,
    bits: &str,
    scheme: &str,
    cells: impl Iterator<Item = (String, Option<Mark>)>,
) {
    let _ = write!(out, "<tr><td>{bits}</td><th scope=\"row\">{}</th>", escape(scheme));
    for (text, mark) in cells {
        let class = match mark {
            Some(Mark::Best) => " class=\"best\"",
            Some(Mark::Tie) => " class=\"tie\"",
            None => "",
        };
        let _ = write!(out, "<td{class}>{text}</td>");
    }
    out.push_str("</tr>\n");
}

#[cfg(test)]
mod tests {
    use super::super::super::column::Digits;
    use super::super::super::{sample, themes};
    use super::*;

    #[test]
    fn best_and_ties_are_marked_block_by_block() {
        let mut out = String::new();
        let mut rows = sample::rows();
        rows.retain(|row| [2, 8].map(sample::whole).contains(&row.bits));
        of_rows(&mut out, &themes::results(&sample::summary()), &rows);
        let blocks: Vec<&str> = out.split("<tbody>").skip(1).collect();
        assert_eq!(blocks.len(), 2);
        // At 8 bits all distances lie within 0.3; at 2 bits none does.
        assert!(blocks[0].contains("<tr><td>2</td><th scope=\"row\">ot</th>"));
        assert_eq!(blocks[0].matches("class=\"tie\"").count(), 0);
        assert_eq!(blocks[1].matches("class=\"tie\"").count(), 1);
        assert!(blocks[1].contains("<td class=\"tie\">9.42 ± 0.30</td>"), "{}", blocks[1]);
        assert!(blocks[1].contains("<td class=\"best\">9.41 ± 0.30</td>"), "{}", blocks[1]);
    }

    #[test]
    fn columns_without_a_number_are_left_out() {
        let columns = [
            Column::new("known", "it is", Digits::Fixed(1), |x: &f64| Some(*x)),
            Column::new("unknown", "it is not", Digits::Fixed(1), |_: &f64| None),
        ];
        let mut out = String::new();
        let line = |bits, item| TableRow { bits, scheme: "ot", item };
        table(
            &mut out,
            &columns,
            Some(&7.0),
            vec![line(sample::whole(3), &3.0), line(sample::whole(2), &2.0)],
        );
        assert!(out.contains(">known</th>") && !out.contains("unknown"));
        let [full, two, three] = [">7.0<", ">2.0<", ">3.0<"].map(|cell| out.find(cell).unwrap());
        assert!(full < two && two < three, "full precision, then bits in order");
        assert!(out.contains("<td>32</td><th scope=\"row\">full precision</th>"));
    }
}
