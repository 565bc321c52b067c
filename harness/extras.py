"""Optional frameworks: imported where they are needed, the exact pip line where they are absent."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from harness.errors import MissingExtra


def installed(module: str) -> bool:
    """Whether ``module`` can be found, without importing it (parents of a dotted name are)."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def require(module: str, *, extra: str) -> Any:
    """Import ``module`` or say how to install it.

    A broken installation is not an absent one: its own import error comes through, as the cause
    of a `MissingExtra` that names it.

    Raises:
        MissingExtra: not installed, or installed and its import fails.
    """
    if not installed(module):
        raise MissingExtra(f"{module} is not installed: run  pip install -e '.[{extra}]'")
    try:
        imported: ModuleType = importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{module} is installed but its import fails ({error}):"
            f" reinstall it with  pip install --force-reinstall -e '.[{extra}]'"
        ) from error
    return imported


_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
"""Read once, by TensorFlow's import: errors only, and no notice that its kernels (which we do not
run: conversion and calibration are TensorFlow Lite's) use oneDNN."""


def tensorflow() -> Any:
    """TensorFlow, imported without a word and without touching a GPU.

    Raises:
        MissingExtra: it is not installed.
    """
    with _environment(_QUIET):
        tf = require("tensorflow", extra="tflite")
    # Conversion runs on the CPU; a visible GPU would lose all its memory to this process.
    with contextlib.suppress(RuntimeError):  # raised once a GPU is in use: the user's own choice
        tf.config.set_visible_devices([], "GPU")
    return tf


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables that the user has not set, and take them back afterwards."""
    added = {key: value for key, value in values.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
