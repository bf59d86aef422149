"""FID's features beside torch-fidelity's net in PyTorch, in turn, with as many threads each: seconds
and ratios.

    cargo build --release -p fmq-benches --bin pace
    python benches/peers/fid.py [ROUNDS [THREADS]]

torch and torch-fidelity (0.4) come from PyPI. The net of each is untrained, which takes as long.
"""
import os, statistics, subprocess, sys, time

import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

rounds, threads = (int(given) for given in (sys.argv[1:] + [3, 2][len(sys.argv) - 1 :]))
n = 16
torch.set_num_threads(threads)
# The package's own constructor wants a weight file; none is needed to take time.
torch.load = lambda *_, **__: {}
torch.nn.Module.load_state_dict = lambda *_, **__: None
net = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path="none")
# Of the size already, so that neither side resizes.
x = torch.randint(0, 256, (n, 3, 299, 299), dtype=torch.uint8)
target = os.environ.get("CARGO_TARGET_DIR", "target")
environment = dict(
    os.environ, RAYON_NUM_THREADS=str(threads), CANDLE_NUM_THREADS="1", MIMALLOC_PURGE_DELAY="-1"
)
ours = subprocess.Popen(
    [f"{target}/release/pace", "inception", str(n), "dense"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
)
assert ours.stdout.readline() == "ready\n"


def fmq():
    ours.stdin.write("\n")
    ours.stdin.flush()
    return float(ours.stdout.readline())


def peer():
    start = time.perf_counter()
    with torch.no_grad():
        net(x)
    return time.perf_counter() - start


peer()
pairs = [(fmq(), peer()) for _ in range(rounds)]
a, b = (statistics.median(side) for side in zip(*pairs))
print("| work | fmq, images/s | peer, images/s | fmq / peer, time |\n|---|---|---|---|")
print(f"| {n} images, PyTorch {torch.__version__} | {n / a:.1f} | {n / b:.1f} | {a / b:.2f} |")
for a, b in pairs:
    print(f"{a:.3f} s beside {b:.3f} s: {a / b:.2f}")
