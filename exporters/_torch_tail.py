"""What ``outputs=scored_boxes`` adds to a torch network before its graph is captured."""

from __future__ import annotations

from typing import Any

from exporters._outputs import BoxRule
from harness.extras import require
from harness.records import ModelSpec, OutputKind

ABLE = ("heads", "scored_boxes")
"""torch alone has no suppression that its graph could hold."""


def with_tail(network: Any, spec: ModelSpec, kind: OutputKind) -> Any:
    """The network itself for ``heads``, else one that answers (scores, boxes), in eval mode."""
    if kind == "heads":
        return network
    torch = require("torch", extra="torch")
    rule = BoxRule(spec)
    module: Any = torch.nn.Module

    class Scored(module):  # type: ignore[misc]  # torch comes as Any
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            for name in ("centre", "step", "half"):
                self.register_buffer(f"prior_{name}", torch.from_numpy(getattr(rule, name)))

        def forward(self, image: Any) -> tuple[Any, Any]:
            logits, offsets = self.network(image)
            softmax = spec.decoding.score == "softmax"
            scores = logits.softmax(2) if softmax else logits.sigmoid()
            centre = offsets[..., :2] * self.prior_step + self.prior_centre
            half = (offsets[..., 2:] * rule.growth).exp() * self.prior_half
            return scores, torch.cat([centre - half, centre + half], 2)

    return Scored().eval()
