"""fmq's nets on a GPU beside PyTorch's, in turn: seconds and ratios of medians.

    cargo build --release -p fmq-benches --features cudnn --bin pace
    python benches/peers/gpu.py FLOW_MATCHING [ROUNDS [FILTER]]

FLOW_MATCHING is a clone of facebookresearch/flow_matching, whose U-Net class is the peer, as
upstream runs it: eager, half precision by autocast. FILTER picks the rows that contain it.
"""
import sys

import torch

from nets import Ours, peer, row, seconds

root, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7
wanted = sys.argv[3] if len(sys.argv) > 3 else ""
torch.backends.cudnn.benchmark = True

print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}")
print("| work | fmq, s | peer, s | ratio |\n|---|---|---|---|")
for name, n, kind in [
    ("cifar10", 64, "train"), ("cifar10", 64, "dense"), ("cifar10", 64, "packed4"),
    ("cifar10", 1, "dense"), ("mnist", 64, "train"), ("mnist-small", 64, "train"),
    ("mnist-small", 256, "dense"),
]:
    for precision in ["bf16", "f16", "tf32", "f32"]:
        label = f"{name}, {n} images, {kind}, {precision}"
        if wanted not in label:
            continue
        exact = precision == "f32"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not exact
        ours = Ours(name, n, kind, "cuda", precision)
        theirs = peer(root, name, n, kind, "cuda", precision)
        for _ in range(3):
            ours.seconds()
            theirs()
        a, b = [], []
        for _ in range(rounds):
            a += [ours.seconds() for _ in range(3)]
            b += [seconds(theirs) for _ in range(3)]
        ours.close()
        row(label, a, b)
        del theirs
        torch.cuda.empty_cache()
