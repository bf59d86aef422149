"""fmq's nets beside PyTorch's, in turn, two threads each: seconds and ratios of medians.

    cargo build --release -p fmq-benches --bin pace
    python benches/peers/cpu.py FLOW_MATCHING [ROUNDS]

FLOW_MATCHING is a clone of facebookresearch/flow_matching, whose U-Net class is the peer;
torch comes from PyPI.
"""
import sys

import torch

from nets import Ours, peer, row, seconds

root, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7
torch.set_num_threads(2)
environment = {"RAYON_NUM_THREADS": "2", "CANDLE_NUM_THREADS": "1", "MIMALLOC_PURGE_DELAY": "-1"}

print("| work | fmq, s | peer, s | ratio |\n|---|---|---|---|")
for name, n, kind, times in [
    ("cifar10", 8, "dense", 1), ("cifar10", 1, "dense", 3), ("mnist-small", 32, "dense", 10),
    ("cifar10", 8, "train", 1), ("mnist", 8, "train", 1), ("mnist-small", 8, "train", 10),
]:
    ours, theirs = Ours(name, n, kind, environment=environment), peer(root, name, n, kind)
    theirs()
    a, b = [], []
    for _ in range(rounds):
        a += [ours.seconds() for _ in range(times)]
        b += [seconds(theirs) for _ in range(times)]
    ours.close()
    row(f"{name}, {n} images, {kind}, against PyTorch {torch.__version__}", a, b)
for kind in ["packed4", "int8"]:
    ours, dense = [Ours("cifar10", 8, k, environment=environment) for k in (kind, "dense")]
    a, b = [], []
    for _ in range(rounds):
        a.append(ours.seconds())
        b.append(dense.seconds())
    ours.close()
    dense.close()
    row(f"cifar10, 8 images, {kind}, against dense", a, b)
