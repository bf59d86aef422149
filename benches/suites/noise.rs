//! The counter-based generator: one MNIST image of noise, and one of 64x64 RGB.

use core::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fmq_benches::quick;
use quant_core::noise::{NOISE_DOMAIN, Stream};

fn noise(c: &mut Criterion) {
    for n in [28 * 28, 3 * 64 * 64] {
        let (stream, mut out) = (Stream::new(1, NOISE_DOMAIN), vec![0.0; n]);
        let id = |()| BenchmarkId::new("impl=scalar", format!("n={n}"));

        let mut group = c.benchmark_group("fill_normal");
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(id(()), |b| b.iter(|| stream.fill_normal(black_box(7), 0, &mut out)));
        group.finish();

        let mut group = c.benchmark_group("fill_uniform");
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(id(()), |b| {
            b.iter(|| stream.fill_uniform(black_box(7), 0, &mut out));
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = quick();
    targets = noise
}
criterion_main!(benches);
