//! The sections for a device: the memory that the net takes, and a vector to test itself by.

use quant_core::format::{MemoryPlan, Model, SectionKind, SelfTestVector, fill_section};
use quant_core::infer::{Input, Plan};
use quant_core::net::UNetConfig;
use quant_core::noise;

use crate::error::{Error, Result};

/// Seed and time of the self-test's input, and how far off an element may be: more than the
/// rounding of any engine, less than any mistake.
const SEED: u64 = 0;
const TIME: f32 = 0.5;
const TOLERANCE: f32 = 1e-3;

/// The net of a packed file.
#[derive(Clone, Copy, Debug)]
pub struct PackedNet<'a> {
    /// Configuration of the net.
    pub config: &'a UNetConfig,
    /// The file gets a self-test vector, of `4 out_channels height width` bytes, by which a device
    /// tests itself. It takes one evaluation by the device's engine, which is slow for large nets.
    pub self_test: bool,
}

impl<'a> From<&'a UNetConfig> for PackedNet<'a> {
    fn from(config: &'a UNetConfig) -> Self {
        Self { config, self_test: false }
    }
}

impl PackedNet<'_> {
    /// The sections that are filled once the tensors are written, of their length: the memory plan
    /// where the size of the images is known, and with it the self-test vector if it is asked for.
    pub(super) fn sections(self) -> Result<Vec<(SectionKind, Vec<u8>)>> {
        let Self { config, self_test } = self;
        let Some(side) = config.image_size else {
            let missing = "a self-test vector needs a net with its image_size".into();
            return if self_test { Err(Error::Config(missing)) } else { Ok(Vec::new()) };
        };
        let rows = u32::try_from(side)
            .map_err(|_| Error::Config(format!("images of side {side} are too large")))?;
        let plan = MemoryPlan { size: (rows, rows), arena_bytes: 0, macs: 0 };
        let mut sections = vec![(SectionKind::MEMORY_PLAN, plan.emit().to_vec())];
        if self_test {
            let pixels = side * side;
            let velocity = vec![0.0; config.out_channels * pixels];
            sections.push((SectionKind::SELF_TEST, vector(config, side, &velocity)?));
        }
        Ok(sections)
    }
}

/// The contents of the self-test vector's section.
fn vector(net: &UNetConfig, side: usize, velocity: &[f32]) -> Result<Vec<u8>> {
    let side = u16::try_from(side).map_err(|_| {
        Error::Config(format!("images of side {side} are too large for a self-test vector"))
    })?;
    let label = net.num_classes.map(|_| 0);
    Ok(SelfTestVector::emit((SEED, TIME, label), TOLERANCE, (side, side), velocity)?)
}

/// Fills these sections in the head of a file that is complete but for them; `file` holds the same
/// head.
pub(super) fn fill(file: &[u8], head: &mut [u8]) -> Result<()> {
    let model = Model::parse(file)?;
    let (Some(net), Some(_)) = (model.net(), model.memory_plan()) else { return Ok(()) };
    let plan = match Plan::new(&model) {
        Ok(plan) => plan,
        // Images that this net cannot halve: its plan says nothing.
        Err(_) if model.self_test_vector().is_none() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    fill_section(head, SectionKind::MEMORY_PLAN, &plan.stored().emit())?;
    if model.self_test_vector().is_none() {
        return Ok(());
    }
    let (height, width) = plan.image_size();
    let mut x = vec![0.0; net.in_channels * height * width];
    noise::fill_normal(SEED, 0, 0, &mut x);
    let mut v = vec![0.0; net.out_channels * height * width];
    let mut arena = vec![0.0; plan.arena_len()];
    let input = Input { x: &x, concat: &[], t: TIME, label: net.num_classes.map(|_| 0) };
    plan.velocity(&model, &input, &mut arena, &mut v)?;
    let side = net.image_size.unwrap_or(0);
    Ok(fill_section(head, SectionKind::SELF_TEST, &vector(net, side, &v)?)?)
}
