//! Quantizes the embedded net for microcontrollers to 4 bits, and reads from the packed file what it takes.
//!
//! ```text
//! cargo run -p fmq-cli --example quantize_and_inspect
//! ```

#![expect(clippy::print_stdout, reason = "an example")]

use serde_json::Value;

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let packed = folder.path().join("net.fmq").display().to_string();
    let net = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/mnist-micro.safetensors");
    let levels = ["--scheme", "lloyd-max", "--bits", "4", "--granularity", "auto"];
    let quantize = [&["quantize", net, "-o", &packed][..], &levels].concat();
    fmq::run(quantize, &mut Vec::new())?;

    let mut json = Vec::new();
    fmq::run(["inspect", &packed, "--json"], &mut json)?;
    let json: Value = serde_json::from_slice(&json)?;
    println!(
        "{} weights in {} bytes: {} bits per weight",
        json["parameters"], json["file_bytes"], json["packed"]["bits_per_weight"]
    );
    Ok(())
}
