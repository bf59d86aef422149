//! Every scheme on one group of weights: a channel of a 3x3 convolution with 32 or 128 inputs.

use core::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fmq_benches::{quick, weights};
use quant_core::fit::{Fitter, Group};
use quant_core::scheme::Scheme;

fn fit(c: &mut Criterion) {
    let mut group = c.benchmark_group("fit");
    let mut fitter = Fitter::new();
    for scheme in Scheme::ALL {
        for bits in [2, 4, 8] {
            for n in [288, 1152] {
                let weights = weights(n);
                let channel = Group { weights: &weights, bits, numel: n };
                assert!(fitter.fit(scheme, &channel).is_ok(), "what is timed must be right");
                group.throughput(Throughput::Elements(n as u64));
                let key = format!("scheme={scheme}/bits={bits}/impl=scalar");
                group.bench_function(BenchmarkId::new(key, format!("n={n}")), |b| {
                    b.iter(|| fitter.fit(scheme, black_box(&channel)).map(|fitted| fitted.fit));
                });
            }
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
