//! One HTML page with everything: it opens offline and loads nothing. A small script of its own
//! sorts the tables and slides over the bits; without it, and in print, everything is shown.

use maud::{DOCTYPE, Markup, PreEscaped, Render, html};

pub(crate) use self::samples::Pictures;
use super::{Row, Summary, plots, themes};

mod analyses;
mod samples;
mod table;

/// Sorting and sliding.
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("style.css");

/// Content security policy of the page: it loads nothing but its own contents.
const POLICY: &str =
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// The page. Bits ascend; schemes keep the order of `rows`.
pub(crate) fn page(summary: &Summary, rows: &[Row], pictures: &Pictures<'_>) -> String {
    let title = format!("Quantizing {}", summary.model);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                (facts(summary))
                h2 { "Results" }
                (table::of_rows(&themes::results(summary), rows))
                (table::legend(has_intervals(rows)))
                (curves(summary, rows))
                (samples::section(summary, rows, pictures))
                (analyses::sections(summary, rows, pictures.levels))
                (notes(summary))
                (again(summary))
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// The facts of the run: weights, samples, sampler and distances.
fn facts(summary: &Summary) -> Markup {
    let error = summary.fid_full_error.map_or_else(String::new, |error| format!(" ± {error:.2}"));
    definitions([
        (
            "Weights",
            format!("{}, {} in f32", grouped(summary.parameters), bytes(summary.dense_bytes)),
        ),
        ("Samples", format!("{} for each row, from the same noise", summary.n)),
        ("Sampler", format!("{}, {}", summary.sampler, seeds(summary))),
        ("Distance", format!("{} against {}", summary.fid_label, summary.fid_reference)),
        ("Distance at full precision", format!("{:.2}{error}", summary.fid_full)),
        (
            "Distance of real images",
            format!(
                "{:.2} for {} that the reference does not hold",
                summary.fid_real, summary.n_real
            ),
        ),
    ])
}

/// Terms and what they stand for.
fn definitions<'a>(facts: impl IntoIterator<Item = (&'a str, impl Render)>) -> Markup {
    html! {
        dl { @for (term, fact) in facts { div { dt { (term) } dd { (fact) } } } }
    }
}

fn seeds(summary: &Summary) -> String {
    match summary.seeds {
        0 | 1 => format!("seed {}", summary.seed),
        sets => format!("{sets} seeds, the first {}", summary.seed),
    }
}

fn curves(summary: &Summary, rows: &[Row]) -> Markup {
    let curves = [
        plots::psnr(rows),
        plots::sqnr(rows),
        plots::fid(summary, rows),
        plots::pareto(summary, rows),
    ];
    html! {
        h2 { "Curves" }
        (figures(curves))
        @if has_intervals(rows) {
            p.small { "Bars: 95 % intervals. Point at a marker for its values." }
        }
    }
}

/// Drawings side by side.
fn figures(drawings: impl IntoIterator<Item = String>) -> Markup {
    html! {
        .plots { @for svg in drawings { figure { (PreEscaped(svg)) } } }
    }
}

fn has_intervals(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.fid_error.is_some() || row.psnr_error.is_some())
}

/// How to read the numbers, then the run's own remarks.
fn notes(summary: &Summary) -> Markup {
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
    html! {
        h2 { "How to read the numbers" }
        ul { @for note in reading.iter().chain(&summary.notes) { li { (note) } } }
    }
}

/// The command, and what else decides the numbers.
fn again(summary: &Summary) -> Markup {
    let facts = [
        ("Program", format!("fmq {}", summary.version)),
        ("Random numbers", seeds(summary)),
        ("Numbers of this page", format!("results.json, schema {}; results.csv", summary.schema)),
    ];
    html! {
        h2 { "To do the same again" }
        pre { code { (command(&summary.command)) } }
        (definitions(facts))
    }
}

/// The command as a shell takes it, the program by its name alone.
fn command(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=@%+".contains(c);
    let quoted = |word: &str| match word {
        "" => "''".to_string(),
        word if word.chars().all(plain) => word.to_string(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    };
    let name = |program: &str| program.rsplit(['/', '\\']).next().unwrap_or(program).to_string();
    let words = words.iter().enumerate();
    let words = words.map(|(at, word)| quoted(&if at == 0 { name(word) } else { word.clone() }));
    words.collect::<Vec<_>>().join(" ")
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

#[cfg(test)]
mod tests {
    use super::super::Levels;
    use super::super::sample::{self, assert_well_formed};
    use super::*;

    /// The page of a sweep with or without analyses.
    fn page_of((summary, rows): (Summary, Vec<Row>), levels: Option<&Levels>) -> String {
        let grids = vec![b"grid".to_vec(); rows.len()];
        let pictures = Pictures { full: b"full", real: Some(b"real"), rows: &grids, levels };
        page(&summary, &rows, &pictures)
    }

    /// The page without the style and the script.
    fn markup(page: &str) -> String {
        let (head, rest) = page.split_once("<style>").unwrap();
        let (_, rest) = rest.split_once("</style>").unwrap();
        let (body, tail) = rest.split_once("<script>").unwrap();
        format!("{head}{body}{}", tail.split_once("</script>").unwrap().1)
    }

    const SECTIONS: [&str; 6] = [
        "Further comparisons",
        "Latent space",
        "Noise of real images",
        "Divergence of trajectories",
        "Bounds of the error",
        "Weights and levels",
    ];

    #[test]
    fn page_loads_nothing_from_outside() {
        let levels = sample::levels();
        let page = page_of(sample::analysed(), Some(&levels));
        let body = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for outside in ["http:", "https:", "//", "<link", "@import", "url(", "src=\"http", "fetch("]
        {
            assert!(!body.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("<script").count(), 1, "its own");
        assert!(page.contains("content=\"default-src 'none'; img-src data:;"));
        assert_well_formed(&markup(&page));
    }

    #[test]
    fn sections_are_those_of_what_was_measured() {
        let levels = sample::levels();
        let all = page_of(sample::analysed(), Some(&levels));
        let none = page_of((sample::summary(), sample::rows()), None);
        for section in SECTIONS {
            let heading = format!("<h2>{section}</h2>");
            assert_eq!(all.matches(&heading).count(), 1, "{section}");
            assert!(!none.contains(&heading), "{section}");
        }
        assert_well_formed(&markup(&none));
        let mut rows = sample::rows();
        for row in &mut rows {
            (row.fid_error, row.psnr_error) = (None, None);
        }
        let plain = markup(&page_of((sample::summary(), rows), None));
        assert!(none.contains(">tied<") && !plain.contains(">tied<"), "ties need intervals");
        let empty = page_of((sample::summary(), Vec::new()), None);
        assert_well_formed(&markup(&empty));
    }

    #[test]
    fn text_from_outside_is_escaped() {
        let (mut summary, mut rows) = sample::analysed();
        rows[0].scheme = "<b>ot".into();
        summary.command.push("<i>it's".into());
        let page = page_of((summary, rows), None);
        assert!(page.contains("&lt;b&gt;ot") && !page.contains("<b>ot") && !page.contains("<i>"));
        assert!(page.contains("<li>Digits 4 &amp; 9 are &lt;often&gt; confused.</li>"));
    }

    #[test]
    fn the_command_is_as_a_shell_takes_it() {
        assert_eq!(command(&sample::summary().command), "fmq sweep net.pth --keep 'out.*=f32'");
        let words = ["C:\\bin\\fmq.exe", "it's", "", "é b"].map(String::from);
        assert_eq!(command(&words), r"fmq.exe 'it'\''s' '' 'é b'");
        assert_eq!(command(&[]), "");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(grouped(1_234_567), "1\u{a0}234\u{a0}567");
        assert_eq!(grouped(12), "12");
        assert_eq!([bytes(9_999), bytes(38_000), bytes(28_500_000)], ["9999 B", "38 kB", "28 MB"]);
    }
}
