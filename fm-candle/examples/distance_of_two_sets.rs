//! Fréchet distance between two sets of feature rows, gathered in batches as FID gathers them.
//!
//! ```text
//! cargo run -p fm-candle --example distance_of_two_sets
//! ```

#![expect(clippy::print_stdout, reason = "an example")]

use fm_candle::fid::{Statistics, fid};

fn main() -> fm_candle::Result<()> {
    // 400 rows of 4 features: the same waves, the second set moved by 1 in its first feature.
    let rows = |shift: f32| -> Vec<f32> {
        let value = |i: u16| (f32::from(i) * 0.37).sin() + (f32::from(i / 4) * 0.11).cos();
        (0..1600).map(|i| value(i) + if i % 4 == 0 { shift } else { 0.0 }).collect()
    };
    let [a, b] = [0.0, 1.0].map(|shift| Statistics::of_rows(&rows(shift), 4));
    let (a, b) = (a?, b?);
    println!("to itself: {:.6}", fid(&a, &a)?);
    println!("to the moved set: {:.6} (the means are 1 apart)", fid(&a, &b)?);
    Ok(())
}
