"""From a torch network to TVM's graph language, Relax."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from exporters._keep_float import layer_of
from exporters._tvm_graph import NAMES
from harness.errors import ExportFailed
from harness.extras import require
from harness.interfaces import ExportJob


def to_relax(job: ExportJob) -> Any:
    """The network as a Relax module whose ``main`` holds its weights as constants.

    Raises:
        ExportFailed: torch cannot trace it, or TVM's importer lacks one of its operators.
    """
    torch = require("torch", extra="torch")
    frontend = require("tvm.relax.frontend.torch", extra="tvm")
    image = job.spec.image
    example = torch.from_numpy(np.zeros((1, 3, image.height, image.width), np.float32))
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # torch.export's own use of its deprecated tree classes, while it copies its graph
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            program = torch.export.export(job.network, (example,))
            module = frontend.from_exported_program(program, keep_params_as_input=False)
    except Exception as error:  # torch and TVM raise whatever their passes raise
        reason = str(error).strip().splitlines() or [""]
        raise ExportFailed(
            f"{job.spec.name} cannot be imported into TVM: {type(error).__name__}: {reason[0]}"
        ) from error
    passes = require("tvm.relax.transform", extra="tvm")
    module = passes.DeadCodeElimination()(passes.CanonicalizeBindings()(module))
    module["main"] = module["main"].with_attr(NAMES, layer_names(program))
    return module


def layer_names(program: Any) -> list[str]:
    """Names that the convolutions of an exported program have in the network, in order."""
    return [layer_of(node) for node in program.graph.nodes if "aten.conv2d" in str(node.target)]
