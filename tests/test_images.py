"""Reading pictures of every kind, and the arithmetic of the preprocessor."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from harness.errors import BadConfig, BadImage
from harness.images import Preprocessor, float_input, load_image, lookup_table, resize
from harness.records import ImageSpec, TensorSpec

SPEC = ImageSpec(height=30, width=20, mean=(123.0, 117.0, 104.0), std=(58.0, 57.0, 61.0))
EVEN = ImageSpec(height=30, width=20, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8)


def tensor(spec: ImageSpec, layout: str, dtype: str, **quantization: float | int) -> TensorSpec:
    sides = (spec.height, spec.width)
    shape = (1, 3, *sides) if layout == "NCHW" else (1, *sides, 3)
    return TensorSpec(name="x", dtype=dtype, shape=shape, layout=layout, **quantization)


def pillow(image: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    size = (spec.width, spec.height)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


@pytest.mark.parametrize("spec", [SPEC, EVEN])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_float_is_pixel_minus_mean_over_std(photo, spec, order, layout):
    spec = ImageSpec(height=30, width=20, mean=spec.mean, std=spec.std, channel_order=order)
    pixels = pillow(photo, spec).astype(np.float64)
    if order == "bgr":
        pixels = pixels[:, :, ::-1]
    expected = (pixels - np.array(spec.mean)) / np.array(spec.std)
    if layout == "NCHW":
        expected = expected.transpose(2, 0, 1)
    out = Preprocessor(spec, tensor(spec, layout, "float32"))(photo)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert np.array_equal(out[0], expected.astype(np.float32))


@pytest.mark.parametrize("spec", [SPEC, EVEN])
@pytest.mark.parametrize(("dtype", "zero_point"), [("int8", -3), ("uint8", 128)])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_quantized_is_the_float_input_rounded_half_to_even(photo, spec, dtype, zero_point, layout):
    scale = 0.0078125  # 1/128: with EVEN every value falls on a step, none between
    real = Preprocessor(spec, tensor(spec, layout, "float32"))(photo).astype(np.float64)
    limits = np.iinfo(dtype)
    expected = np.clip(np.rint(real / scale) + zero_point, limits.min, limits.max)
    quantized = tensor(spec, layout, dtype, scale=scale, zero_point=zero_point)
    out = Preprocessor(spec, quantized)(photo)
    assert out.dtype == np.dtype(dtype)
    assert out.flags.c_contiguous
    assert np.array_equal(out, expected.astype(dtype))


def test_halves_go_to_the_even_step_and_far_values_saturate():
    spec = ImageSpec(height=1, width=1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    table = lookup_table(spec, tensor(spec, "NHWC", "int8", scale=2.0, zero_point=0))
    assert table[0, [1, 3, 5, 7]].tolist() == [0, 2, 2, 4]
    table = lookup_table(spec, tensor(spec, "NHWC", "int8", scale=0.5, zero_point=-128))
    assert table[0, [0, 127, 128, 255]].tolist() == [-128, 126, 127, 127]


@given(st.floats(0.001, 4.0), st.integers(-128, 127), st.integers(0, 255))
def test_quantization_error_is_at_most_half_a_step_unless_saturated(scale, zero_point, pixel):
    quantized = tensor(EVEN, "NHWC", "int8", scale=scale, zero_point=zero_point)
    step = int(lookup_table(EVEN, quantized)[0, pixel])
    real = float(lookup_table(EVEN, tensor(EVEN, "NHWC", "float32"))[0, pixel])
    if -128 < step < 127:
        assert abs(scale * (step - zero_point) - real) <= scale / 2 + 1e-6


def test_resize_keeps_a_picture_of_that_size_and_is_pillows_bilinear(photo):
    assert np.array_equal(resize(photo, SPEC), pillow(photo, SPEC))
    fitting = pillow(photo, SPEC)
    assert resize(fitting, SPEC) is fitting


def test_fingerprint_is_that_of_the_picture_preparation_alone():
    one = Preprocessor(SPEC, float_input(SPEC)).fingerprint
    other = tensor(SPEC, "NHWC", "int8", scale=0.1, zero_point=0)
    assert Preprocessor(SPEC, other).fingerprint == one
    assert Preprocessor(EVEN, float_input(EVEN)).fingerprint != one
    assert len(one) == 64


def test_float_input_is_nchw():
    assert float_input(SPEC).shape == (1, 3, 30, 20)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (tensor(EVEN, "NCHW", "float16"), "float16: expected float32, int8 or uint8"),
        (tensor(EVEN, "NHWC", "int8"), "scale None and zero point None"),
        (tensor(EVEN, "NHWC", "int8", scale=0.0, zero_point=0), "the scale above 0"),
        (
            TensorSpec(name="x", dtype="float32", shape=(1, 3, 30, 30), layout="NCHW"),
            "expected (n, 3, 30, 20)",
        ),
    ],
)
def test_an_input_that_does_not_fit_is_refused(wrong, says):
    with pytest.raises(BadConfig) as caught:
        Preprocessor(EVEN, wrong)
    assert says in str(caught.value)


def test_a_std_of_zero_is_refused():
    spec = ImageSpec(height=30, width=20, mean=(0.0, 0.0, 0.0), std=(1.0, 0.0, 1.0))
    with pytest.raises(BadConfig, match="std above 0"):
        Preprocessor(spec, float_input(spec))


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 4), (0, 50, 3)])
def test_another_array_than_a_picture_is_refused(shape):
    with pytest.raises(BadImage, match="expected uint8"):
        Preprocessor(SPEC, float_input(SPEC))(np.zeros(shape, np.uint8))
    with pytest.raises(BadImage, match="expected uint8"):
        Preprocessor(SPEC, float_input(SPEC))(np.zeros((40, 50, 3), np.float32))  # type: ignore[arg-type]  # on purpose


def test_rgb_is_read_as_it_is(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png")
    assert np.array_equal(load_image(tmp_path / "a.png"), photo)
    assert load_image(tmp_path / "a.png").flags.writeable


def test_grey_palette_alpha_bilevel_and_cmyk_become_rgb(tmp_path):
    grey = np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 4)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    picture = Image.fromarray(rgb)
    alpha = picture.convert("RGBA")
    alpha.putalpha(Image.fromarray(grey))
    cases = {
        "grey.png": Image.fromarray(grey),
        "grey-alpha.png": Image.fromarray(grey).convert("LA"),
        "alpha.png": alpha,
        "palette.png": picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=256),
    }
    for name, case in cases.items():
        case.save(tmp_path / name)
        assert np.array_equal(load_image(tmp_path / name), rgb), name
    Image.fromarray(grey > 100).save(tmp_path / "bilevel.png")
    assert set(load_image(tmp_path / "bilevel.png").ravel().tolist()) == {0, 255}
    picture.convert("CMYK").save(tmp_path / "cmyk.tif")
    assert np.abs(load_image(tmp_path / "cmyk.tif").astype(int) - rgb).max() <= 2


def test_a_transparent_palette_is_read_without_a_warning(tmp_path):
    picture = Image.new("P", (2, 2))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.info["transparency"] = b"\x00\xff"
    picture.save(tmp_path / "a.png", transparency=b"\x00\xff")
    assert load_image(tmp_path / "a.png")[0, 0].tolist() == [10, 20, 30]


def test_of_sixteen_bits_the_upper_eight_are_kept(tmp_path):
    levels = np.array([[0, 255, 256, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png")[0, :, 1].tolist() == [0, 0, 1, 255]


def test_the_exif_rotation_is_applied(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90 degrees to see it upright
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_image(tmp_path / "a.png"), np.rot90(photo, -1))


def jpeg() -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a hundred bytes."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty (0 bytes)"),
        (jpeg()[:600], "cannot be read"),
        (b"not a picture", "no picture format"),
        (bomb(), "decompression bomb"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "cannot be read"),
    ],
)
def test_a_bad_file_is_one_sentence_with_its_path(tmp_path, data, says):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(BadImage) as caught:
        load_image(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_float_pixels_are_refused(tmp_path):
    with pytest.raises(BadImage, match="does not exist"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(BadImage, match="cannot be read"):
        load_image(tmp_path)
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(BadImage, match="floating-point"):
        load_image(tmp_path / "float.tif")


def test_a_real_photo_prepares(shared: Path):
    photo = load_image(shared / "data/voc-100/VOCdevkit/VOC2012/JPEGImages/2007_001027.jpg")
    assert photo.shape == (375, 500, 3)
    out = Preprocessor(SPEC, float_input(SPEC))(photo)
    assert np.isfinite(out).all()
    assert out.std() > 0.5
