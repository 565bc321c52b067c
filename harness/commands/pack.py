"""``detbench pack``: one file for a device."""

from __future__ import annotations

import argparse
import json

from harness.bundle.pack import pack as make


def pack(options: argparse.Namespace) -> int:
    """Write the bundle and say what is in it."""
    packed = make(options.artifacts, options.output)
    size = options.output.stat().st_size
    if options.json:
        ids = [artifact.id for artifact in packed]
        print(json.dumps({"bundle": str(options.output), "bytes": size, "artifacts": ids}))
    else:
        print(f"{options.output}: {len(packed)} artifacts, {size / 1e6:.1f} MB")
        print(f"on the device: python {options.output.name} run --out results")
    return 0
