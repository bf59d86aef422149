//! Needs of a packed file on a device, and the size of its images, as lines for people and as constants.

use std::path::Path;

use quant_core::codebook::CodebookFormat;
use quant_core::format::Model;
use quant_core::infer::{Plan, Precision, STACK_BYTES, Settings};
use quant_core::method::Method;

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
}

/// Needs of drawing an image without guidance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrawingCost {
    /// Integers for a file that has been calibrated for them.
    precision: Precision,
    method: Method,
    steps: u32,
    /// Floats of the arena.
    arena_len: usize,
    channels: usize,
    height: usize,
    width: usize,
    classes: Option<usize>,
    /// Multiplications of one evaluation.
    macs: u64,
}

impl DrawingCost {
    fn of(model: &Model<'_>, (method, steps): (Method, u32)) -> Option<Self> {
        let precision = match model.activations() {
            Some(_) => Precision::Integer,
            None => Precision::Float,
        };
        let (plan, net) = (Plan::with_precision(model, precision).ok()?, model.net()?);
        let (height, width) = plan.image_size();
        Some(Self {
            precision,
            method,
            steps,
            arena_len: Settings { method, ..Settings::default() }.arena_len(&plan, model),
            channels: net.out_channels,
            height,
            width,
            classes: net.num_classes,
            macs: plan.macs(),
        })
    }

    pub(crate) fn is_integer(&self) -> bool {
        self.precision == Precision::Integer
    }

    pub(crate) fn arena_bytes(&self) -> usize {
        size_of::<f32>() * self.arena_len
    }

    fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// The bytes of RAM: arena, a finished image beside it, and stack.
    pub(crate) fn ram_bytes(&self) -> usize {
        self.arena_bytes() + size_of::<f32>() * self.image_len() + STACK_BYTES
    }
}

impl Facts {
    /// Facts about the file at `path`.
    pub(crate) fn of(path: &Path, file: &[u8], model: &Model<'_>, solver: (Method, u32)) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        Self {
            name: name.chars().map(plain).collect(),
            bytes: file.len(),
            golden: model.self_test_vector().is_some(),
            log: model.tensors().any(|tensor| {
                tensor
                    .quantized()
                    .is_some_and(|rows| rows.layout().codebook == CodebookFormat::Logarithmic)
            }),
            drawing: DrawingCost::of(model, solver),
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
        let DrawingCost { method, channels, height, width, macs, .. } = drawing;
        lines.extend([
            format!("in      {}", if drawing.is_integer() { "integers" } else { "floats" }),
            format!("arena   {} bytes for {method} without guidance", drawing.arena_bytes()),
            format!("stack   about {STACK_BYTES} bytes"),
            format!("image   {channels} x {height} x {width} floats, about -1 to 1"),
            format!("classes {}", drawing.classes.map_or("none".into(), |n| n.to_string())),
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
            constants.extend([
                ("ARENA_BYTES", drawing.arena_bytes()),
                ("IMAGE_LEN", drawing.image_len()),
                ("CHANNELS", drawing.channels),
                ("HEIGHT", drawing.height),
                ("WIDTH", drawing.width),
                ("CLASSES", drawing.classes.unwrap_or(0)),
                ("PRECISION", drawing.is_integer().into()),
                ("METHOD", drawing.method as usize),
                ("STEPS", drawing.steps as usize),
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
        let classes = format!("{:?}", drawing.classes);
        let arithmetic = if drawing.is_integer() { "i8" } else { "f32" };
        [
            constant("Floats of the arena.", "ARENA_LEN", "usize", drawing.arena_len.to_string()),
            constant("Floats of an image.", "IMAGE_LEN", "usize", drawing.image_len().to_string()),
            constant("Classes, whose labels start at 0.", "CLASSES", "Option<u32>", classes),
            constant("Steps of the solver.", "STEPS", "u32", drawing.steps.to_string()),
            format!(
                "/// The type of the values that the net computes with.\npub type Arithmetic = \
                 {arithmetic};\n"
            ),
        ]
        .concat()
    }
}
