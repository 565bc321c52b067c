"""Every error that a user can cause, in one tree.

DetbenchError
├── BadInput               what the user gave cannot be used
│   ├── UnknownName        no such model, exporter, runner or data set
│   ├── BadConfig          an option or a matrix file
│   ├── BadCheckpoint      weights that do not fit or cannot be trusted
│   ├── BadImage           a picture that cannot be read
│   └── BadAnnotation      ground truth that cannot be true
├── MissingExtra           a framework that is not installed
├── Unsupported            a pair that cannot work, known before any work starts
├── ExportFailed           an exporter's toolchain refused
├── ArtifactDamaged        bytes that are not what the manifest says
├── ParityFailed           an artifact that does not compute what the float network does
├── CellTimeout            a child process that had to be stopped
├── CellCrashed            a child process that died
├── DownloadFailed         a file that could not be fetched, or is not the one that was published
└── ResultsError           a results folder or record that cannot be read or written

Each message is one sentence: what, where, what was expected, what to do. The command line prints
it without a traceback; in a run it becomes the cell's reason.
"""

from __future__ import annotations

from typing import Any


class DetbenchError(Exception):
    """Base of all errors that are the user's to see."""


class BadInput(DetbenchError):
    """What the user gave cannot be used."""


class UnknownName(BadInput):
    """No such model, exporter, runner or data set."""


class BadConfig(BadInput):
    """An option or a matrix file that cannot be followed."""


class BadCheckpoint(BadInput):
    """Weights that do not fit the model or cannot be trusted."""


class BadImage(BadInput):
    """A picture that cannot be read."""


class BadAnnotation(BadInput):
    """Ground truth that cannot be true."""


class MissingExtra(DetbenchError):
    """A framework that is not installed; the message holds the pip line."""


class Unsupported(DetbenchError):
    """A pair that cannot work, known before any work starts."""


class ExportFailed(DetbenchError):
    """An exporter's toolchain refused."""


class ArtifactDamaged(DetbenchError):
    """Bytes that are not what the manifest says."""


class ParityFailed(DetbenchError):
    """An artifact that does not compute what the float network does.

    ``measured`` holds the measurements of how far apart they are, where they could be taken.
    """

    measured: tuple[Any, ...] = ()


class CellTimeout(DetbenchError):
    """A child process that had to be stopped."""


class CellCrashed(DetbenchError):
    """A child process that died."""


class DownloadFailed(DetbenchError):
    """A file that could not be fetched, or is not the one that was published."""


class ResultsError(DetbenchError):
    """A results folder or record that cannot be read or written."""


def first_line(error: BaseException) -> str:
    """What a library's error says, without the pages that frameworks add, after its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    return f"{kind}: {lines[0]}" if lines else kind
