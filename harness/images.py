"""Pictures: reading them, and preparing them for a network.

One `Preprocessor` serves calibration, evaluation and timing; it computes ``(pixel - mean) / std``
of the resized picture by a table of 256 entries per channel. The same table quantizes where the
input tensor is int8 or uint8, so quantizing costs nothing and rounds exactly.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.cache import sha256_text
from harness.errors import BadConfig, BadImage
from harness.records import ImageSpec, TensorSpec, encode

Pixels = NDArray[np.uint8]
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
QUANTIZED = ("int8", "uint8")
T = TypeVar("T")
ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


def load_image(path: Path | str, declared: tuple[int, int] | None = None) -> Pixels:
    """Read a picture as ``(h, w, 3)`` uint8 RGB.

    A picture with an EXIF orientation is turned upright, unless its annotation ``declared`` the
    (width, height) of the stored pixels and not of the upright ones: then that is the grid that its
    boxes are drawn on. Grey, palette, CMYK and 16-bit pictures are converted; of 16 bits
    the upper 8 are kept; an alpha channel is dropped; of an animation the first frame is read.

    Raises:
        BadImage: missing, empty, truncated, larger than Pillow's bomb limit, or no picture.
    """

    def read(picture: Image.Image) -> Pixels:
        picture.load()
        stored, upright = _sizes(picture)
        as_stored = declared == stored and declared != upright
        return _rgb(picture if as_stored else ImageOps.exif_transpose(picture))

    return _opened(Path(path), read)


def _opened(path: Path, use: Callable[[Image.Image], T]) -> T:
    """What ``use`` makes of the opened picture; whatever Pillow raises becomes a BadImage."""
    try:
        if path.stat().st_size == 0:
            raise BadImage(f"image {path} is empty (0 bytes): restore it or take it off the list")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that is not used here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return use(picture)
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage(f"image {path} does not exist: restore it or take it off the list") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(
            f"image {path} has more than {Image.MAX_IMAGE_PIXELS} pixels, which may be a"
            " decompression bomb: scale it down"
        ) from None
    except Exception as error:  # Pillow's decoders fail on bad bytes in any way they like
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "no picture format that Pillow knows"
        raise BadImage(
            f"image {path} cannot be read ({reason}): restore it or take it off the list"
        ) from error


def decode_image(data: bytes) -> Pixels:
    """The bytes of a picture file as ``(h, w, 3)`` uint8 RGB, as `load_image` reads it.

    Raises:
        BadImage: no picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            return _rgb(ImageOps.exif_transpose(picture))
    except Exception as error:  # as above
        raise BadImage(f"{len(data)} bytes are no picture ({error}): restore the file") from error


def has_codecs() -> bool:
    """Whether picture files can be read and written; a bundle's device may lack Pillow."""
    return hasattr(Image, "fromarray")


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """``(h, w, 3)`` uint8 RGB as a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=quality)
    return stream.getvalue()


def image_size(path: Path | str, declared: tuple[int, int] | None = None) -> tuple[int, int]:
    """(width, height) that `load_image` would answer; only the picture's head is read.

    Raises:
        BadImage: as `load_image`, except for damage behind the head.
    """

    def read(picture: Image.Image) -> tuple[int, int]:
        stored, upright = _sizes(picture)
        return stored if declared == stored else upright

    return _opened(Path(path), read)


def _sizes(picture: Image.Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) as stored, and upright."""
    width, height = picture.size
    sideways = picture.getexif().get(ORIENTATION) in SIDEWAYS
    return (width, height), ((height, width) if sideways else (width, height))


def _rgb(upright: Image.Image) -> Pixels:
    if upright.mode in SIXTEEN_BIT or upright.mode == "I":
        values = np.asarray(upright)
        if values.size and not 0 <= int(values.min()) <= int(values.max()) <= 65535:
            raise ValueError("grey levels beyond 16 bits")
        grey = (values.astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if upright.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if upright.mode in ("P", "PA"):
        upright = upright.convert("RGBA")
    if upright.mode != "RGB":
        upright = upright.convert("RGB")
    return np.array(upright)


def pixels_digest(pixels: Pixels) -> str:
    """SHA-256 of the size and the pixels, as hex: equal for a drawn scene and its PNG file."""
    head = f"pixels {pixels.shape[0]} {pixels.shape[1]}\n".encode()
    return hashlib.sha256(head + pixels.tobytes()).hexdigest()


def resize(image: Pixels, spec: ImageSpec) -> Pixels:
    """``(h, w, 3)`` uint8 RGB stretched to the spec's size; the picture itself if it has that size.

    Pillow's bilinear filter is used, which averages over the source pixels when it shrinks.

    Raises:
        BadImage: another shape or dtype.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise BadImage(
            f"an image is {image.dtype} {image.shape}, expected uint8 (height, width, 3)"
        )
    if image.shape[:2] == (spec.height, spec.width):
        return image
    size = (spec.width, spec.height)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def float_input(spec: ImageSpec) -> TensorSpec:
    """The float32 NCHW input that training and calibration use, ``(1, 3, height, width)``."""
    return TensorSpec(
        name="image", dtype="float32", shape=(1, 3, spec.height, spec.width), layout="NCHW"
    )


def fingerprint(spec: ImageSpec) -> str:
    """SHA-256 of the image spec: equal where pictures are prepared alike."""
    return sha256_text(["preprocessing", encode(spec).decode()])


class Preprocessor:
    """Makes an artifact's input from a picture.

    Args:
        spec: size, mean, std and channel order.
        tensor: layout, dtype, and for int8 and uint8 scale and zero point of the input.

    Raises:
        BadConfig: the two do not fit each other.
    """

    def __init__(self, spec: ImageSpec, tensor: TensorSpec) -> None:
        sides = (spec.height, spec.width)
        expected = {"NCHW": (3, *sides), "NHWC": (*sides, 3)}.get(tensor.layout)
        if tensor.shape[1:] != expected:
            raise BadConfig(
                f"input '{tensor.name}' is {tensor.layout} {tensor.shape}, expected (n,"
                f" {', '.join(map(str, expected or ()))}) from the image spec: correct the manifest"
            )
        self._spec = spec
        self._planar = tensor.layout == "NCHW"
        self._shape = (1, *tensor.shape[1:])
        self._table = lookup_table(spec, tensor)
        self._same = bool((self._table == self._table[0]).all())
        self._flip = spec.channel_order == "bgr"

    @property
    def fingerprint(self) -> str:
        """See `fingerprint`."""
        return fingerprint(self._spec)

    def __call__(self, image: Pixels) -> NDArray[Any]:
        """``(h, w, 3)`` uint8 RGB to ``(1, ...)``, a new contiguous array.

        Raises:
            BadImage: another shape or dtype.
        """
        pixels = resize(image, self._spec)
        if self._flip:
            pixels = pixels[:, :, ::-1]
        if self._same:  # one look-up for all channels
            moved = pixels.transpose(2, 0, 1) if self._planar else pixels
            once: NDArray[Any] = self._table[0].take(moved)[None]
            return once
        out = np.empty(self._shape, self._table.dtype)
        for channel, table in enumerate(self._table):
            target = out[0, channel] if self._planar else out[0, :, :, channel]
            target[...] = table.take(pixels[:, :, channel])
        return out


def lookup_table(spec: ImageSpec, tensor: TensorSpec) -> NDArray[Any]:
    """``(3, 256)``: what each pixel value of each channel becomes in the tensor's dtype.

    Float32 is ``(pixel - mean) / std`` computed in float64 and rounded once; int8 and uint8 are
    ``real / scale + zero_point`` of that, rounded half to even and saturated.

    Raises:
        BadConfig: another dtype, or a quantized tensor without a usable scale and zero point.
    """
    mean, std = np.array(spec.mean)[:, None], np.array(spec.std)[:, None]
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise BadConfig(f"image mean {spec.mean} and std {spec.std} must be finite, std above 0")
    real: NDArray[Any] = ((np.arange(256) - mean) / std).astype(np.float32)
    if tensor.dtype == "float32":
        return real
    if tensor.dtype not in QUANTIZED:
        raise BadConfig(f"input '{tensor.name}' is {tensor.dtype}: expected float32, int8 or uint8")
    if tensor.scale is None or tensor.zero_point is None or not 0 < tensor.scale < np.inf:
        raise BadConfig(
            f"input '{tensor.name}' is {tensor.dtype} with scale {tensor.scale} and zero point"
            f" {tensor.zero_point}: a quantized input needs both, the scale above 0"
        )
    limits = np.iinfo(tensor.dtype)
    steps = np.rint(real.astype(np.float64) / tensor.scale) + tensor.zero_point
    quantized: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(tensor.dtype)
    return quantized
