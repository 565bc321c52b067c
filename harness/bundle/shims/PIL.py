"""A stand-in for Pillow where it is not installed: a bundle's pictures need no resizing."""

from __future__ import annotations

from typing import Any


class UnidentifiedImageError(Exception):
    """No picture format that is known."""


class _Absent:
    def __getattr__(self, name: str) -> Any:
        raise AttributeError("pictures cannot be read or resized here: run  pip install pillow")


Image, ImageOps = _Absent(), _Absent()
