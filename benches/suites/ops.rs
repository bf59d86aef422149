//! Our convolution and group norm beside what one would write with candle's own operations, each on
//! maps as it wants them: ours with channels last, candle's with channels first. `matmul` is the
//! square matrix product that tells the machine's peak.
//!
//! `pass=forward` is the result alone; `pass=both` adds the gradients of all three inputs. Both
//! sides run on rayon's threads (`RAYON_NUM_THREADS`) and under the program's allocator; candle's
//! element-wise loops run on `CANDLE_NUM_THREADS`, which `.cargo/config.toml` sets to 1.
//!
//! An element is a floating-point operation in `conv2d` (so Gelem/s reads as GFLOP/s; the backward
//! pass counts as two forward ones), and a value of the input in `group_norm`.

use candle_core::{Result, Tensor, Var};
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use fm_candle::ops::{self, Activation};
use fmq_benches::{quick, tensor};

/// Batches `[n, channels, side]`: two levels of MNIST's nets, the first one of CIFAR-10's.
const SHAPES: [[usize; 3]; 3] = [[8, 32, 28], [8, 128, 14], [8, 256, 32]];
/// Channels share statistics in groups; upstream's nets have 32.
const GROUPS: usize = 32;
const EPS: f64 = 1e-5;

/// An operation on an input and two parameters.
type Op = fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>;

fn conv2d_ours(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    ops::conv2d(x, weight, bias, 1, 1)
}

fn conv2d_candle(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.conv2d(weight, 1, 1, 1, 1)?.broadcast_add(&bias.reshape((1, (), 1, 1))?)
}

fn group_norm_ours(x: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    ops::group_norm(x, a, b, GROUPS, EPS, Activation::Silu)
}

fn group_norm_candle(x: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (n, c) = a.dims2()?;
    let grouped = x.reshape((n, GROUPS, ()))?;
    let centred = grouped.broadcast_sub(&grouped.mean_keepdim(2)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(2)? + EPS)?.sqrt()?;
    let unit = centred.broadcast_div(&deviation)?.reshape((n, c, ()))?;
    let z = unit.broadcast_mul(&a.reshape((n, c, 1))?)?.broadcast_add(&b.reshape((n, c, 1))?)?;
    z.reshape(x.shape())?.silu()
}

fn conv2d(c: &mut Criterion) {
    for [n, channels, side] in SHAPES {
        let inputs =
            [vec![n, side, side, channels], vec![channels, channels, 3, 3], vec![channels]];
        let flops = 2 * n * channels * channels * 9 * side * side;
        let key = format!("c={channels}/side={side}");
        let sides: [(_, Op); 2] = [("ours", conv2d_ours), ("candle", conv2d_candle)];
        compare(c, "conv2d", &key, n, &inputs, [flops, 3 * flops], &sides);
    }
}

fn group_norm(c: &mut Criterion) {
    for [n, channels, side] in SHAPES {
        let inputs = [vec![n, side, side, channels], vec![n, channels], vec![n, channels]];
        let values = n * channels * side * side;
        let key = format!("c={channels}/side={side}");
        let sides: [(_, Op); 2] = [("ours", group_norm_ours), ("candle", group_norm_candle)];
        compare(c, "group_norm", &key, n, &inputs, [values; 2], &sides);
    }
}

/// Times the sides forward, then forward and backward, with `elements` of work in each pass.
fn compare(
    c: &mut Criterion,
    what: &str,
    key: &str,
    n: usize,
    inputs: &[Vec<usize>; 3],
    elements: [usize; 2],
    sides: &[(&str, Op); 2],
) {
    let [x, p, q] = [0, 1, 2].map(|i| tensor(i as u64, &inputs[i]).expect("a shape"));
    let difference = largest_difference(&x, &p, &q, sides).expect("shapes that fit");
    assert!(difference < 1e-3, "{what}: the sides differ by {difference}");

    let mut group = c.benchmark_group(what);
    group.sampling_mode(SamplingMode::Flat);
    for (place, (name, op)) in sides.iter().enumerate() {
        let x = if place == 0 { x.clone() } else { channels_first(&x).expect("memory") };
        group.throughput(Throughput::Elements(elements[0] as u64));
        let id =
            |pass| BenchmarkId::new(format!("pass={pass}/{key}/impl={name}"), format!("n={n}"));
        group.bench_function(id("forward"), |b| b.iter(|| op(&x, &p, &q)));

        let [x, p, q] = [&x, &p, &q].map(|t| Var::from_tensor(t).expect("memory"));
        let both = || op(&x, &p, &q)?.sum_all()?.backward();
        group.throughput(Throughput::Elements(elements[1] as u64));
        group.bench_function(id("both"), |b| b.iter(both));
    }
    group.finish();
}

/// The sides must compute the same thing for the comparison to mean anything.
fn largest_difference(
    x: &Tensor,
    p: &Tensor,
    q: &Tensor,
    [(_, a), (_, b)]: &[(&str, Op); 2],
) -> Result<f32> {
    let theirs = b(&channels_first(x)?, p, q)?;
    (channels_first(&a(x, p, q)?)? - theirs)?.abs()?.max_all()?.to_scalar()
}

/// `[n, h, w, c]` to `[n, c, h, w]`.
fn channels_first(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 3, 1, 2))?.contiguous()
}

fn matmul(c: &mut Criterion) {
    const SIDE: usize = 1536;
    let [a, b] = [0, 1].map(|index| tensor(index, &[SIDE, SIDE]).expect("a shape"));
    let mut group = c.benchmark_group("matmul");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(2 * (SIDE as u64).pow(3)));
    group.bench_function(BenchmarkId::new("impl=candle", format!("n={SIDE}")), |bencher| {
        bencher.iter(|| a.matmul(&b));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = quick();
    targets = conv2d, group_norm, matmul
}
criterion_main!(benches);
