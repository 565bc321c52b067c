"""Training that keeps what recipes did before it: zeros stay zero, equal weights stay equal.

Each pruned layer's weights become a product with a mask, each clustered layer's a look-up in its
codebook, whose entries then get the summed gradients of their weights (Han et al. 2016,
https://arxiv.org/abs/1510.00149, section 3.3). Needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from harness import machine
from harness.cache import cache_dir
from harness.recipe_interface import RecipeJob
from models.recipes._shared import array, codebook, convolutions
from models.training import Distill, FineTuned, Stage, TrainOptions, fine_tune
from models.training.state import STATE


class Mask(nn.Module):
    """Weights that are zero where ``kept`` is not set."""

    kept: Tensor

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.kept, weight, torch.zeros((), dtype=weight.dtype))


class Look(nn.Module):
    """Weights looked up in a codebook; an entry that is zero stays so."""

    indices: Tensor
    used: Tensor

    def __init__(self, indices: Tensor, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("indices", indices)
        self.register_buffer("used", values != 0)
        self._values = values

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self._values

    def forward(self, values: Tensor) -> Tensor:
        return torch.where(self.used, values, torch.zeros((), dtype=values.dtype))[self.indices]


@contextmanager
def held(network: nn.Module, but: Container[str] = ()) -> Iterator[dict[str, str]]:
    """Hold pruned and clustered layers as they are while the network is trained.

    Args:
        but: names of layers that are left out.

    Yields:
        The layers that are held, and by what: ``mask`` or ``codebook``.
    """
    layers = {name: module for name, module in convolutions(network).items() if name not in but}
    how: dict[str, str] = {}
    for name, module in layers.items():
        weight = array(module)
        if (book := codebook(weight)) is not None:
            indices = torch.from_numpy(book.indices.astype(np.int64).reshape(weight.shape))
            put(module, Look(indices, torch.from_numpy(book.values)))
            how[name] = "codebook"
        elif not weight.all():
            put(module, Mask(module.weight.detach() != 0))
            how[name] = "mask"
    try:
        yield how
    finally:
        for name in how:
            take(layers[name])


def put(module: nn.Module, parametrization: nn.Module) -> None:
    """Let ``parametrization`` make the module's weights of what is trained."""
    parametrize.register_parametrization(module, "weight", parametrization, unsafe=True)


def take(module: Any) -> None:
    """Keep the weights as they are now, free of what made them, where anything does."""
    if not parametrize.is_parametrized(module, "weight"):
        return
    weight = module.weight.detach().clone(memory_format=torch.contiguous_format)
    parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    module.weight = nn.Parameter(weight)


def tune(
    job: RecipeJob,
    *,
    after_step: Callable[[int], None] | None = None,
    distill: Distill | None = None,
) -> FineTuned:
    """Train the job's network in place, at the model's own size, as its options say.

    These are those of `models.recipes._training`. Goes on where a killed one stopped.
    """
    assert job.training is not None
    asked = job.options
    ahead = 1 if machine.usable_cores() > 1 else 0
    options = TrainOptions(
        model=job.spec.name,
        data=job.training.data,
        data_images=job.training.images,
        stages=(Stage(size=job.spec.image.height, images=int(asked["images"] or 0)),),
        batch=int(asked["batch"] or 0),
        learning_rate=float(asked["learning_rate"] or 0),
        warmup=0.05,
        average=0.99,
        match_iou=job.training.match_iou,
        cache=str(cache_dir("training")),
        workers=ahead,
        seed=int(asked["seed"] or 0),
        evaluate=0,
        distill=distill,
        out=None if job.folder is None else str(job.folder),
    )
    done = fine_tune(job.network, job.spec, options, after_step=after_step)
    job.network.to(memory_format=torch.contiguous_format)
    if job.folder is not None:
        (job.folder / STATE).unlink(missing_ok=True)
    return done


def learned(done: FineTuned, job: RecipeJob) -> str:
    """A sentence on a training for the manifest."""
    assert job.training is not None
    said = (
        f"trained on {job.options['images']} images of {job.training.data}, matched from an IoU of"
        f" {job.training.match_iou:g}"
    )
    rows = [row["loss"] for row in done.log]
    part = max(1, len(rows) // 10)
    if not rows:
        return said
    first, last = float(np.mean(rows[:part])), float(np.mean(rows[-part:]))
    return f"{said}, loss {first:.3f} at first and {last:.3f} at last"
