"""The option ``keep_float``: layers that a quantizing exporter leaves in float.

Layers have the names that they have in the network (``base_net.0.0``), joined by ``/``; ``*`` and
``?`` stand for parts of names, so that ``regression_headers.*`` is all of the box heads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from harness.errors import ExportFailed
from harness.interfaces import ExportJob
from harness.registry import suggest

BETWEEN = "/"


def layer_of(node: Any) -> str:
    """Name of the innermost layer of the network that a captured call belongs to; or empty."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""


def scope_of(node: Any) -> str | None:
    """The layer's name where it can be a scope of names in TensorFlow, else None."""
    layer = layer_of(node)
    return f"{layer}/" if re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.>-]*", layer) else None


def kept(job: ExportJob) -> frozenset[str]:
    """The layers that the job's option means.

    Raises:
        ExportFailed: a name or a pattern that is no layer's.
    """
    asked = job.options["keep_float"]
    if not asked:
        return frozenset()
    layers = _convolutions(job.network)
    found: set[str] = set()
    for pattern in str(asked).split(BETWEEN):
        matches = {name for name in layers if fnmatchcase(name, pattern)}
        if not matches:
            raise ExportFailed(
                f"option keep_float={asked}: {job.spec.name} has no convolution"
                f" '{pattern}': {suggest(pattern, layers)}"
            )
        found |= matches
    return frozenset(found)


def _convolutions(network: Any) -> Sequence[str]:
    return [name for name, layer in network.named_modules() if hasattr(layer, "out_channels")]
