//! Codes into bytes and back, a row to weights, and a whole file checked.

use core::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fmq_benches::{codes, packed_file, quick, weights};
use quant_core::bits::{pack, packed_len, unpack};
use quant_core::codebook::Entries;
use quant_core::coded::{CodedRows, Coding};
use quant_core::format::Model;

const BITS: [u8; 4] = [2, 3, 4, 8];

fn packing(c: &mut Criterion) {
    const N: usize = 4096;
    for bits in BITS {
        let codes = codes(N, bits);
        let mut bytes = vec![0; packed_len(N, bits).expect("1 to 8 bits")];
        let mut read = vec![0; N];
        let id = |()| BenchmarkId::new(format!("bits={bits}/impl=scalar"), format!("n={N}"));

        let mut group = c.benchmark_group("pack");
        group.throughput(Throughput::Elements(N as u64));
        group.bench_function(id(()), |b| b.iter(|| pack(black_box(&codes), &mut bytes, bits)));
        group.finish();

        let mut group = c.benchmark_group("unpack");
        group.throughput(Throughput::Elements(N as u64));
        group.bench_function(id(()), |b| b.iter(|| unpack(black_box(&bytes), &mut read, bits)));
        group.finish();
        assert_eq!(read, codes, "what was timed must be right");
    }
}

/// Rows of a convolution with 32 and with 128 input channels, from tables of f32.
fn decode_row(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_row");
    for n in [288, 1152] {
        for bits in BITS {
            let (levels, entries) = (1_u16 << bits, Entries::F32);
            let table = weights(usize::from(levels));
            let codebook: Vec<u8> = table.iter().flat_map(|w| w.to_le_bytes()).collect();
            let mut packed = vec![0; packed_len(n, bits).expect("1 to 8 bits")];
            pack(&codes(n, bits), &mut packed, bits).expect("codes of this width");
            let coding = Coding { bits, entries, levels, rows_per_codebook: 1 };
            let rows = CodedRows::new(coding, 1, n, &codebook, &packed).expect("fitting lengths");

            let mut out = vec![0.0; n];
            group.throughput(Throughput::Elements(n as u64));
            let id = BenchmarkId::new(format!("bits={bits}/impl=scalar"), format!("n={n}"));
            group.bench_function(id, |b| b.iter(|| black_box(rows).decode_row(0, &mut out)));
        }
    }
    group.finish();
}

/// The small MNIST net; `n` is the length of the file in bytes.
fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for bits in BITS {
        let file = packed_file(bits).expect("the preset is a net");
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
    targets = packing, decode_row, parse
}
criterion_main!(benches);
