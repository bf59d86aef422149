//! Quantizes a tensor by two schemes, packs both into a file, and reads them back.
//!
//! ```text
//! cargo run -p quant-core --features alloc --example pack_tensor
//! ```

#![expect(clippy::print_stdout, reason = "an example")]

use quant_core::Result;
use quant_core::bits::Bits;
use quant_core::format::{Head, Model, Writer};
use quant_core::quantize::{QuantizeOptions, quantize_tensor};
use quant_core::scheme::Scheme;

fn main() -> Result<()> {
    // Four rows of weights, each with a codebook of four levels.
    let weights: Vec<f32> = (0..256_u16).map(|i| (f32::from(i) * 0.7).sin()).collect();
    let schemes = [Scheme::EqualMass, Scheme::LloydMax];
    let quantize =
        |scheme| quantize_tensor(&weights, &[4, 64], &QuantizeOptions::new(scheme, Bits::new(2)?));
    let tensors = schemes.map(quantize);

    let head = Head {
        names: Some(schemes.iter().map(|scheme| scheme.name()).collect()),
        ..Head::default()
    };
    let mut writer = Writer::new(Vec::new(), &head)?;
    for tensor in tensors {
        writer.quantized(&tensor?)?;
    }
    let file = writer.into_file()?;
    println!("{} bytes for 2 x {} weights", file.len(), weights.len());

    let model = Model::parse(&file)?;
    for scheme in schemes {
        let Some(tensor) = model.tensor(scheme.name()) else { continue };
        let mut row = [0.0; 64];
        tensor.decode_row(0, &mut row)?;
        let errors = row.iter().zip(&weights).map(|(q, w)| (q - w) * (q - w));
        println!("{scheme}: mean squared error of the first row {:.4}", errors.sum::<f32>() / 64.0);
    }
    Ok(())
}
