//! The sections for a device: the memory that the net takes, and what it tests itself by.

use quant_core::format::{
    MemoryPlan, Model, SectionKind, SelfTestChecksum, SelfTestInput, SelfTestVector, fill_section,
};
use quant_core::infer::{ARITHMETIC, Input, Plan};
use quant_core::net::UNetConfig;
use quant_core::noise;

use crate::error::{Error, Result};

/// Greatest absolute difference of an element of the self-test velocity that another engine may have:
/// above the rounding of any order of sums in f32, below the error of a wrong weight or layer.
const TOLERANCE: f32 = 1e-3;

/// Self-test of a packed file, by which a device compares its own velocity with the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfTestForm {
    /// The checksum of a velocity, for quant-core's engine, which gives the same bits on every target.
    Checksum,
    /// A velocity of `4 out_channels height width` bytes, for any engine, whose rounding it allows for.
    Vector,
}

/// The net of a packed file.
#[derive(Clone, Copy, Debug)]
pub struct PackedNet<'a> {
    /// Configuration of the net.
    pub config: &'a UNetConfig,
    /// What the file holds for a device to test itself by. It takes one evaluation by the device's engine,
    /// which is slow for large nets.
    pub self_test: Option<SelfTestForm>,
}

impl<'a> From<&'a UNetConfig> for PackedNet<'a> {
    fn from(config: &'a UNetConfig) -> Self {
        Self { config, self_test: None }
    }
}

impl PackedNet<'_> {
    /// The sections that are filled once the tensors are written, of their length: the memory plan
    /// where the size of the images is known, and with it the self-test if it is asked for.
    pub(super) fn sections(self) -> Result<Vec<(SectionKind, Vec<u8>)>> {
        let Self { config, self_test } = self;
        let Some(side) = config.image_size else {
            let missing = "a self-test needs a net with its image_size".into();
            return if self_test.is_some() { Err(Error::Config(missing)) } else { Ok(Vec::new()) };
        };
        let rows = u32::try_from(side)
            .map_err(|_| Error::Config(format!("images of side {side} are too large")))?;
        let plan = MemoryPlan { size: (rows, rows), arena_bytes: 0, macs: 0 };
        let mut sections = vec![(SectionKind::MEMORY_PLAN, plan.emit().to_vec())];
        match self_test {
            None => {}
            Some(SelfTestForm::Checksum) => {
                sections.push((SectionKind::SELF_TEST_CHECKSUM, checksum(config, 0)));
            }
            Some(SelfTestForm::Vector) => {
                let velocity = vec![0.0; config.out_channels * side * side];
                sections.push((SectionKind::SELF_TEST, vector(config, side, &velocity)?));
            }
        }
        Ok(sections)
    }
}

fn input(net: &UNetConfig) -> SelfTestInput {
    SelfTestInput { seed: 0, t: 0.5, label: net.num_classes.map(|_| 0) }
}

/// The contents of the self-test checksum's section.
fn checksum(net: &UNetConfig, float: u32) -> Vec<u8> {
    let (input, arithmetic) = (input(net), ARITHMETIC);
    SelfTestChecksum { input, arithmetic, float, integer: None }.emit().to_vec()
}

/// The contents of the self-test vector's section.
fn vector(net: &UNetConfig, side: usize, velocity: &[f32]) -> Result<Vec<u8>> {
    let side = u16::try_from(side).map_err(|_| {
        Error::Config(format!("images of side {side} are too large for a self-test vector"))
    })?;
    Ok(SelfTestVector::emit(input(net), TOLERANCE, (side, side), velocity)?)
}

/// Fills these sections in the head of a file that is complete but for them; `file` holds the same
/// head.
pub(super) fn fill(file: &[u8], head: &mut [u8]) -> Result<()> {
    let model = Model::parse(file)?;
    let (Some(net), Some(_)) = (model.net(), model.memory_plan()) else { return Ok(()) };
    let plan = match Plan::new(&model) {
        Ok(plan) => plan,
        // Images that this net cannot halve: its plan says nothing.
        Err(_) if !model.has_self_test() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    fill_section(head, SectionKind::MEMORY_PLAN, &plan.stored().emit())?;
    let (height, width) = plan.image_size();
    let mut x = vec![0.0; net.in_channels * height * width];
    if model.self_test_checksum().is_some() {
        let mut arena = vec![0.0; plan.arena_len() + x.len()];
        let float = plan.velocity_checksum(&model, input(net), &mut arena)?;
        fill_section(head, SectionKind::SELF_TEST_CHECKSUM, &checksum(net, float))?;
    }
    if model.self_test_vector().is_some() {
        let SelfTestInput { seed, t, label } = input(net);
        noise::fill_normal(seed, 0, 0, &mut x);
        let mut v = vec![0.0; net.out_channels * height * width];
        let mut arena = vec![0.0; plan.arena_len()];
        plan.velocity(&model, &Input { x: &x, concat: &[], t, label }, &mut arena, &mut v)?;
        let section = vector(net, net.image_size.unwrap_or(0), &v)?;
        fill_section(head, SectionKind::SELF_TEST, &section)?;
    }
    Ok(())
}
