"""fmq's nets beside PyTorch's, in turn, two threads each: seconds and ratios of medians.

    cargo build --release -p fmq-benches --bin pace
    python benches/peers/cpu.py FLOW_MATCHING [ROUNDS]

FLOW_MATCHING is a clone of facebookresearch/flow_matching, whose U-Net class is the peer;
torch comes from PyPI.
"""
import os, statistics, subprocess, sys, time

import torch

root, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7
sys.path[:0] = [f"{root}/examples/image", root]
from models.unet import UNetModel  # noqa: E402

torch.set_num_threads(2)
environment = dict(
    os.environ, RAYON_NUM_THREADS="2", CANDLE_NUM_THREADS="1", MIMALLOC_PURGE_DELAY="-1"
)
common = dict(
    conv_resample=False, num_heads=1, num_head_channels=-1, num_heads_upsample=-1,
    use_scale_shift_norm=True, resblock_updown=False, use_new_attention_order=True,
)
nets = {
    "cifar10": dict(
        in_channels=3, out_channels=3, model_channels=128, num_res_blocks=4, dropout=0.3,
        attention_resolutions=[2], channel_mult=[2, 2, 2], num_classes=None, **common,
    ),
    "mnist": dict(
        in_channels=1, out_channels=1, model_channels=128, num_res_blocks=4, dropout=0.3,
        attention_resolutions=[2], channel_mult=[2, 2, 2], num_classes=None, **common,
    ),
    "mnist-small": dict(
        in_channels=1, out_channels=1, model_channels=32, num_res_blocks=1, dropout=0.0,
        attention_resolutions=[4], channel_mult=[1, 1, 2], num_classes=10, **common,
    ),
}


def peer(name, n, kind):
    """The same work in PyTorch, as a function of nothing."""
    config = nets[name]
    side = {"cifar10": 32, "mnist": 28, "mnist-small": 28}[name]
    net = UNetModel(**config).train(kind == "train")
    x, t = torch.randn(n, config["in_channels"], side, side), torch.full((n,), 0.5)
    extra = {"label": torch.zeros(n, dtype=torch.long)} if config["num_classes"] else {}
    if kind != "train":
        def evaluate():
            with torch.no_grad():
                net(x, t, extra=extra)
        return evaluate
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.9, 0.95))

    def train():
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(x, t, extra=extra), x).backward()
        optimizer.step()
    return train


class Ours:
    """`pace` as a process that waits between its turns."""

    def __init__(self, name, n, kind):
        self.process = subprocess.Popen(
            ["target/release/pace", name, str(n), kind],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        assert self.process.stdout.readline() == "ready\n"

    def seconds(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def row(label, a, b):
    a, b = statistics.median(a), statistics.median(b)
    print(f"| {label} | {a:.4f} | {b:.4f} | {a / b:.2f} |", flush=True)


print("| work | fmq, s | peer, s | ratio |\n|---|---|---|---|")
for name, n, kind, times in [
    ("cifar10", 8, "dense", 1), ("cifar10", 1, "dense", 3), ("mnist-small", 32, "dense", 10),
    ("cifar10", 8, "train", 1), ("mnist", 8, "train", 1), ("mnist-small", 8, "train", 10),
]:
    ours, theirs = Ours(name, n, kind), peer(name, n, kind)
    theirs()
    a, b = [], []
    for _ in range(rounds):
        a += [ours.seconds() for _ in range(times)]
        b += [seconds(theirs) for _ in range(times)]
    ours.close()
    row(f"{name}, {n} images, {kind}, against PyTorch {torch.__version__}", a, b)
for kind in ["packed4", "int8"]:
    ours, dense = Ours("cifar10", 8, kind), Ours("cifar10", 8, "dense")
    a, b = [], []
    for _ in range(rounds):
        a.append(ours.seconds())
        b.append(dense.seconds())
    ours.close()
    dense.close()
    row(f"cifar10, 8 images, {kind}, against dense", a, b)
