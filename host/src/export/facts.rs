//! Needs of a packed file on a device, and the size of its images, as lines for people and as constants.

use std::path::Path;

use quant_core::codebook::CodebookFormat;
use quant_core::format::Model;
use quant_core::infer::{Precision, STACK_BYTES};
use quant_core::method::Method;

use super::drawing_cost::DrawingCost;

/// Facts about a packed file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    /// The file's name, of characters that cannot end a comment.
    name: String,
    bytes: usize,
    golden: bool,
    /// It has codebooks of the scheme `log`.
    pub(crate) log: bool,
    /// None for a file without a net or without the size of its images.
    pub(crate) drawing: Option<DrawingCost>,
    classes: Option<usize>,
    /// Steps of the solver.
    steps: u32,
}

impl Facts {
    /// Facts about the file at `path`.
    ///
    /// Its images are drawn in integers where it has been calibrated for them.
    pub(crate) fn of(
        path: &Path,
        file: &[u8],
        model: &Model<'_>,
        (method, steps): (Method, u32),
    ) -> Self {
        let precision = match model.activations() {
            Some(_) => Precision::Integer,
            None => Precision::Float,
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        Self {
            name: name.chars().map(plain).collect(),
            bytes: file.len(),
            golden: model.has_self_test(),
            log: model.tensors().any(|tensor| {
                tensor
                    .quantized()
                    .is_some_and(|rows| rows.layout().codebook == CodebookFormat::Logarithmic)
            }),
            drawing: DrawingCost::of(model, precision, method).ok(),
            classes: model.net().and_then(|net| net.num_classes),
            steps,
        }
    }

    /// A line for each fact.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("{}, by fmq export {}", self.name, env!("CARGO_PKG_VERSION")),
            format!("flash   {} bytes, read in place", self.bytes),
        ];
        let Some(drawing) = &self.drawing else {
            lines.push("no net with an image size, so no plan".to_string());
            return lines;
        };
        let DrawingCost { method, shape: [channels, height, width], macs, .. } = drawing;
        lines.extend([
            format!("in      {}", if drawing.is_integer() { "integers" } else { "floats" }),
            format!("arena   {} bytes for {method} without guidance", drawing.arena_bytes()),
            format!("stack   about {STACK_BYTES} bytes"),
            format!("image   {channels} x {height} x {width} floats, about -1 to 1"),
            format!("classes {}", self.classes.map_or("none".into(), |n| n.to_string())),
            format!("macs    {macs} for each evaluation of the net"),
            format!(
                "golden  {}",
                if self.golden { "yes: the file can test its device" } else { "no" }
            ),
        ]);
        lines
    }

    /// The constants in C, their names after `prefix`.
    pub(crate) fn c(&self, prefix: &str) -> String {
        let mut constants = vec![("BYTES", self.bytes)];
        if let Some(drawing) = &self.drawing {
            let [channels, height, width] = drawing.shape;
            constants.extend([
                ("ARENA_BYTES", drawing.arena_bytes()),
                ("IMAGE_LEN", drawing.image_len()),
                ("CHANNELS", channels),
                ("HEIGHT", height),
                ("WIDTH", width),
                ("CLASSES", self.classes.unwrap_or(0)),
                ("PRECISION", drawing.is_integer().into()),
                ("METHOD", drawing.method as usize),
                ("STEPS", self.steps as usize),
            ]);
        }
        let line = |(name, value): (&str, usize)| format!("#define {prefix}_{name} {value}\n");
        constants.into_iter().map(line).collect()
    }

    /// The solver in Rust, for a program with quant-core.
    pub(crate) fn rust_method(&self) -> String {
        self.drawing.map_or_else(String::new, |DrawingCost { method, .. }| {
            let of = "quant_core::method::Method";
            format!("/// The solver.\npub const METHOD: {of} = {of}::{method:?};\n")
        })
    }

    /// The constants in Rust.
    pub(crate) fn rust(&self) -> String {
        let constant = |doc: &str, name: &str, of: &str, value: String| {
            format!("/// {doc}\npub const {name}: {of} = {value};\n")
        };
        let Some(drawing) = &self.drawing else { return String::new() };
        let classes = format!("{:?}", self.classes);
        let arithmetic = if drawing.is_integer() { "i8" } else { "f32" };
        [
            constant("Floats of the arena.", "ARENA_LEN", "usize", drawing.arena_len().to_string()),
            constant("Floats of an image.", "IMAGE_LEN", "usize", drawing.image_len().to_string()),
            constant("Classes, whose labels start at 0.", "CLASSES", "Option<u32>", classes),
            constant("Steps of the solver.", "STEPS", "u32", self.steps.to_string()),
            format!(
                "/// The type of the values that the net computes with.\npub type Arithmetic = \
                 {arithmetic};\n"
            ),
        ]
        .concat()
    }
}
