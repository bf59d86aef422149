//! Made-up results, for the tests of the files beside this one.

use fm_candle::eval::bounds::{Bounds, Lipschitz};
use fm_candle::eval::inversion::Inversion;
use fm_candle::eval::latent::{Latent, VarianceSpread};
use quant_core::bits::Bits;
use quant_core::rate::Rate;

use super::{Levels, Row, SCHEMA, Summary};

/// Times at which trajectories are compared.
const TIMES: [f64; 6] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];

/// Schemes and how many dB they gain over one another.
const SCHEMES: [(&str, f64); 4] =
    [("ot", 1.0), ("uniform", -4.0), ("log", -2.5), ("lloyd-max", 1.5)];

/// A sweep without analyses.
pub(super) fn summary() -> Summary {
    Summary {
        schema: SCHEMA,
        version: "0.1.0".into(),
        command: ["/usr/bin/fmq", "sweep", "net.pth", "--keep", "out.*=f32"]
            .map(String::from)
            .into(),
        model: "mnist-small".into(),
        parameters: 1_234_567,
        dense_bytes: 4_938_268,
        n: 256,
        sampler: "midpoint, 20 steps".into(),
        seed: 7,
        seeds: 1,
        fid_label: "FID (LeNet features)".into(),
        fid_reference: "MNIST train".into(),
        fid_full: 9.41,
        fid_full_error: Some(0.3),
        n_real: 256,
        fid_real: 3.2,
        latent: None,
        inversion: None,
        times: Vec::new(),
        lipschitz: None,
        notes: vec!["Digits 4 & 9 are <often> confused.".into()],
    }
}

/// A rate of whole bits.
pub(super) fn whole(bits: u8) -> Rate {
    Bits::new(bits).unwrap().into()
}

/// Four schemes at 2, 3, 4, 5, 6 and 8 bits, about 6 dB a bit, without analyses.
pub(super) fn rows() -> Vec<Row> {
    let row = |scheme: &str, gain: f64, bits: u8| {
        let b = f64::from(bits);
        let sqnr_db = 6.02 * b - 3.0 + gain;
        Row {
            scheme: scheme.into(),
            bits: whole(bits),
            tune_steps: None,
            sqnr_db,
            mse: 0.01 * 10.0_f64.powf(-sqnr_db / 10.0),
            bits_per_weight: b + 0.31 + 0.02 * 2.0_f64.powf(b - 4.0),
            packed_bytes: 154_321 * u64::from(bits) + 47_813,
            ratio: 32.0 / (b + 0.33),
            psnr_db: 0.9 * sqnr_db + 4.0,
            psnr_error: Some(0.1),
            mean_psnr_db: None,
            ssim: (bits > 2).then_some(1.0 - 0.9 * 10.0_f64.powf(-sqnr_db / 20.0)),
            fid: 9.41 + 900.0 * 10.0_f64.powf(-sqnr_db / 8.0),
            fid_error: Some(0.3),
            feature_distance: None,
            velocity_psnr_db: None,
            velocity_ssim: None,
            latent: None,
            inversion: None,
            divergence: Vec::new(),
            bounds: None,
            seconds: 31.25,
        }
    };
    let bits = [2, 3, 4, 5, 6, 8];
    SCHEMES.iter().flat_map(|&(name, gain)| bits.map(|bits| row(name, gain, bits))).collect()
}

/// The sample sweep with every analysis.
pub(super) fn analysed() -> (Summary, Vec<Row>) {
    let mut summary = summary();
    summary.seeds = 3;
    summary.latent = Some(latent(0.0));
    summary.inversion = Some(inversion(0.0));
    summary.times = TIMES.into();
    summary.lipschitz = Some(Lipschitz {
        t: TIMES.into(),
        x: TIMES.map(|t| 1.5 + 4.0 * t * t).into(),
        theta: TIMES.map(|t| 30.0 - 12.0 * t).into(),
    });
    let mut rows = rows();
    for row in &mut rows {
        let error = 10.0_f64.powf(-row.sqnr_db / 20.0);
        row.feature_distance = Some(0.8 * error);
        row.velocity_psnr_db = Some(row.sqnr_db + 2.0);
        row.velocity_ssim = Some(1.0 - 0.4 * error);
        row.latent = Some(latent(error));
        row.inversion = Some(inversion(error));
        row.divergence = TIMES.map(|t| 12.0 * error * (1.0 - (-3.0 * t).exp())).into();
        row.bounds = Some(Bounds {
            weights: 40.0 * error,
            error: 12.0 * error,
            from_velocity: 95.0 * error,
            from_weights: 7_800.0 * error,
        });
    }
    (summary, rows)
}

fn latent(error: f64) -> Latent {
    let spread = |gain: f64| VarianceSpread {
        mean: 0.21 + gain * error,
        std: 0.34 - 0.2 * gain * error,
        collapsed: usize::from(error > 0.3),
    };
    Latent {
        own: spread(0.05),
        common: spread(0.11),
        units: 128,
        dead: if error > 0.2 { 7 } else { 2 },
        constant: 0,
    }
}

fn inversion(error: f64) -> Inversion {
    Inversion {
        mean: 0.003 + 0.1 * error,
        variance: 1.02 - 0.5 * error,
        kurtosis: 0.04 + 0.9 * error,
        ks: 0.01 + 0.2 * error,
        rejected: 0.06 + 0.7 * error,
        round_trip_psnr_db: 48.0 - 30.0 * error,
        drift: error,
    }
}

/// A bell of 400 weights and the schemes' levels at 2, 3 and 8 bits.
pub(super) fn levels() -> Levels {
    // Quantiles of the logistic distribution.
    let weight = |p: f32| 0.04 * (p / (1.0 - p)).ln();
    let row = |scheme: usize, bits: u8| {
        let count = 1_u16 << bits;
        let place = |i: u16| (f32::from(i) + 0.5) / f32::from(count);
        let levels = (0..count).map(|i| match scheme % 2 {
            0 => weight(place(i)),
            _ => 0.4 * place(i) - 0.2,
        });
        (SCHEMES[scheme].0.to_string(), whole(bits), levels.collect())
    };
    Levels {
        tensor: "input_blocks.1.0.in_layers.2.weight".into(),
        channel: 5,
        weights: (0..400_u16).map(|i| weight((f32::from(i) + 0.5) / 400.0)).collect(),
        rows: (0..4).flat_map(|scheme| [2, 3, 8].map(|bits| row(scheme, bits))).collect(),
    }
}

/// Panics unless every tag of `xml` is closed in turn, but for those that HTML leaves open.
pub(super) fn assert_well_formed(xml: &str) {
    let mut open = Vec::new();
    for tag in xml.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a tag ends");
        assert!(!text.contains('>'), "stray > in {text}");
        let name = tag.split([' ', '\n']).next().unwrap();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') && !tag.starts_with('!') && !["img", "meta"].contains(&name) {
            open.push(name);
        }
        assert!(tag.matches('"').count().is_multiple_of(2), "quotes in {tag}");
    }
    assert_eq!(open, [""; 0]);
}
