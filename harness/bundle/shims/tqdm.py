"""A stand-in for tqdm where it is not installed: a bundle downloads nothing."""

from __future__ import annotations

from typing import Any


def tqdm(*_: Any, **__: Any) -> Any:
    raise RuntimeError("progress bars are not here: run  pip install tqdm")
