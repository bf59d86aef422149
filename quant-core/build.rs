//! Tells the kernels whether the chip has the DSP instructions, for which stable Rust has no `cfg`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(fmq_dsp)");
    if std::env::var("TARGET").is_ok_and(|target| target.starts_with("thumbv7em-")) {
        println!("cargo:rustc-cfg=fmq_dsp");
    }
}
