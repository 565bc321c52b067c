"""Optional frameworks: imported where they are needed, the exact pip line where they are absent."""

from __future__ import annotations

import importlib
import importlib.util
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
