"""Plug-ins by name: one file in `models/`, `exporters/` or `runners/` is one plug-in.

Listing reads the folder and imports nothing; `get(name)` imports that one file, which registers
itself under the file's own name. Other distributions add plug-ins through the entry-point groups
``detbench.models``, ``detbench.exporters`` and ``detbench.runners``; a user's file comes in through
`load_file`. Names never collide silently: a second registration raises and names both places.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Generic, TypeVar

from harness.errors import BadConfig, UnknownName

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent


def suggest(name: str, known: Iterable[str]) -> str:
    """`` did you mean 'x'?`` or the whole list, to end an unknown-name sentence with."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}"


class Registry(Generic[T]):
    """Plug-ins of one kind: ``kind`` is the word used in messages, and the folder's name too."""

    def __init__(self, kind: str, folder: str | None = None) -> None:
        self.kind = kind
        self.folder = folder or kind
        self._found: dict[str, T] = {}
        self._where: dict[str, str] = {}

    def register(self, plugin: T, *, where: str | None = None) -> T:
        """Add ``plugin``: a class with a ``name``, or a function whose own name is meant.

        ``where`` is the file that it comes from, if that is not its source.
        """
        name = str(getattr(plugin, "name", None) or plugin.__name__)  # type: ignore[attr-defined]  # T is a class or function
        source = inspect.getsourcefile(plugin)  # type: ignore[arg-type]  # T is a class or function
        where = where or (str(Path(source).resolve()) if source else "unknown")
        if name in self._found and self._where[name] != where:
            raise BadConfig(
                f"{self.kind} '{name}' is defined twice, in {self._where[name]} and in {where}:"
                " rename one of them"
            )
        self._found[name] = plugin
        self._where[name] = where
        return plugin

    def forget(self, name: str) -> None:
        """Undo `register`: what a test or a notebook registered need not stay for the next one."""
        del self._found[name], self._where[name]

    def names(self) -> list[str]:
        """All names, sorted, from the folder, the entry points and the files loaded so far."""
        files = (path.stem for path in (ROOT / self.folder).glob("*.py"))
        own = {name for name in files if not name.startswith("_")}
        return sorted(own | set(self._entry_points()) | set(self._found))

    def get(self, name: str) -> T:
        """The plug-in called ``name``; imports its file on first use.

        Raises:
            UnknownName: with the nearest known name.
            BadConfig: the file registers under another name than its own.
        """
        if name in self._found:
            return self._found[name]
        entry = self._entry_points().get(name)
        if (ROOT / self.folder / f"{name}.py").is_file() and not name.startswith("_"):
            importlib.import_module(f"{self.folder.replace('/', '.')}.{name}")
        elif entry is not None:
            entry.load()
        else:
            raise UnknownName(f"unknown {self.kind[:-1]} '{name}': {suggest(name, self.names())}")
        if name not in self._found:
            raise BadConfig(f"{self.folder}/{name}.py registers nothing called '{name}'")
        return self._found[name]

    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        return {e.name: e for e in metadata.entry_points(group=f"detbench.{self.kind}")}


def load_file(path: Path) -> None:
    """Import a user's plug-in file; what it registers is then known by name. A file in YAML is a
    model (`harness.model_file`).

    Raises:
        BadConfig: no such file, or it cannot be imported.
    """
    if path.suffix in (".yaml", ".yml"):
        importlib.import_module("harness.model_file").register(path)
        return
    spec = importlib.util.spec_from_file_location(f"detbench_plugin_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise BadConfig(f"plug-in {path} is not a Python file: give the path of a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's file may fail in any way; the sentence names the file
        raise BadConfig(f"plug-in {path} fails on import: {error!r}") from error
