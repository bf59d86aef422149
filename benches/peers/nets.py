"""What the peers share: fmq's `pace` and PyTorch's nets of upstream's class, taking turns."""
import importlib, os, statistics, subprocess, sys, time

import torch

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
sides = {"cifar10": 32, "mnist": 28, "mnist-small": 28}
halves = {"f16": torch.float16, "bf16": torch.bfloat16}


def unet(root, name, device):
    """Upstream's net, from a clone of facebookresearch/flow_matching at `root`."""
    sys.path[:0] = [f"{root}/examples/image", root]
    return importlib.import_module("models.unet").UNetModel(**nets[name]).to(device)


def peer(root, name, n, kind, device="cpu", precision="f32"):
    """The work of `pace NAME N KIND DEVICE PRECISION` in PyTorch, as a function of nothing: half
    precision by autocast, with torch's scaler for f16, as upstream trains."""
    config, side, half = nets[name], sides[name], halves.get(precision)
    net = unet(root, name, device).train(kind == "train")
    x = torch.randn(n, config["in_channels"], side, side, device=device)
    t = torch.full((n,), 0.5, device=device)
    extra = {}
    if config["num_classes"]:
        extra["label"] = torch.zeros(n, dtype=torch.long, device=device)
    autocast = torch.autocast(device, dtype=half, enabled=half is not None)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    if kind != "train":
        def evaluate():
            with torch.no_grad(), autocast:
                net(x, t, extra=extra)
            wait()
        return evaluate
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.9, 0.95))
    scaler = torch.amp.GradScaler(device, enabled=precision == "f16")

    def train():
        optimizer.zero_grad()
        with autocast:
            loss = torch.nn.functional.mse_loss(net(x, t, extra=extra), x)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        wait()
    return train


class Ours:
    """`pace` as a process that waits between its turns."""

    def __init__(self, *args, environment={}):
        self.process = subprocess.Popen(
            [os.environ.get("PACE", "target/release/pace"), *map(str, args)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=dict(os.environ, **environment),
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
