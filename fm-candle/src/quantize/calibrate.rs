//! The activation scales of a packed file: how far the bytes of each feature map reach.

use quant_core::format::{
    Activations, Model, SectionKind, SelfTestChecksum, SelfTestVector, with_section,
};
use quant_core::infer::{Input, Plan, Precision};
use quant_core::noise;

use super::abs_histogram::AbsHistogram;
use crate::error::{Error, Result};
use crate::random::Domain;

/// Images by which a file is calibrated: drawn with Euler's method, of each label in turn, the last
/// without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// Images, at least 1.
    pub images: u64,
    /// Steps of each, at least 1.
    pub steps: u32,
    /// Seed of their noise.
    pub seed: u64,
}

/// The file with activation scales, by which a device computes with integers; all else keeps its bytes.
///
/// Images are drawn in floats, and each map gets the range whose bytes err the least in the mean square,
/// with what lies beyond it clipped.
///
/// The velocity of the file's self-test, if it has one, is computed in integers too: the file says how far off
/// a vector's worst element is, and the checksum of these integers. `drawn` is told after each image.
///
/// # Errors
/// [`Error::Config`] for no images or no steps, for images that cannot be drawn from noise alone, and for
/// maps that are not finite; those of [`Plan::new`] and [`with_section`].
pub fn calibrate(file: &[u8], by: Calibration, mut drawn: impl FnMut()) -> Result<Vec<u8>> {
    if by.images == 0 || by.steps == 0 {
        return Err(Error::Config("calibrating needs at least one image of one step".into()));
    }
    let model = Model::parse(file)?;
    let Some(net) = model.net().filter(|net| net.image_size.is_some()) else {
        let why = "holds no net with an image size, which drawing needs";
        return Err(Error::Config(why.into()));
    };
    let plan = Plan::new(&model)?;
    let (height, width) = plan.image_size();
    let pixels = height * width;
    if net.in_channels != net.out_channels {
        let (inputs, outputs) = (net.in_channels, net.out_channels);
        let why =
            format!("a net of {inputs} channels to {outputs} draws no images from noise alone");
        return Err(Error::Config(why));
    }
    let mut maps = vec![AbsHistogram::default(); plan.maps()];
    let mut arena = vec![0.0; plan.arena_len()];
    let mut x = vec![0.0; net.in_channels * pixels];
    let mut v = vec![0.0; x.len()];
    let labels = net.num_classes.map_or(1, |classes| classes as u64 + 1);
    for image in 0..by.images {
        Domain::Calibration.stream(by.seed).fill_normal(image, 0, &mut x);
        // The number of classes is "no label".
        let label = net.num_classes.and_then(|_| u32::try_from(image % labels).ok());
        for step in 0..by.steps {
            let [t, end] = [step, step + 1].map(|step| step as f32 / by.steps as f32);
            let input = Input { x: &x, concat: &[], t, label };
            let mut note = |map: usize, values: &[f32]| maps[map].add(values);
            plan.observe(&model, &input, &mut arena, &mut v, &mut note)?;
            x.iter_mut().zip(&v).for_each(|(x, v)| *x += (end - t) * v);
        }
        drawn();
    }
    let range = |(map, histogram): (usize, &AbsHistogram)| {
        let finite = || format!("feature map {map} is not finite while images are drawn");
        histogram.range().ok_or_else(|| Error::Config(finite()))
    };
    let ranges: Vec<f32> = maps.iter().enumerate().map(range).collect::<Result<_>>()?;
    let kind = SectionKind::ACTIVATION_SCALES;
    let calibrated = with_section(file, kind, &Activations::emit(0.0, &ranges))?;
    let model = Model::parse(&calibrated)?;
    if !model.has_self_test() {
        return Ok(calibrated);
    }
    let plan = Plan::with_precision(&model, Precision::Integer)?;
    let mut tested = calibrated.clone();
    if let Some(vector) = model.self_test_vector() {
        let off = self_test_error(&model, &plan, vector)?;
        tested = with_section(&tested, kind, &Activations::emit(off, &ranges))?;
    }
    if let Some(checksum) = model.self_test_checksum() {
        let mut arena = vec![0.0; plan.arena_len() + x.len()];
        let integer = Some(plan.velocity_checksum(&model, checksum.input, &mut arena)?);
        let section = SelfTestChecksum { integer, ..checksum }.emit();
        tested = with_section(&tested, SectionKind::SELF_TEST_CHECKSUM, &section)?;
    }
    Ok(tested)
}

/// Greatest error of an element of the vector's velocity in integers.
fn self_test_error(model: &Model<'_>, plan: &Plan, vector: &SelfTestVector<'_>) -> Result<f32> {
    let (height, width) = plan.image_size();
    let channels = model.net().map_or(0, |net| net.in_channels);
    let mut x = vec![0.0; channels * height * width];
    noise::fill_normal(vector.input.seed, 0, 0, &mut x);
    let mut v = vec![0.0; vector.velocity().len()];
    let mut arena = vec![0.0; plan.arena_len()];
    let input = Input { x: &x, concat: &[], t: vector.input.t, label: vector.input.label };
    plan.velocity(model, &input, &mut arena, &mut v)?;
    let off = v.iter().zip(vector.velocity()).map(|(v, right)| (v - right).abs());
    Ok(off.fold(0f32, f32::max))
}
