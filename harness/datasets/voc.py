"""Pascal VOC: one XML file per image, splits as lists of names.

Layout (VOC development kit, Everingham et al., IJCV 2010)::

    VOC2012/  Annotations/NAME.xml  JPEGImages/NAME.jpg  ImageSets/Main/SPLIT.txt

VOC counts pixels from 1 and a box includes its last pixel; ours are continuous edges. So a VOC box
``(xmin, ymin, xmax, ymax)`` becomes ``(xmin - 1, ymin - 1, xmax, ymax)``. A box of VOC that covers
one pixel, ``xmin == xmax``, then has width 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from harness.datasets._files import Faults, FileDataset, check_box, first
from harness.errors import BadAnnotation, BadConfig, UnknownName
from harness.interfaces import Truth
from harness.registry import suggest

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip  # the twenty of VOC2007 to VOC2012, in the development kit's order
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".JPG", ".JPEG", ".PNG")
LARGEST_XML = 16 << 20
EDGES = ("xmin", "ymin", "xmax", "ymax")


class Thing(NamedTuple):
    """One object as its file has it, edges in VOC's own convention."""

    name: str
    edges: tuple[float, float, float, float]
    difficult: bool
    crowd: bool
    where: str


class Annotation(NamedTuple):
    """One file; ``size`` is (width, height), None where it is absent or zero."""

    size: tuple[int, int] | None
    things: tuple[Thing, ...]


class Voc(FileDataset):
    """One split of a folder in VOC's layout.

    Args:
        folder: a ``VOC2012`` folder, or one above it (``VOCdevkit``, or its parent).
        split: a list in ``ImageSets/Main``; None takes ``val``, else ``test``, else the only one.
        labels: class names without the background; None takes ``labels.txt`` in the folder (one
            name a line), else VOC's twenty if they cover all that occurs, else what occurs, sorted.
        limit: take at most so many images, from the front of the list.
        skip_bad: leave out names that the list repeats; see `dropped`.

    Raises:
        BadConfig: the folder has another layout.
        UnknownName: no such split.
    """

    name = "voc"

    def __init__(
        self,
        folder: Path | str,
        split: str | None = None,
        *,
        labels: Sequence[str] | None = None,
        limit: int | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.folder = find_root(Path(folder))
        self.split, path = find_list(self.folder, split)
        faults = Faults(skip=skip_bad)
        self._names = first(read_names(path, faults), limit)
        self.dropped = tuple(faults.sentences)
        self._given = labels
        self._skip_bad = skip_bad
        self._read: dict[str, Annotation] = {}

    @cached_property
    def labels(self) -> tuple[str, ...]:  # type: ignore[override]  # reading all files can wait
        """Background first."""
        listed = self.folder / "labels.txt"
        if self._given is not None:
            return ("background", *self._given)
        if listed.is_file():
            return ("background", *(name for name in read_lines(listed) if name != "background"))
        found = set()
        for path in sorted((self.folder / "Annotations").glob("*.xml")):
            try:
                found |= {thing.name for thing in read_annotation(path).things}
            except BadAnnotation:
                if not self._skip_bad:  # else it is named when its image is read
                    raise
        return ("background", *(CLASSES if found <= set(CLASSES) else sorted(found)))

    def __len__(self) -> int:
        return len(self._names)

    def image_id(self, index: int) -> str:
        """The image's name in the list."""
        return self._names[index]

    def path(self, index: int) -> Path:
        """``JPEGImages/NAME`` with the suffix that is there."""
        base = self.folder / "JPEGImages" / self._names[index]
        paths = [base.with_name(base.name + suffix) for suffix in SUFFIXES]
        return next((path for path in paths if path.is_file()), paths[0])

    def declared(self, index: int) -> tuple[str, tuple[int, int] | None]:
        """The XML file and its ``size``."""
        return str(self._xml(index)), self._annotation(index).size

    def truth(self, index: int) -> Truth:
        """Boxes as continuous edges; see this file's head.

        Raises:
            BadAnnotation: missing, no XML, an impossible box, or an unknown class.
        """
        boxes, labels = [], []
        things = self._annotation(index).things
        size = self.size(index)
        for thing in things:
            xmin, ymin, xmax, ymax = thing.edges
            box = (xmin - 1, ymin - 1, xmax, ymax)
            check_box(box, size, thing.where)
            if thing.name not in self.labels[1:]:
                raise BadAnnotation(
                    f"{thing.where} is of no known class: {suggest(thing.name, self.labels[1:])}"
                )
            boxes.append(box)
            labels.append(self.labels.index(thing.name))
        return Truth(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.int64),
            np.array([thing.difficult for thing in things], np.bool_),
            np.array([thing.crowd for thing in things], np.bool_),
        )

    def _xml(self, index: int) -> Path:
        return self.folder / "Annotations" / f"{self._names[index]}.xml"

    def _annotation(self, index: int) -> Annotation:
        name = self._names[index]
        if name not in self._read:
            self._read[name] = read_annotation(self._xml(index))
        return self._read[name]


def find_root(folder: Path) -> Path:
    """The folder that holds ``Annotations`` and ``JPEGImages``: this one or one below.

    Raises:
        BadConfig: none, or several.
    """
    if not folder.is_dir():
        raise BadConfig(f"{folder} is not a folder: give the path of a VOC2007 or VOC2012 folder")
    for places in ([folder], sorted(folder.glob("*")), sorted(folder.glob("VOCdevkit/*"))):
        found = [path for path in places if (path / "Annotations").is_dir()]
        found = [path for path in found if (path / "JPEGImages").is_dir()]
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise BadConfig(f"{folder} holds {names}: give the path of one of them")
        if found:
            return found[0]
    raise BadConfig(
        f"{folder} has no VOC layout: expected the folders Annotations, JPEGImages and"
        " ImageSets/Main in it or in VOCdevkit/VOC2012"
    )


def find_list(root: Path, split: str | None) -> tuple[str, Path]:
    """Name and file of a split. Raises BadConfig and UnknownName."""
    lists = {path.stem: path for path in sorted((root / "ImageSets" / "Main").glob("*.txt"))}
    if not lists:
        raise BadConfig(f"{root / 'ImageSets' / 'Main'} holds no list of images (SPLIT.txt)")
    if split in lists:
        return str(split), lists[str(split)]
    # cat_val.txt is a class list beside val.txt, no split
    splits = [name for name in lists if not any(name.endswith(f"_{other}") for other in lists)]
    if split is not None:
        raise UnknownName(f"{root} has no split '{split}': {suggest(split, splits)}")
    chosen = next((name for name in ("val", "test", *splits) if name in splits), "")
    if chosen not in ("val", "test") and len(splits) > 1:
        raise BadConfig(f"{root} has neither val nor test: add one of :{', :'.join(splits)}")
    return chosen, lists[chosen]


def read_names(path: Path, faults: Faults) -> list[str]:
    """The image names of a list, each once; the flags of a class list are left out.

    Raises:
        BadConfig: an empty list.
        BadAnnotation: a name that is listed twice, where that is not left out.
    """
    lines = read_lines(path, blank=True)
    flagged = all(line.split()[-1] in ("-1", "0", "1") and " " in line for line in lines if line)
    names: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if name := line.rpartition(" ")[0].strip() if flagged else line:
            if name in names:
                faults.add(f"{path}, line {number} lists image {name} again: delete that line")
            names[name] = None
    if not names:
        raise BadConfig(f"{path} lists no image: correct it")
    return list(names)


def read_lines(path: Path, *, blank: bool = False) -> list[str]:
    """The lines of a text file, stripped, with or without blank ones. Raises BadConfig."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} cannot be read as text ({error}): restore it") from None
    return [line.strip() for line in lines if blank or line.strip()]


def read_annotation(path: Path) -> Annotation:
    """Read one XML file.

    Raises:
        BadAnnotation: missing, no XML, or a field is absent or no number.
    """
    root, lines = parse_xml(path)
    things = []
    for number, (node, line) in enumerate(zip(root.findall("object"), lines, strict=True), start=1):
        name = (node.findtext("name") or "").strip()
        where = f"{path}, line {line}, object {number} ('{name}')"
        box = node.find("bndbox")
        if not name or box is None:
            raise BadAnnotation(f"{where} lacks {'its bndbox' if name else 'its name'}: correct it")
        xmin, ymin, xmax, ymax = (_number(box, edge, where) for edge in EDGES)
        flags = [_number(node, key, where, 0) != 0 for key in ("difficult", "iscrowd")]
        things.append(Thing(name, (xmin, ymin, xmax, ymax), flags[0], flags[1], where))
    size = root.find("size")
    if size is None:
        return Annotation(None, tuple(things))
    width, height = (_number(size, side, f"{path}, size") for side in ("width", "height"))
    whole = width >= 1 and height >= 1
    return Annotation((int(width), int(height)) if whole else None, tuple(things))


def _number(node: Element, key: str, where: str, default: float | None = None) -> float:
    text = node.findtext(key)
    if text is None and default is not None:
        return default
    try:
        return float(text or "")
    except ValueError:
        raise BadAnnotation(f"{where} has {key} {text!r}, expected a number: correct it") from None


def parse_xml(path: Path) -> tuple[Element, list[int]]:
    """Parse XML without a document type: none is needed, and one can hold entities that explode.

    Returns:
        The root, and the lines on which its ``object`` elements begin.

    Raises:
        BadAnnotation: missing, larger than 16 MiB, malformed, or with a document type.
    """

    def refuse(*_: object) -> None:
        raise BadAnnotation(f"{path} declares a document type, which is refused: delete that line")

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "object" and len(depth) == 1:
            lines.append(parser.CurrentLineNumber)
        depth.append(tag)
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        depth.pop()
        builder.end(tag)

    depth: list[str] = []
    lines: list[int] = []
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        if path.stat().st_size > LARGEST_XML:
            raise BadAnnotation(f"{path} is larger than 16 MiB: that is no image's annotation")
        parser.Parse(path.read_bytes(), True)
    except OSError as error:
        raise BadAnnotation(
            f"annotation {path} cannot be read ({error.strerror}): restore it"
        ) from None
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise BadAnnotation(f"{path} is not XML ({error}): restore it") from None
    return builder.close(), lines
