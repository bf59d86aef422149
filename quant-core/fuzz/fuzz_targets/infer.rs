#![no_main]

use arbitrary::Arbitrary;
use half::f16;
use libfuzzer_sys::fuzz_target;
use quant_core::format::{Activations, Dense, Head, SectionKind, Model, Writer, with_section};
use quant_core::infer::{Input as Point, Plan, Precision};
use quant_core::net::UNetConfig;

/// A net of any fields, and images of any size.
#[derive(Arbitrary, Debug)]
struct Input {
    channels: [u8; 3],
    blocks: u8,
    rates: Vec<u8>,
    mults: Vec<u8>,
    classes: Option<u8>,
    heads: u8,
    head_channels: Option<u8>,
    heads_upsample: Option<u8>,
    flags: u8,
    patch: u8,
    size: (u8, u8),
    label: Option<u8>,
    t: f32,
}

impl Input {
    fn net(&self) -> UNetConfig {
        let [image, model, out] = self.channels.map(usize::from);
        let flag = |bit: u8| self.flags >> bit & 1 == 1;
        let rates = self.rates.iter().take(3).map(|&rate| usize::from(rate % 9) + 1);
        let mults = self.mults.iter().take(3).map(|&mult| f64::from(mult % 12) / 4.0 + 0.25);
        UNetConfig {
            in_channels: image % 5 + 1,
            model_channels: model % 65 + 1,
            out_channels: out % 4 + 1,
            num_res_blocks: usize::from(self.blocks % 3),
            attention_resolutions: rates.collect(),
            channel_mult: mults.collect(),
            conv_resample: flag(0),
            num_classes: self.classes.map(|n| usize::from(n % 4) + 1),
            num_heads: usize::from(self.heads % 5) + 1,
            num_head_channels: self.head_channels.map(|n| usize::from(n % 70) + 1),
            num_heads_upsample: self.heads_upsample.map(|n| usize::from(n % 5) + 1),
            use_scale_shift_norm: flag(1),
            resblock_updown: flag(2),
            use_new_attention_order: flag(3),
            with_fourier_features: flag(4),
            ignore_time: flag(5),
            input_projection: flag(6),
            patch: usize::from(self.patch % 4) + 1,
            ..UNetConfig::default()
        }
    }
}

/// The file of a net whose weights are all alike; none of a net that is too large or refused.
fn file(net: &UNetConfig) -> Option<Vec<u8>> {
    let shapes = net.shapes();
    let weights = shapes.iter().map(|shape| shape.iter().map(|&dim| dim as u64).product::<u64>());
    if weights.sum::<u64>() > 300_000 {
        return None;
    }
    let head = Head { net: Some(net), names: None, sections: Vec::new() };
    let mut writer = Writer::new(Vec::new(), &head).ok()?;
    let values = vec![f16::from_f32(0.03); 300_000];
    for shape in &shapes {
        writer.dense(shape, Dense::F16(&values[..shape.iter().product()])).ok()?;
    }
    writer.into_file().ok()
}

fuzz_target!(|input: Input| {
    let net = input.net();
    let Some(file) = file(&net) else { return };
    let model = Model::parse(&file).expect("written by the writer");
    let (height, width) = (usize::from(input.size.0 % 17), usize::from(input.size.1 % 17));
    let Ok(plan) = Plan::with_size(&model, height, width) else { return };
    if plan.macs() > 20_000_000 {
        return;
    }
    let pixels = height * width;
    let channels = if net.input_projection { net.in_channels } else { net.width(0) };
    let x = vec![0.5; channels * pixels];
    let split = if net.with_fourier_features { (3 * pixels).min(x.len()) } else { x.len() };
    let (x, concat) = x.split_at(split);
    let label = input.label.map(u32::from);
    let point = Point { x, concat, t: input.t, label };
    let mut v = vec![f32::NAN; net.out_channels * pixels];
    let mut arena = vec![f32::NAN; plan.arena_len()];
    if plan.velocity(&model, &point, &mut arena, &mut v).is_ok() && input.t.is_finite() {
        assert!(v.iter().all(|v| v.is_finite()), "{net:?}, {height} x {width}");
    }

    // The same in integers, with a scale for each map that is too small, right or too large.
    let scales: Vec<f32> = (1..=plan.maps()).map(|i| [1e-3, 1.0, 1e3][i % 3]).collect();
    let scales = Activations::emit(1e-3, &scales);
    let file = with_section(&file, SectionKind::ACTIVATION_SCALES, &scales).expect("scales");
    let model = Model::parse(&file).expect("written by the writer");
    let plan = Plan::with_size_and_precision(&model, (height, width), Precision::Integer);
    let plan = plan.expect("a plan as in floats");
    let mut arena = vec![f32::NAN; plan.arena_len()];
    if plan.velocity(&model, &point, &mut arena, &mut v).is_ok() && input.t.is_finite() {
        assert!(v.iter().all(|v| v.is_finite()), "integers: {net:?}, {height} x {width}");
    }
});
