"""What all records of `harness.records` are."""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records. Subclasses say ``frozen`` and ``kw_only`` again, to be so themselves."""
