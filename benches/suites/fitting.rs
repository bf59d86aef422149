//! Every scheme on one group of weights, a channel of a 3x3 convolution with 256 inputs.

use core::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fmq_benches::{quick, weights, width};
use quant_core::fit::{self, Group};
use quant_core::scheme::Scheme;

/// Weights of the channel.
const N: usize = 2304;

fn fit(c: &mut Criterion) {
    let mut group = c.benchmark_group("fit");
    group.throughput(Throughput::Elements(N as u64));
    let weights = weights(N);
    for scheme in Scheme::ALL {
        for bits in [4, 8].map(width) {
            let channel = Group::new(&weights, bits);
            assert!(fit::fit(scheme, &channel).is_ok(), "what is timed must be right");
            let key = format!("scheme={scheme}/bits={bits}/impl=scalar");
            group.bench_function(BenchmarkId::new(key, format!("n={N}")), |b| {
                b.iter(|| fit::fit(scheme, black_box(&channel)).map(|fitted| fitted.fit));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = quick();
    targets = fit
}
criterion_main!(benches);
