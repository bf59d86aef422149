//! Histograms of weights with the levels of a codebook drawn in, a panel for each scheme.

use core::fmt::Write as _;

use quant_core::rate::Rate;

use super::axis::{Axis, Scale};
use super::svg::{self, CENTRED, COLORS, INK, line, text};
use super::{Levels, distinct, escape};

/// Size of a panel, and the box of its histogram.
const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 176.0;
const LEFT: f64 = 12.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = HEIGHT - 34.0;

/// Bars of a histogram.
const BINS: usize = 48;

/// Levels that are drawn as high as the panel; more of them are short.
const MANY: usize = 32;

/// The panels of all schemes at `bits`, in two columns; an SVG document.
pub(crate) fn sheet(levels: &Levels, bits: Rate) -> String {
    let title = title(levels, bits);
    let panels = bodies(levels, bits);
    let width = 2.0 * WIDTH;
    let mut body = String::new();
    let style = format!(
        r#"font-size="{:.1}" font-weight="600""#,
        svg::fitted(&title, width - 2.0 * LEFT, 16.0)
    );
    text(&mut body, [LEFT, 26.0], &style, &title);
    for (at, panel) in panels.iter().enumerate() {
        let (x, y) = ((at % 2) as f64 * WIDTH, 44.0 + (at / 2) as f64 * HEIGHT);
        let _ = write!(body, r#"<g transform="translate({x} {y})">{panel}</g>"#);
    }
    let height = 44.0 + panels.len().div_ceil(2) as f64 * HEIGHT;
    svg::document([width, height], &title, &body)
}

/// The panels, each an SVG document of its own.
pub(super) fn panels(levels: &Levels, bits: Rate) -> Vec<String> {
    let title = title(levels, bits);
    bodies(levels, bits).iter().map(|body| svg::document([WIDTH, HEIGHT], &title, body)).collect()
}

fn title(levels: &Levels, bits: Rate) -> String {
    format!("Weights of {}, channel {}, {bits} bits", levels.tensor, levels.channel)
}

fn bodies(levels: &Levels, bits: Rate) -> Vec<String> {
    let schemes = distinct(levels.rows.iter().map(|(scheme, ..)| scheme.as_str()));
    let finite = |values: &[f32]| -> Vec<f64> {
        values.iter().map(|&value| f64::from(value)).filter(|value| value.is_finite()).collect()
    };
    let weights = finite(&levels.weights);
    let all = levels.rows.iter().flat_map(|(.., levels)| finite(levels));
    // One axis for all, so that the panels compare.
    let Some(axis) = Axis::fit(weights.iter().copied().chain(all), Scale::Linear) else {
        return Vec::new();
    };
    levels
        .rows
        .iter()
        .filter(|(_, known, _)| *known == bits)
        .map(|(scheme, _, levels)| {
            let index = schemes.iter().position(|known| known == scheme).unwrap_or(0);
            panel(&weights, scheme, &finite(levels), &axis, COLORS[index % COLORS.len()])
        })
        .collect()
}

/// Bars of the weights, a line for each level.
fn panel(weights: &[f64], scheme: &str, levels: &[f64], axis: &Axis, color: &str) -> String {
    let mut out = String::new();
    let count = levels.len();
    let title = format!("{scheme}, {count} {}", if count == 1 { "level" } else { "levels" });
    text(&mut out, [LEFT, 22.0], r#"font-weight="600""#, &title);
    bars(&mut out, weights, axis);
    // Many lines must leave the bars to be seen.
    let (top, width) = if levels.len() <= MANY { (TOP, 1.6) } else { (BOTTOM - 16.0, 0.8) };
    let mut d = String::new();
    for &level in levels {
        let _ = write!(d, "M{:.2} {BOTTOM}V{top}", right(axis, level));
    }
    let _ = write!(
        out,
        r#"<path d="{d}" fill="none" stroke="{color}" stroke-width="{width}"><title>{}</title></path>"#,
        escape(&title)
    );
    line(&mut out, [LEFT, BOTTOM, RIGHT, BOTTOM], INK);
    for (tick, name) in axis.ticks() {
        let x = right(axis, tick);
        line(&mut out, [x, BOTTOM, x, BOTTOM + 4.0], INK);
        text(&mut out, [x, BOTTOM + 18.0], &format!(r#"{CENTRED} font-size="11""#), &name);
    }
    out
}

/// The histogram as one path, its highest bar as high as the panel.
fn bars(out: &mut String, weights: &[f64], axis: &Axis) {
    let mut counts = [0_u32; BINS];
    for &weight in weights {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to BINS")]
        let bin = (axis.position(weight) * BINS as f64) as usize;
        counts[bin.min(BINS - 1)] += 1;
    }
    let highest = f64::from(counts.into_iter().max().unwrap_or(0).max(1));
    let step = (RIGHT - LEFT) / BINS as f64;
    let mut d = format!("M{LEFT} {BOTTOM}");
    for count in counts {
        let y = BOTTOM - (BOTTOM - TOP) * f64::from(count) / highest;
        let _ = write!(d, "V{y:.2}h{step:.4}");
    }
    let _ = write!(out, r##"<path class="bars" d="{d}V{BOTTOM}z" fill="#c4c8cd"/>"##);
}

fn right(axis: &Axis, value: f64) -> f64 {
    LEFT + axis.position(value) * (RIGHT - LEFT)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, assert_well_formed};
    use super::*;

    #[test]
    fn every_scheme_has_a_panel_with_its_levels() {
        let levels = sample::levels();
        let panels = panels(&levels, sample::whole(3));
        assert_eq!(panels.len(), 4);
        for panel in &panels {
            assert_well_formed(panel);
            assert!(panel.contains(", 8 levels</text>"), "{panel}");
            // A line up for each level; the path of the bars begins with M too, but goes elsewhere.
            assert_eq!(panel.matches(&format!("V{TOP}M")).count(), 7);
        }
        let sheet = sheet(&levels, sample::whole(3));
        assert_well_formed(&sheet);
        assert_eq!(sheet.matches("<g transform").count(), 4);
        assert!(
            sheet.contains("Weights of input_blocks.1.0.in_layers.2.weight, channel 5, 3 bits")
        );
    }

    #[test]
    fn bars_hold_every_weight() {
        let axis = Axis::fit([-1.0, 1.0].into_iter(), Scale::Linear).unwrap();
        let mut out = String::new();
        bars(&mut out, &[-1.0, -1.0, 1.0], &axis);
        assert!(out.contains(&format!("V{TOP:.2}h")), "two of three: the highest bar");
        assert!(out.contains(&format!("V{:.2}h", f64::midpoint(TOP, BOTTOM))), "the third");
    }

    #[test]
    fn nothing_finite_gives_no_panel() {
        let levels = Levels { weights: vec![f32::NAN], rows: vec![], ..sample::levels() };
        assert!(panels(&levels, sample::whole(3)).is_empty());
        assert_well_formed(&sheet(&levels, sample::whole(3)));
    }
}
