//! Progress on stderr: bars on a terminal, lines elsewhere, nothing with `-q`.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

/// The reporter of progress on stderr.
#[derive(Clone, Copy)]
pub(crate) struct Reporter {
    quiet: bool,
    bars: bool,
}

impl Reporter {
    pub(crate) fn new(quiet: bool, no_bars: bool) -> Self {
        Self { quiet, bars: !quiet && !no_bars && io::stderr().is_terminal() }
    }

    /// A reporter that is silent.
    pub(crate) fn silent() -> Self {
        Self { quiet: true, bars: false }
    }

    /// A bar over `total` items with their speed and the time left, e.g. `unit` = "img".
    pub(crate) fn bar(self, what: &str, total: u64, unit: &str) -> ProgressBar {
        let items = format!("{{pos}}/{{len}} {unit}  {{per_sec:>12}}");
        self.templated(what, total, &items)
    }

    /// A bar over the bytes of a transfer.
    pub(crate) fn bytes(self, what: &str, total: u64) -> ProgressBar {
        self.templated(what, total, "{bytes}/{total_bytes}  {bytes_per_sec:>12}")
    }

    fn templated(self, what: &str, total: u64, items: &str) -> ProgressBar {
        if !self.bars {
            return ProgressBar::hidden();
        }
        let template = format!("{{msg:24}} {{bar:30}} {items}  ETA {{eta}}");
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key(
                "per_sec",
                move |state: &indicatif::ProgressState, w: &mut dyn core::fmt::Write| {
                    let _ = write!(w, "{:.1}/s", state.per_sec());
                },
            );
        ProgressBar::new(total).with_style(style).with_message(what.to_string())
    }

    /// A line for people, unless `-q`.
    pub(crate) fn line(self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
}
