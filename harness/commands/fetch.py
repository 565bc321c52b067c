"""``detbench fetch``: published weights and public data sets."""

from __future__ import annotations

import argparse

from harness.errors import BadConfig
from harness.fetch.published import all_published, published
from harness.fetch.weights import fetch_weights


def fetch(options: argparse.Namespace) -> int:
    """Fetch what is named; prints where it lies."""
    if not options.names:
        raise BadConfig(f"name the weights to fetch: {', '.join(all_published())}")
    entries = [published(name) for name in options.names]
    for entry in entries:
        print(fetch_weights(entry, quiet=options.quiet))
    return 0
