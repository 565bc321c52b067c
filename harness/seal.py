"""A digest inside a file of results, so that an edit by hand is noticed.

A sealed file is indented JSON whose top level holds ``"digest"``: the SHA-256 of the file itself
with that digest left empty. Line ends do not count, since git may change them. It tells an honest
reader that a figure was changed after it was measured; it is no signature, for whoever edits a file
on purpose can seal it again. What is published is therefore bound to the digests (see
`harness.verification.binding`), which a second seal does not give back.

Standard library only: a device without anything else installed seals its records by it too.
"""

from __future__ import annotations

import hashlib
import re

EMPTY = b'\n "digest": ""'
_PLACE = re.compile(rb'\n "digest": (?:null|"([0-9a-f]{64}|)")')
"""The one at the top level: what lies deeper is indented by more than one space."""


def seal(data: bytes) -> bytes:
    """``data`` with its digest filled in; as it is where it has no place for one."""
    emptied, places = _PLACE.subn(EMPTY, data)
    if places != 1:
        return data
    return emptied.replace(EMPTY, b'\n "digest": "%s"' % digest_of(emptied).encode())


def digest_of(data: bytes) -> str:
    """SHA-256 of a file's content with its own digest left empty, as hex."""
    plain = _PLACE.sub(EMPTY, data.replace(b"\r\n", b"\n"))
    return hashlib.sha256(plain).hexdigest()


def written_digest(data: bytes) -> str | None:
    """The digest that a file says it has; None where it was never sealed."""
    found = _PLACE.search(data.replace(b"\r\n", b"\n"))
    return found[1].decode() if found and found[1] else None
