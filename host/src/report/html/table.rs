//! Tables of numbers, a block of rows for each number of bits. The script makes them sort.

use maud::{Markup, html};
use quant_core::rate::Rate;

use super::super::Row;
use super::super::column::{Column, Mark};
use super::definitions;

/// The meaning of the marks; that of ties only where there are intervals.
pub(super) fn legend(intervals: bool) -> Markup {
    html! {
        p.small {
            span.best { "Best" } " of the schemes at the same bits"
            @if intervals {
                "; " span.tie { "tied" } " with it: they differ by less than the 95 % interval of \
                their difference. ± is half of a 95 % interval"
            }
            "."
        }
    }
}

/// A line of a table.
pub(super) struct TableRow<'a, T> {
    pub(super) bits: Rate,
    pub(super) scheme: &'a str,
    pub(super) item: &'a T,
}

/// A table of all rows.
pub(super) fn of_rows(columns: &[Column<'_, Row>], rows: &[Row]) -> Markup {
    let lines = rows.iter().map(|row| TableRow { bits: row.bits, scheme: &row.scheme, item: row });
    table(columns, None, lines.collect())
}

/// A table of `lines`, after one of full precision. Columns in which nothing was measured are left
/// out.
pub(super) fn table<T>(
    columns: &[Column<'_, T>],
    full: Option<&T>,
    mut lines: Vec<TableRow<'_, T>>,
) -> Markup {
    let items = || full.into_iter().chain(lines.iter().map(|line| line.item));
    let measured = |column: &&Column<'_, T>| items().any(|item| !column.text(item).is_empty());
    let columns: Vec<&Column<'_, T>> = columns.iter().filter(measured).collect();
    lines.sort_by_key(|line| line.bits);
    html! {
        .wide tabindex="0" {
            table.numbers {
                thead {
                    tr {
                        th scope="col" { "bits" } th scope="col" { "scheme" }
                        @for column in &columns {
                            th scope="col" title=(column.meaning) { (column.title) }
                        }
                    }
                }
                @if let Some(item) = full {
                    @let cells = columns.iter().map(|column| (column.text(item), None));
                    tbody { (line("32", "full precision", cells)) }
                }
                @for block in lines.chunk_by(|a, b| a.bits == b.bits) {
                    @let items = block.iter().map(|line| line.item).collect::<Vec<_>>();
                    @let marks = columns.iter().map(|column| column.marks(&items));
                    @let marks = marks.collect::<Vec<_>>();
                    tbody {
                        @for (at, entry) in block.iter().enumerate() {
                            @let cells = columns.iter().zip(&marks);
                            @let cells = cells.map(|(it, marks)| (it.text(entry.item), marks[at]));
                            (line(&entry.bits.to_string(), entry.scheme, cells))
                        }
                    }
                }
            }
        }
        details {
            summary { "What the columns say" }
            (definitions(columns.iter().map(|column| (column.title, column.meaning))))
        }
    }
}

fn line(bits: &str, scheme: &str, cells: impl Iterator<Item = (String, Option<Mark>)>) -> Markup {
    let class = |mark| match mark {
        Mark::Best => "best",
        Mark::Tie => "tie",
    };
    html! {
        tr {
            td { (bits) }
            th scope="row" { (scheme) }
            @for (text, mark) in cells { td class=[mark.map(class)] { (text) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::column::Digits;
    use super::super::super::{sample, themes};
    use super::*;

    #[test]
    fn best_and_ties_are_marked_block_by_block() {
        let mut rows = sample::rows();
        rows.retain(|row| [2, 8].map(sample::whole).contains(&row.bits));
        let out = of_rows(&themes::results(&sample::summary()), &rows).into_string();
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
        let line = |bits, item| TableRow { bits, scheme: "ot", item };
        let lines = vec![line(sample::whole(3), &3.0), line(sample::whole(2), &2.0)];
        let out = table(&columns, Some(&7.0), lines).into_string();
        assert!(out.contains(">known</th>") && !out.contains("unknown"));
        let [full, two, three] = [">7.0<", ">2.0<", ">3.0<"].map(|cell| out.find(cell).unwrap());
        assert!(full < two && two < three, "full precision, then bits in order");
        assert!(out.contains("<td>32</td><th scope=\"row\">full precision</th>"));
    }
}
