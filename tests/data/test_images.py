"""Decoding of every kind of image file that turns up, and the two transforms."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from fiber_cli.data.images import normalize, open_image
from fiber_cli.data.source import BadSample
from fiber_cli.data.transforms import _OPERATIONS, EvalTransform, TrainTransform, rand_augment, random_crop

# Outside of tests the module itself sets this filter.
pytestmark = pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photograph(width: int = 120, height: int = 80) -> Image.Image:
    """Smooth colours that tell the corners apart."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (255 * x / width, 255 * y / height, 128 + 0 * x)
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size; no pixel is behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_common_formats_give_the_picture(format):
    image = open_image(encoded(photograph(), format))
    assert image.mode == "RGB" and image.size == (120, 80)
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
    assert pixels[0].tolist() == [255, 0, 0] and pixels[1].tolist() == [255, 255, 255]
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


@pytest.mark.parametrize(
    ("at_least", "size"), [(0, (800, 600)), (200, (400, 300)), (301, (800, 600)), (150, (200, 150))]
)
def test_fast_decoding_stays_large_enough(at_least, size):
    content = encoded(photograph(800, 600), "JPEG", quality=95)
    image = open_image(content, at_least=at_least)
    assert image.size == size
    whole = np.asarray(open_image(content).resize(size)).astype(int)
    assert np.abs(np.asarray(image) - whole).mean() < 2


def test_normalize_is_imagenets():
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    wanted = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert torch.allclose(normalize(pixels).flatten(), torch.tensor(wanted))


def test_evaluation_resizes_to_a_square_bicubically():
    pixels = EvalTransform(32)(photograph())
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, 32, 32) and pixels.is_contiguous()
    red, green = pixels[0].float(), pixels[1].float()
    assert (red.diff(dim=1) > 0).all() and (green.diff(dim=0) > 0).all()  # red grows to the right, green down
    assert EvalTransform((16, 48))(photograph()).shape == (3, 16, 48)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
    for size in (32, 128):
        pillow = np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
        difference = np.abs(EvalTransform(size)(noise).permute(1, 2, 0).numpy() - pillow)
        assert difference.max() <= 2 and difference.mean() < 0.05  # of rounding alone


def test_training_transform_depends_on_its_generator_only():
    transform = TrainTransform(32)
    a, b, c = (transform(photograph(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.shape == (3, 32, 32) and a.dtype == torch.uint8


def test_mirroring_happens_half_the_time_and_can_be_forbidden():
    def mirrored(seed: int, flip: bool) -> bool:
        pixels = TrainTransform(32)(photograph(), np.random.default_rng(seed), flip=flip).float()
        return bool(pixels[0, :, :10].mean() > pixels[0, :, -10:].mean())

    share = np.mean([mirrored(seed, True) for seed in range(200)])
    assert 0.38 < share < 0.62
    assert not any(mirrored(seed, False) for seed in range(200))


def test_crops_keep_scale_and_ratio():
    rng = np.random.default_rng(0)
    for _ in range(300):
        left, top, right, bottom = random_crop((200, 150), rng)
        width, height = right - left, bottom - top
        assert 0 <= left < right <= 200 and 0 <= top < bottom <= 150
        assert 0.49 <= width * height / 30_000 <= 1
        assert 0.73 <= width / height <= 1.36
    left, top, right, bottom = random_crop((1000, 10), rng)  # nothing fits: the central 4:3 box
    assert (right - left, bottom - top) == (13, 10) and left == (1000 - 13) // 2
    assert random_crop((1, 1), rng) == (0, 0, 1, 1)


def test_every_operation_of_randaugment():
    image = photograph(96, 96)
    original = np.asarray(image).astype(int)
    results = [np.asarray(op(image, 0.7, 0.7)).astype(int) for op in _OPERATIONS]
    assert len(results) == 10 and all(result.shape == original.shape for result in results)
    assert (results[0] == original).all()
    assert results[1][..., 0].min() == 0 and results[1][..., 0].max() == 255  # auto-contrast
    assert np.abs(results[3] - np.clip(original * 1.36, 0, 255)).max() <= 1  # brightness
    shift = 0.7 * 96 / 38.4  # 1.75 pixels: red is 255 / 96 a pixel
    middle = (results[7] - original)[20:-20, 20:-20, 0]
    assert abs(middle.mean() - shift * 255 / 96) < 0.6
    turned = np.asarray(image.rotate(21)).astype(int)
    assert np.abs(results[9] - turned)[30:60, 30:60].mean() < 2
    moved = [np.abs(result - original).mean() for result in results]
    assert min(moved[1:4]) > 0 and min(moved[5:]) > 1
    # Half of the operations are left out: of 2 the chance that both are, or that both are identity, is > 1/4.
    pixels = EvalTransform(96)(image)
    results = [rand_augment(pixels, np.random.default_rng(seed)) for seed in range(400)]
    assert all(result.shape == pixels.shape and result.dtype == torch.uint8 for result in results)
    same = np.mean([torch.equal(result, pixels) for result in results])
    assert 0.22 < same < 0.40
