//! The activation scales of a packed file: how far the bytes of each feature map reach.

use quant_core::format::{Activations, Model, SectionKind, with_section};
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
/// The velocity of the file's self-test vector, if it has one, is computed in integers too, and the file says
/// how far off its worst element is. `drawn` is told after each image.
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
    let off = self_test_error(&Model::parse(&calibrated)?)?;
    Ok(with_section(file, kind, &Activations::emit(off, &ranges))?)
}

/// Greatest error of an element of the self-test velocity in integers; 0 without a self-test vector.
fn self_test_error(model: &Model<'_>) -> Result<f32> {
    let (Some(vector), Some(net)) = (model.self_test_vector(), model.net()) else { return Ok(0.0) };
    let plan = Plan::with_precision(model, Precision::Integer)?;
    let (height, width) = plan.image_size();
    let mut x = vec![0.0; net.in_channels * height * width];
    noise::fill_normal(vector.seed, 0, 0, &mut x);
    let mut v = vec![0.0; vector.velocity().len()];
    let mut arena = vec![0.0; plan.arena_len()];
    let input = Input { x: &x, concat: &[], t: vector.t, label: vector.label };
    plan.velocity(model, &input, &mut arena, &mut v)?;
    let off = v.iter().zip(vector.velocity()).map(|(v, right)| (v - right).abs());
    Ok(off.fold(0f32, f32::max))
}
