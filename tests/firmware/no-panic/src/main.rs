//! Links only if reading a packed file and drawing from it hold no path to a panic: the panic handler calls a
//! function that nobody defines, so whatever could reach it leaves an undefined symbol.
//!
//! ```text
//! cargo build --release --target thumbv7em-none-eabihf
//! ```

#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;
use quant_core::format::Model;
use quant_core::infer::{Plan, Precision, Sampler, Settings};

unsafe extern "C" {
    /// The name says what is wrong when the linker prints it.
    safe fn quant_core_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    quant_core_can_panic()
}

/// Reads a file of unknown contents: everything that a device calls before it computes.
// SAFETY: no other symbol of this program has this name.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let mut sum = 0.0;
    if let Ok(model) = Model::parse(black_box(&[])) {
        let mut row = [0.0; 64];
        for tensor in model.tensors() {
            for i in 0..tensor.rows() {
                let row = row.get_mut(..tensor.row_len()).unwrap_or_default();
                if tensor.decode_row(i, row).is_ok() {
                    sum += row.iter().sum::<f32>();
                }
                if let Some(coded) = tensor.quantized() {
                    sum += coded.codes(i).into_iter().flatten().map(f32::from).sum::<f32>();
                    sum += coded.codebook(i).map_or(0.0, |codebook| codebook.value(1));
                }
            }
            sum += tensor.integers().into_iter().flatten().count() as f32;
        }
        sum += model.tensor("time_embed.0.weight").map_or(0.0, |tensor| tensor.numel() as f32);
        sum += model.self_test_vector().map_or(0.0, |vector| vector.velocity().sum());
        let mut arena = [0.0; 64];
        let settings = black_box(Settings::default());
        let precision = black_box(Precision::Integer);
        if let Ok(plan) = Plan::with_precision(&model, precision) {
            sum += f32::from(plan.self_test(&model, &mut arena).is_ok());
        }
        if let Ok(plan) = Plan::with_precision(&model, precision)
            && let Ok(mut sampler) = Sampler::new(&model, &plan, settings, &mut arena)
        {
            sampler.noise(black_box(0), 0);
            while sampler.step() == Ok(true) {}
            sum += sampler.image().iter().sum::<f32>() + plan.macs() as f32;
        }
        sum += model.sections().map(|(_, contents)| contents.len()).sum::<usize>() as f32;
    }
    loop {
        black_box(sum);
    }
}
