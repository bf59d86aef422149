"""Folders of JPEGs to 64 x 64: fmq beside torchvision's ImageFolder and DataLoader, in turn.

    cargo build --release -p fmq-benches --bin folder
    python benches/peers/folder.py [ROUNDS]

Two threads of fmq, two worker processes of torchvision, the same 2000 files, which lie in the page
cache. numpy, pillow, torch and torchvision come from PyPI.
"""
import os, pathlib, statistics, subprocess, sys, tempfile, time

import numpy as np
import torch
from PIL import Image
from torchvision import datasets, transforms

N, SIZE = 2000, 64
rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
target = os.environ.get("CARGO_TARGET_DIR", "target")


def picture(i):
    """A smooth picture with some noise, about 400 x 350."""
    random = np.random.default_rng(i)
    width, height = 400 + int(random.integers(-30, 31)), 350 + int(random.integers(-30, 31))
    coarse = random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))
    noisy = smooth.astype(np.int16) + random.integers(-12, 13, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


class Ours:
    """`folder` as a process that waits between its turns."""

    def __init__(self, root, crop):
        self.process = subprocess.Popen(
            [f"{target}/release/folder", root, str(SIZE), crop],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=dict(os.environ, RAYON_NUM_THREADS="2"),
        )
        assert self.process.stdout.readline().strip() == "ready"

    def __call__(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


class Peer:
    """An epoch of torchvision's loader, its workers started before."""

    def __init__(self, root, crop):
        steps = [transforms.Lambda(square)] if crop == "square" else []
        steps += [transforms.Lambda(box), transforms.PILToTensor()]
        data = datasets.ImageFolder(root, transforms.Compose(steps))
        self.loader = torch.utils.data.DataLoader(
            data, batch_size=64, num_workers=2, persistent_workers=True
        )
        self()

    def __call__(self):
        start = time.perf_counter()
        for images, _ in self.loader:
            assert images.shape[1:] == (3, SIZE, SIZE)
        return time.perf_counter() - start


def square(image):
    return transforms.functional.center_crop(image, min(image.size))


def box(image):
    return image.resize((SIZE, SIZE), Image.BOX)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        for i in range(N):
            path = pathlib.Path(root, f"class{i % 10}", f"{i:04}.jpg")
            path.parent.mkdir(exist_ok=True)
            picture(i).save(path, quality=90)
        print("| crop | fmq, images/s | torchvision, images/s | fmq / torchvision |\n|---|---|---|---|")
        for crop in ["whole", "square"]:
            # In this order: a worker started later would hold our pipe open.
            peer, ours = Peer(root, crop), Ours(root, crop)
            ours()
            times = [(ours(), peer()) for _ in range(rounds)]
            a, b = (N / statistics.median(column) for column in zip(*times))
            print(f"| {crop} | {a:.0f} | {b:.0f} | {a / b:.2f} |", flush=True)
            ours.process.stdin.close()
            ours.process.wait()
