"""The parts of a detector: the base net, the extra layers, the heads. Each learns at its rate.

Parts are told apart by the names that all our detectors give their members, so a network that was
rewritten (fake-quantized, say) but kept the names is split alike; what has other names is extras.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from harness.errors import BadConfig
from models.training.options import TrainOptions

Part = Literal["base", "extras", "heads"]
FROZEN: dict[str, tuple[Part, ...]] = {
    "none": (),
    "base": ("base",),
    "all-but-heads": ("base", "extras"),
}


def part_of(name: str) -> Part:
    """Which part the parameter or member ``name`` belongs to."""
    member = name.partition(".")[0]
    if member == "base_net":
        return "base"
    return "heads" if member in ("classification_headers", "regression_headers") else "extras"


def set_training(network: nn.Module, freeze: str) -> None:
    """Training mode; frozen parts have no gradient, and their batch norms keep their statistics."""
    network.train()
    for name, child in network.named_children():
        if part_of(name) in FROZEN[freeze]:
            child.eval()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(part_of(name) not in FROZEN[freeze])


def make_optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """The optimizer; each of its groups holds the ``peak`` of its part's learning rate.

    Weight decay acts on kernels, not on biases and batch norm.

    Raises:
        BadConfig: everything is frozen.
    """
    learning = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    if not learning:
        raise BadConfig(f"freeze={options.freeze} leaves nothing of this network to learn")
    groups = []
    for part, peak in options.rates().items():
        for kernels in (True, False):
            members = [p for n, p in learning if part_of(n) == part and (p.ndim > 1) == kernels]
            decay = options.weight_decay if kernels else 0.0
            if members:
                groups.append({"params": members, "weight_decay": decay, "lr": peak, "peak": peak})
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    return torch.optim.SGD(groups, lr=options.learning_rate, momentum=0.9, nesterov=True)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each part's learning rate to ``factor`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
