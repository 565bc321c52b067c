"""Time by operator in ONNX Runtime, from the profile that the runtime itself writes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from harness.interfaces import Operator

KERNEL = "_kernel_time"


def profile(
    settings: Any,
    open_session: Callable[[Any], Any],
    name: str,
    images: Sequence[NDArray[Any]],
) -> list[Operator]:
    """Run a session over ``images`` (the first of them once more, to warm up) and read its profile.

    Args:
        settings: the session's options, to which profiling is added.
        open_session: makes the session.
        name: of its input.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        session = open_session(settings)
        for image in (images[0], *images):
            session.run(None, {name: image})
        events = json.loads(Path(session.end_profiling()).read_bytes())
    return operators(events, warmup=1)


def operators(events: Sequence[dict[str, Any]], *, warmup: int) -> list[Operator]:
    """Operators of a profile in the order that they first ran, without the first calls."""
    kernels: dict[str, tuple[str, list[float]]] = {}
    for event in events:
        label = str(event.get("name", ""))
        if event.get("cat") == "Node" and label.endswith(KERNEL):
            node = label.removesuffix(KERNEL)
            kind = str(event.get("args", {}).get("op_name", "unknown"))
            kernels.setdefault(node, (kind, []))[1].append(1e3 * float(event["dur"]))
    return [
        Operator(name, kind, tuple(times[warmup:]))
        for name, (kind, times) in kernels.items()
        if len(times) > warmup
    ]
