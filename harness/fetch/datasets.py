"""Public data sets of archives: fetched, verified, unpacked beside, and only then given their name.

Addresses are the publishers' own. MD5 sums are those that VOC's and COCO's users check against;
the publishers give no other. Nothing half unpacked ever has the data set's name.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from harness.errors import ResultsError
from harness.fetch.archives import extract
from harness.fetch.download import download
from harness.fetch.remote import Remote

VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
COCO = "http://images.cocodataset.org"


class PublicSet(NamedTuple):
    """A data set and how to name it afterwards; ``{}`` in ``use`` is its folder.

    ``wanted`` says which files of the archives are unpacked; ``more`` adds what is no archive.
    """

    name: str
    archives: tuple[Remote, ...]
    use: str
    licence: str
    wanted: Callable[[str], bool] = lambda name: True
    more: Callable[[Path, bool], None] | None = None


def _coco_wanted(name: str) -> bool:
    return name.startswith("val2017/") or name in (
        "annotations/instances_val2017.json",
        "annotations/instances_train2017.json",
    )


def _coco_calibration(folder: Path, quiet: bool) -> None:
    from harness.fetch.coco_train import add_calibration

    add_calibration(folder, f"{COCO}/train2017", quiet=quiet)


SETS = {
    one.name: one
    for one in (
        PublicSet(
            "voc2007",
            (
                Remote(
                    url=f"{VOC}/voc2007/VOCtrainval_06-Nov-2007.tar",
                    size_bytes=460_032_000,
                    md5="c52e279531787c972589f7e41ab4ae64",
                ),
                Remote(
                    url=f"{VOC}/voc2007/VOCtest_06-Nov-2007.tar",
                    size_bytes=451_020_800,
                    md5="b6e924de25625d8de591ea690078ad9f",
                ),
            ),
            "voc:{}:test",
            "VOC's; the photos are Flickr's",
        ),
        PublicSet(
            "voc2012",
            (
                Remote(
                    url=f"{VOC}/voc2012/VOCtrainval_11-May-2012.tar",
                    size_bytes=1_999_639_040,
                    md5="6cd6e144f989b92b3379bac3b3de84fd",
                ),
            ),
            "voc:{}:val",
            "VOC's; the photos are Flickr's",
        ),
        PublicSet(
            "coco-val2017",
            (
                Remote(
                    url=f"{COCO}/annotations/annotations_trainval2017.zip",
                    size_bytes=252_907_541,
                    md5="f4bbac642086de4f52a3fdda2de5fa2c",
                ),
                Remote(
                    url=f"{COCO}/zips/val2017.zip",
                    size_bytes=815_585_330,
                    md5="442b8da7639aecaf257c1dceb8ba8c80",
                ),
            ),
            "coco:{}:val2017",
            "annotations CC BY 4.0; the photos keep their Flickr licences",
            _coco_wanted,
            _coco_calibration,
        ),
    )
}
"""The data sets by name."""


def fetch_set(entry: PublicSet, parent: Path, *, quiet: bool = False) -> Path:
    """The folder of ``entry`` below ``parent``; nothing is fetched where it is there already.

    Raises:
        DownloadFailed: an archive cannot be fetched, is not what was published, or means harm.
        ResultsError: the folder cannot be written.
    """
    final = parent / entry.name
    if final.is_dir():
        return final
    archives, staging = parent / f".{entry.name}.archives", parent / f".{entry.name}.partial"
    files = [
        download(remote, archives / remote.file_name, quiet=quiet) for remote in entry.archives
    ]
    with_more = staging / ".unpacked"
    if not with_more.is_file():
        shutil.rmtree(staging, ignore_errors=True)
        for file in files:
            extract(file, staging, wanted=entry.wanted, quiet=quiet)
        with_more.touch()
    if entry.more is not None:
        entry.more(staging, quiet)
    finish(staging, final)
    shutil.rmtree(archives, ignore_errors=True)
    return final


def finish(staging: Path, final: Path) -> None:
    """Give a complete staging folder its name. Raises ResultsError."""
    (staging / ".unpacked").unlink(missing_ok=True)
    try:
        staging.rename(final)
    except OSError as error:
        raise ResultsError(
            f"{final} cannot be made ({error.strerror}): choose another folder with -o"
        ) from None
