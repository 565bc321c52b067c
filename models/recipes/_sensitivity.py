"""Score a network with one layer pruned after another (Li et al. 2017, arXiv 1608.08710, 3.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.accuracy import compared
from harness.accuracy.bootstrap import paired
from harness.decode import decode
from harness.errors import BadInput
from harness.images import Preprocessor, float_input
from harness.interfaces import Dataset, Detections, RawOutputs, Truth
from harness.records import ModelSpec
from harness.sensitivity import METRIC, Point, Scanned
from models.recipes._folding import fold
from models.recipes._masks import Wanted, keep, pattern
from models.recipes._shared import array, pointwise
from models.recipes._suffix import Suffix

BATCH = 8


class Task(NamedTuple):
    """One network to score: a layer, its sparsity, and about how long that takes in seconds."""

    layer: str
    sparsity: float
    seconds: float


class Scanner:
    """A network over images, scored with layers pruned.

    Attributes:
        map: of the network as it is, 0..1.
        layers: that can be scanned, in the order in which they run.
    """

    def __init__(
        self, network: Any, spec: ModelSpec, data: Dataset, truths: Sequence[Truth], shape: str
    ) -> None:
        """Run the network as it is.

        Args:
            network: in eval mode; its batch norms are folded into it.
            truths: of all images of ``data``, with labels in the model's order.
            shape: what is pruned together, see `models.recipes._masks.pattern`.

        Raises:
            BadInput: no image holds an object.
        """
        self._spec, self._truths, self._pattern = spec, truths, pattern(shape)
        found = pointwise(network)
        self._before = {name: array(module)[:, :, 0, 0].copy() for name, module in found.items()}
        fold(network)
        self._modules = {name: network.get_submodule(name) for name in found}
        batches, self._sizes = _batches(spec, data)
        workers = torch.get_num_threads()
        network.to(memory_format=torch.channels_last)
        self._suffix = Suffix(network, batches, workers=workers)
        self._whole = Suffix(network, batches, workers=workers)
        names = self._suffix.layers(list(found))
        self.layers = [Scanned(name=name, weights=self._before[name].size) for name in names]
        self._parent = self._detect(self._suffix)
        self.map = self._scored("", 0.0, self._parent).map
        rounds = -(-len(batches) // workers)
        self._takes = {n: rounds * took for n, took in self._suffix.seconds_after().items()}

    def tasks(self, sparsities: Sequence[float]) -> list[Task]:
        """All that a scan scores, in the order in which it must be done."""
        return [
            Task(layer.name, sparsity, self._takes[layer.name])
            for layer in self.layers
            for sparsity in sparsities
        ]

    def scan(self, tasks: Sequence[Task]) -> Iterator[Point]:
        """A point for each task."""
        for task in tasks:
            self._suffix.move_to(task.layer)
            with self._pruned({task.layer: task.sparsity}):
                found = self._detect(self._suffix)
            yield self._scored(task.layer, task.sparsity, found)

    def score(self, sparsities: Mapping[str, float]) -> Point:
        """The network with all these layers pruned."""
        with self._pruned(sparsities):
            found = self._detect(self._whole)
        return self._scored("", 0.0, found)

    @contextmanager
    def _pruned(self, sparsities: Mapping[str, float]) -> Iterator[None]:
        weights = {name: self._before[name] for name in sparsities}
        whole = {name: array(self._modules[name]).copy() for name in sparsities}
        for name, kept in keep(weights, Wanted(self._pattern, sparsities)).items():
            array(self._modules[name])[~kept] = 0
        try:
            yield
        finally:
            for name, weight in whole.items():
                array(self._modules[name])[...] = weight

    def _detect(self, suffix: Suffix) -> list[Detections]:
        def find(number: int, outputs: tuple[Tensor, Tensor]) -> list[Detections]:
            logits, offsets = (output.numpy() for output in outputs)
            return decode(
                RawOutputs(logits, offsets),
                priors=self._spec.priors,
                decoding=self._spec.decoding,
                sizes=self._sizes[number],
            )

        return [one for batch in suffix.run(find) for one in batch]

    def _scored(self, layer: str, sparsity: float, found: Sequence[Detections]) -> Point:
        classes = len(self._spec.labels)
        both = compared(METRIC, self._truths, self._parent, found, classes, seed=0)
        change = paired(both.parent, both.child)
        if change is None:
            raise BadInput("no image of the scan holds an object: name other images with --data")
        return Point(
            layer=layer,
            sparsity=sparsity,
            map=float(both.child[0]),
            change=change.estimate,
            low=change.low,
            high=change.high,
        )


def _batches(spec: ModelSpec, data: Dataset) -> tuple[list[Tensor], list[list[tuple[int, int]]]]:
    """Prepared images, (n, 3, h, w) each, and the sizes of the pictures."""
    prepare = Preprocessor(spec.image, float_input(spec.image))
    batches, sizes = [], []
    for first in range(0, len(data), BATCH):
        images = [data.image(i) for i in range(first, min(first + BATCH, len(data)))]
        batch = torch.from_numpy(np.concatenate([prepare(image) for image in images]))
        batches.append(batch.to(memory_format=torch.channels_last))
        sizes.append([(image.shape[0], image.shape[1]) for image in images])
    return batches, sizes
