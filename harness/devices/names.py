"""What people call their machines, and what they paid: ``results/devices.yaml``.

::

    rpi4: {machine: raspberry-pi-4-model-b-rev-1-4-4c-1a2b3c4d, price: 55}
    imx8: {machine: nxp-i-mx8mplus}

``machine`` is the id of a folder of results or a unique beginning of one. Prices are in a currency
of your choice, the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from harness.config import read_yaml
from harness.errors import BadConfig, BadInput
from harness.records import Record
from harness.registry import suggest

FILE = "devices.yaml"


class Device(Record, frozen=True, kw_only=True):
    """One entry: the machine's id or its beginning, and a price if it is known."""

    machine: str
    price: float | None = None


class Devices:
    """Names and prices by machine id."""

    def __init__(self, entries: dict[str, Device]) -> None:
        self._entries = entries

    def name(self, machine: str) -> str:
        """What the machine is called; its id where it has no name."""
        return next((n for n, d in self._entries.items() if _is(machine, d.machine)), machine)

    def price(self, machine: str) -> float | None:
        """What the machine costs, if that is known."""
        devices = [d for d in self._entries.values() if _is(machine, d.machine)]
        return next((device.price for device in devices if device.price is not None), None)

    def find(self, text: str, machines: Iterable[str]) -> str:
        """The one of ``machines`` that ``text`` names: its name, its id, or a part of that.

        Raises:
            BadInput: none, or several.
        """
        there = sorted(set(machines))
        asked = self._entries[text].machine if text in self._entries else text
        found = [m for m in there if m == asked] or [m for m in there if m.startswith(asked)]
        found = found or [m for m in there if asked in m]
        if len(found) == 1:
            return found[0]
        if found:
            raise BadInput(f"device '{text}' is {', '.join(found)}: give more of its name")
        known = {*there, *self._entries}
        raise BadInput(
            f"no results of a device '{text}': {suggest(text, known)} (names are given in {FILE})"
        )


def read_devices(base: Path) -> Devices:
    """The names in ``base/devices.yaml``; none where there is no such file.

    Raises:
        BadConfig: it is not what the module's docstring shows.
    """
    path = base / FILE
    if not path.is_file():
        return Devices({})
    plain = read_yaml(path, "device list", "rpi4: {machine: raspberry-pi-4}")
    try:
        entries = msgspec.convert(plain, dict[str, Device])
    except msgspec.ValidationError as error:
        raise BadConfig(f"device list {path} is wrong: {error}") from None
    for name, device in entries.items():
        if device.price is not None and not (device.price > 0 and math.isfinite(device.price)):
            raise BadConfig(
                f"device list {path}: the price of {name} is {device.price}, not above 0"
            )
    return Devices(entries)


def base_of(folders: Sequence[Path]) -> Path | None:
    """The results folder that all runs lie in, or None."""
    bases = {folder.resolve().parent.parent for folder in folders}
    return bases.pop() if len(bases) == 1 else None


def _is(machine: str, asked: str) -> bool:
    return machine == asked or machine.startswith(f"{asked}-")
