"""Decoding of every kind of image file that turns up."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from image_files import encoded, photograph
from PIL import Image

from fiber_cli.data.images import open_image, readable_formats
from fiber_cli.data.source import BadSample

# Nothing may depend on Pillow's own check.
pytestmark = pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size; no pixel is behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF"])
def test_common_formats_give_the_picture(format):
    if format not in readable_formats():
        pytest.skip(f"this Pillow was built without {format}")
    image = open_image(encoded(photograph(), format))
    assert image.mode == "RGB"
    assert image.size == (120, 80)
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(photograph()).astype(int))
    assert difference.mean() < 6  # GIF has 256 colours


def test_exif_orientation_turns_the_picture_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    (tmp_path / "a.jpg").write_bytes(encoded(photograph(), "JPEG", exif=exif, quality=95))
    image = open_image(tmp_path / "a.jpg")
    assert image.size == (80, 120)
    upright = np.rot90(np.asarray(photograph()), k=-1)
    assert np.abs(np.asarray(image).astype(int) - upright).mean() < 3


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA", "YCbCr"])
def test_modes_become_rgb(mode):
    source = photograph().convert(mode)
    image = open_image(encoded(source, {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")))
    assert image.mode == "RGB"
    grey = mode in ("L", "LA", "1")
    wanted = np.asarray(photograph().convert("L" if grey else "RGB").convert("RGB")).astype(int)
    assert np.abs(np.asarray(image).astype(int) - wanted).mean() < (130 if mode == "1" else 25)
    if mode == "CMYK":
        assert np.abs(np.asarray(image).astype(int) - wanted).mean() < 5  # Adobe's inversion is undone


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (4, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))  # black under full transparency
    image.putpixel((2, 0), (0, 0, 0, 128))
    pixels = np.asarray(open_image(encoded(image)))[0]
    assert pixels[0].tolist() == [255, 0, 0]
    assert pixels[1].tolist() == [255, 255, 255]
    assert abs(int(pixels[2][0]) - 127) <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 10, 200, 30])
    palette.putpixel((1, 0), 1)
    pixels = np.asarray(open_image(encoded(palette, transparency=0)))[0]
    assert pixels.tolist() == [[255, 255, 255], [10, 200, 30]]


def test_sixteen_bit_greyscale_keeps_the_upper_bits():
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    pixels = np.asarray(open_image(encoded(Image.fromarray(values))))[0]
    assert pixels[:, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a readable image"),
        (b"<html>404</html>", "not a readable image"),
        (encoded(photograph(), "JPEG")[:900], "truncated"),
        (encoded(photograph(), "PNG")[:150], "truncated"),
        (png_header(20_000, 20_000), "more than 89,478,485 pixels"),
        (png_header(10_000, 9_000), "more than 89,478,485 pixels"),  # where Pillow alone would only warn
        (encoded(Image.new("F", (3, 3)), "TIFF"), "floating-point"),
    ],
)
def test_unusable_files_say_why(content, reason, tmp_path):
    for file in (content, tmp_path / "image.jpg"):
        (tmp_path / "image.jpg").write_bytes(content)
        with pytest.raises(BadSample, match=reason):
            open_image(file)


def test_missing_file_and_own_limit(tmp_path):
    with pytest.raises(BadSample, match="no such file"):
        open_image(tmp_path / "absent.jpg")
    small = encoded(photograph(30, 20))
    assert open_image(small, max_pixels=600).size == (30, 20)
    with pytest.raises(BadSample, match="more than 599 pixels"):
        open_image(small, max_pixels=599)
    # A limit above Pillow's own lets the image through, to fail on its missing pixels.
    with pytest.raises(BadSample, match="not a readable image"):
        open_image(png_header(20_000, 20_000), max_pixels=500_000_000)


def test_pillows_limit_and_filters_of_warnings_are_the_users_own(monkeypatch):
    """Also where the user's limit is below that of a picture, or there is none."""
    code = """
import warnings
from PIL import Image

before = Image.MAX_IMAGE_PIXELS
import fiber_cli.data.images, fiber_cli.inference.pictures

ours = [one for one in warnings.filters if one[2] is Image.DecompressionBombWarning]
print(Image.MAX_IMAGE_PIXELS == before, ours)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"
    for limit in (10, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for format in readable_formats():
            content = encoded(photograph(), format)
            assert open_image(content).size == (120, 80)
            with pytest.raises(BadSample, match="more than 9,599 pixels"):
                open_image(content, max_pixels=9599)
        assert limit == Image.MAX_IMAGE_PIXELS


def animation(format, first=(120, 80)):
    frames = [photograph(*first), photograph(120, 80).rotate(90), photograph(120, 80).rotate(180)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], disposal=2)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_only_the_first_frame_of_several_is_decoded_within_the_same_limit(monkeypatch, format):
    content = animation(format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert open_image(content, max_pixels=9600).size == (120, 80)
    with pytest.raises(BadSample, match="more than 9,599 pixels"):
        open_image(content, max_pixels=9599)


def test_a_gif_whose_frame_is_larger_than_it_says_is_not_decoded():
    content = bytearray(encoded(photograph(120, 80), "GIF"))
    at = content.index(b"\x2c\0\0\0\0")  # the frame's place and size
    content[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(BadSample, match="more than 89,478,485 pixels"):
        open_image(bytes(content))


def webp_header(width, height):
    """A WebP of that canvas, without a picture in it."""
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0"
    extended += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    extended += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(extended) + 4) + b"WEBP" + extended


@pytest.mark.parametrize("content", [webp_header(16_000, 16_000), png_header(2**31 - 1, 2**31 - 1)])
def test_a_canvas_past_the_limit_is_refused_before_it_is_made(content):
    with pytest.raises(BadSample, match="more than 89,478,485 pixels"):
        open_image(content)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.8])
def test_a_picture_that_is_cut_short_is_a_bad_sample(format, share):
    if format not in readable_formats():
        pytest.skip(f"this Pillow was built without {format}")
    content = encoded(photograph(), format)
    with pytest.raises(BadSample):
        open_image(content[: int(share * len(content))])


def test_formats_that_are_not_read_are_named():
    for content, said in (
        (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC is not among the formats read .*JPEG, PNG"),
        (b"\xff\x0a" + bytes(99), "JPEG XL is not among"),
        (b"8BPS" + bytes(99), "PSD is not among"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "not a readable image"),
    ):
        with pytest.raises(BadSample, match=said):
            open_image(content)


@pytest.mark.parametrize(
    ("at_least", "size"), [(0, (800, 600)), (200, (400, 300)), (301, (800, 600)), (150, (200, 150))]
)
def test_fast_decoding_stays_large_enough(at_least, size):
    content = encoded(photograph(800, 600), "JPEG", quality=95)
    image = open_image(content, at_least=at_least)
    assert image.size == size
    whole = np.asarray(open_image(content).resize(size)).astype(int)
    assert np.abs(np.asarray(image) - whole).mean() < 2
