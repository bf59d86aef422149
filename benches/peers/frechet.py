"""The Fréchet distance on 2048 features beside pytorch-fid's way to it, scipy's sqrtm, in turn, with as
many threads each: seconds and ratios.

    cargo build --release -p fmq-benches --bin pace
    python benches/peers/frechet.py [ROUNDS [THREADS [FEATURES]]]

numpy and scipy come from PyPI. Both sides have covariances of a few more rows than features.
"""
import os, statistics, subprocess, sys, time

rounds, threads, d = (int(given) for given in (sys.argv[1:] + [3, 2, 2048][len(sys.argv) - 1 :]))
os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
import numpy, scipy
from scipy.linalg import sqrtm

noise = numpy.random.default_rng(1)
rows = [noise.standard_normal((d + d // 4, d)) for _ in range(2)]
mu = [rows.mean(axis=0) for rows in rows]
sigma = [numpy.cov(rows, rowvar=False) for rows in rows]
target = os.environ.get("CARGO_TARGET_DIR", "target")
environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), CANDLE_NUM_THREADS="1")
ours = subprocess.Popen(
    [f"{target}/release/pace", "frechet", str(d), "dense"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
)
assert ours.stdout.readline() == "ready\n"


def fmq():
    ours.stdin.write("\n")
    ours.stdin.flush()
    return float(ours.stdout.readline())


def peer():
    start = time.perf_counter()
    root = sqrtm(sigma[0] @ sigma[1])
    distance = ((mu[0] - mu[1]) ** 2).sum() + numpy.trace(sigma[0] + sigma[1] - 2 * root.real)
    assert numpy.isfinite(distance)
    return time.perf_counter() - start


pairs = [(fmq(), peer()) for _ in range(rounds)]
a, b = (statistics.median(side) for side in zip(*pairs))
print("| work | fmq, s | peer, s | peer / fmq, time |\n|---|---|---|---|")
print(f"| {d} features, scipy {scipy.__version__} | {a:.2f} | {b:.2f} | {b / a:.1f} |")
for a, b in pairs:
    print(f"{a:.2f} s beside {b:.2f} s: {b / a:.1f}")
