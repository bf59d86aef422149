//! Codes into bytes and back, codes and rows to weights, and a whole file checked.

use core::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use fmq_benches::{codes, packed_file, quick, small_config, weights, width};
use quant_core::bits::Bits;
use quant_core::codebook::CodebookFormat;
use quant_core::format::Model;
use quant_core::kernels::{dequantize, scalar};
use quant_core::matrix::{Parts, QuantLayout, QuantizedMatrix, RowScale};
use quant_core::packing::{pack, unpack};

type Dequantize = fn(&[u8], Bits, &[f32; 256], &mut [f32]);

const BITS: [Bits; 4] = [width(2), width(3), width(4), width(8)];
/// What the first cache holds, and what none does.
const LENGTHS: [usize; 2] = [4096, 4 << 20];

/// One loop, named by its width, implementation and length.
fn bench<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    (bits, implementation, n): (Bits, &str, usize),
    mut run: impl FnMut() -> T,
) {
    group.throughput(Throughput::Elements(n as u64));
    let id = BenchmarkId::new(format!("bits={bits}/impl={implementation}"), format!("n={n}"));
    group.bench_function(id, |b| b.iter(&mut run));
}

/// Beside copying the codes, a byte each.
fn packing(c: &mut Criterion) {
    for bits in BITS {
        for n in LENGTHS {
            let codes = codes(n, bits.get());
            let mut bytes = vec![0; bits.packed_len(n)];
            let mut read = vec![0; n];

            let mut group = c.benchmark_group("pack");
            let dispatch = || pack(black_box(&codes), black_box(&mut bytes), bits);
            bench(&mut group, (bits, "dispatch", n), dispatch);
            let copy = || black_box(&mut read).copy_from_slice(black_box(&codes));
            bench(&mut group, (bits, "memcpy", n), copy);
            group.finish();

            read.fill(0);
            let mut group = c.benchmark_group("unpack");
            let dispatch = || unpack(black_box(&bytes), black_box(&mut read), bits);
            bench(&mut group, (bits, "dispatch", n), dispatch);
            assert_eq!(read, codes, "what was timed must be right");
            let copy = || black_box(&mut read).copy_from_slice(black_box(&codes));
            bench(&mut group, (bits, "memcpy", n), copy);
            group.finish();
        }
    }
}

/// Beside copying the weights.
fn dequantizing(c: &mut Criterion) {
    let mut group = c.benchmark_group("dequantize");
    for bits in BITS {
        for n in LENGTHS {
            let codes = codes(n, bits.get());
            let mut packed = vec![0; bits.packed_len(n)];
            pack(&codes, &mut packed, bits).expect("codes of this width");
            let mut table = [0.0; 256];
            table.copy_from_slice(&weights(256));
            let expected: Vec<f32> = codes.iter().map(|&code| table[usize::from(code)]).collect();

            let mut out = vec![0.0; n];
            for (name, run) in
                [("dispatch", dequantize as Dequantize), ("scalar", scalar::dequantize)]
            {
                bench(&mut group, (bits, name, n), || {
                    run(black_box(&packed), bits, black_box(&table), black_box(&mut out));
                });
                assert_eq!(out, expected, "what was timed must be right");
            }
            let copy = || black_box(&mut out).copy_from_slice(black_box(&expected));
            bench(&mut group, (bits, "memcpy", n), copy);
        }
    }
    group.finish();
}

/// Rows of a convolution with 32 and with 128 input channels, from tables of f32.
fn decode_row(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_row");
    for n in [288, 1152] {
        for bits in BITS {
            let table = weights(bits.code_count());
            let codebooks: Vec<u8> = table.iter().flat_map(|w| w.to_le_bytes()).collect();
            let mut packed = vec![0; bits.packed_len(n)];
            pack(&codes(n, bits.get()), &mut packed, bits).expect("codes of this width");
            let (codebook, row_scale) = (CodebookFormat::F32, RowScale::None);
            let layout = QuantLayout { bits, codebook, rows_per_codebook: 1, row_scale };
            let parts = Parts { codebooks: &codebooks[..], scales: &[], codes: &packed };
            let rows = QuantizedMatrix::new(layout, 1, n, parts).expect("fitting lengths");

            let mut out = vec![0.0; n];
            group.throughput(Throughput::Elements(n as u64));
            let id = BenchmarkId::new(format!("bits={bits}/impl=dispatch"), format!("n={n}"));
            group.bench_function(id, |b| b.iter(|| black_box(rows).decode_row(0, &mut out)));
        }
    }
    group.finish();
}

/// The small MNIST net; `n` is the length of the file in bytes.
fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for bits in BITS {
        let config = small_config().expect("the preset exists");
        let file = packed_file(&config, bits).expect("the preset is a net");
        let n = file.len();
        assert!(Model::parse(&file).is_ok(), "what is timed must be right");
        group.throughput(Throughput::Bytes(n as u64));
        let id = BenchmarkId::new(format!("bits={bits}/impl=scalar"), format!("n={n}"));
        group.bench_function(id, |b| b.iter(|| Model::parse(black_box(&file)).is_ok()));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = quick();
    targets = packing, dequantizing, decode_row, parse
}
criterion_main!(benches);
