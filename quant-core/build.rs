//! Tells the kernels what the chip can do, for which stable Rust has no `cfg`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(fmq_dsp, fmq_buckets, fmq_thumb1)");
    let target = std::env::var("TARGET").unwrap_or_default();
    let kinds: &[_] = match target.split('-').next() {
        // An instruction for two products.
        Some("thumbv7em") => &["fmq_dsp"],
        // None, so that adding comes first.
        Some("thumbv7m") => &["fmq_buckets"],
        // And half of the registers for all that is not adding.
        Some("thumbv6m") => &["fmq_buckets", "fmq_thumb1"],
        _ => &[],
    };
    for kind in kinds {
        println!("cargo:rustc-cfg={kind}");
    }
}
