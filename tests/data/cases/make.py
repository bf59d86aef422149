"""Torch files as other training programs leave them, and the tensors that are a net's in them.

    python make.py        (torch 2.x; writes beside itself)
"""

import argparse
import collections
import dataclasses
import enum
import json
import pathlib
import sys
import types

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent

# Classes of a module that whoever reads the files does not have.
mine = types.ModuleType("mine")
sys.modules["mine"] = mine


class Mode(enum.Enum):
    FAST = 1


@dataclasses.dataclass
class Config:
    width: int = 3


class Attributes(dict):
    pass


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Linear(6, 4)

    def forward(self, x):
        return self.conv(x)


for owned in (Mode, Config, Attributes, Net):
    owned.__module__ = "mine"
    owned.__qualname__ = owned.__name__
    setattr(mine, owned.__name__, owned)


def state_dict(start, prefix=""):
    """Weights that count from `start` on."""
    weight = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8 + start
    return collections.OrderedDict(
        [(prefix + "conv.weight", weight), (prefix + "conv.bias", torch.full((4,), start + 0.5))]
    )


def trained():
    """A net and its optimizer after a step."""
    net = Net()
    net.load_state_dict(state_dict(1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)
    net(torch.ones(2, 6)).sum().backward()
    optimizer.step()
    return net, optimizer


net, optimizer = trained()
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
adam = optimizer.state_dict()
expected = {}


def save(name, value, tensors, left_out=()):
    torch.save(value, HERE / name)
    expected[name] = {
        "tensors": {key: value.double().flatten().tolist() for key, value in tensors.items()},
        "left_out": list(left_out),
    }


# Several nets in a file: torchcfm, Lightning, denoising-diffusion-pytorch, torch_ema, swa_utils.
save(
    "several.pth",
    {
        "net_model": state_dict(1),
        "ema_model": state_dict(2),
        "optim": adam,
        "sched": scheduler.state_dict(),
        "step": 7,
    },
    state_dict(2),
)
save(
    "lightning.pth",
    {
        "epoch": 3,
        "global_step": 70,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state_dict(1, "model."),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.25)}},
        "optimizer_states": [adam],
        "lr_schedulers": [scheduler.state_dict()],
        "hparams_name": "kwargs",
        "hyper_parameters": Attributes(lr=1e-4),
    },
    state_dict(1),
)
save(
    "ema_class.pth",
    {
        "step": 9,
        "model": state_dict(1),
        "opt": adam,
        "ema": {
            "initted": torch.tensor(True),
            "step": torch.tensor(9),
            **state_dict(1, "online_model."),
            **state_dict(2, "ema_model."),
        },
        "scaler": None,
    },
    state_dict(2),
)
save(
    "shadow_list.pth",
    {
        "optimizer": adam,
        "model": state_dict(1, "module."),
        "ema": {
            "decay": 0.999,
            "num_updates": 9,
            "shadow_params": list(state_dict(2).values()),
            "collected_params": [],
        },
        "step": 9,
    },
    state_dict(2),
)
averaged = torch.optim.swa_utils.AveragedModel(net)
averaged.module.load_state_dict(state_dict(2))
save("averaged_model.pth", averaged.state_dict(), state_dict(2))
save("compiled.pth", {"model_state_dict": state_dict(1, "module._orig_mod.")}, state_dict(1))

# Objects beside the weights.
save(
    "objects.pth",
    {
        "model": state_dict(1),
        "optimizer": optimizer,
        "scheduler": scheduler,
        "criterion": torch.nn.MSELoss(),
        "mode": Mode.FAST,
        "config": Config(),
        "queue": collections.deque([1, 2]),
        "range": range(4),
        "generator": np.random.RandomState(0).get_state(),
        "metrics": {("loss", 0): torch.ones(2), "set": {1, 2}},
        "args": argparse.Namespace(config=Config(), mode=Mode.FAST, path=pathlib.PurePosixPath("x")),
    },
    state_dict(1),
)
save("subclass.pth", Attributes(state_dict(1)), state_dict(1))

# Torch's own kinds of tensors.
parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
parameter.tag = "kept"
tensor = torch.tensor([[3.0, 4.0]])
tensor.tag = "kept"
plain = {
    "u16": torch.tensor([0, 65535], dtype=torch.uint16),
    "u32": torch.tensor([0, 2**32 - 1], dtype=torch.uint32),
    "u64": torch.tensor([0, 2**53], dtype=torch.uint64),
    "e4m3": torch.tensor([0.5, -448.0, 0.001953125]).to(torch.float8_e4m3fn),
    "e5m2": torch.tensor([0.5, -57344.0, 1.52587890625e-05]).to(torch.float8_e5m2),
    "parameter": parameter,
    "tensor": tensor,
    "negated": torch.view_as_complex(torch.arange(6.0).reshape(3, 2)).conj().imag,
    "integers_negated": torch._neg_view(torch.arange(3)),
}
assert plain["negated"].is_neg() and plain["integers_negated"].is_neg()
special = {
    "complex": torch.tensor([1 + 2j]),
    "complex_double": torch.tensor([1 + 2j], dtype=torch.complex128),
    "meta": torch.empty(3, device="meta"),
    "quantized": torch.quantize_per_tensor(torch.tensor([1.0]), 0.1, 0, torch.qint8),
    "sparse": torch.eye(2).to_sparse(),
}
save("kinds.pth", {**plain, **special}, plain, special)

# Whole programs.
torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), HERE / "script.pt")
torch.save(net, HERE / "module.pth")

(HERE / "cases.json").write_text(json.dumps(expected) + "\n")
