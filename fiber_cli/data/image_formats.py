"""What pictures come in: the one table that folders, shards and the decoder go by."""

from collections import Counter
from collections.abc import Iterable

#: Pillow's name of a format → the endings of its files. Pillow reads many stranger formats, one of which starts
#: ghostscript.
FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
#: The endings of pictures that are read, in the order in which they are preferred where one sample has several.
SUFFIXES: tuple[str, ...] = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
#: The endings of other pictures, which nothing here reads: where they are passed over, they are counted.
UNREAD_SUFFIXES = frozenset(
    (
        *(".heic", ".heif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".svg", ".svgz", ".eps", ".psd", ".xcf", ".ai"),
        *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".exr", ".hdr", ".pfm", ".tga"),
        *(".ico", ".icns", ".cur", ".pcx", ".dib", ".dds", ".avifs", ".jpegxl", ".fits", ".dcm", ".qoi"),
    )
)
#: The endings of videos, which `fiber detect` reads where they are named.
VIDEO_SUFFIXES = frozenset((".mp4", ".mov", ".avi", ".mkv", ".webm"))
#: Of HEIF's family, by the brand behind "ftyp": what a file is whose format is not read.
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
}
_BEGINNINGS = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "PSD",
    b"<svg": "SVG",
    b"%!PS": "EPS",
    b"\0\0\1\0": "ICO",
    b"\x76\x2f\x31\x01": "OpenEXR",
}


def unread_format(beginning: bytes) -> str | None:
    """The name of the format of a picture that is not read here, by its first 16 bytes; None where it is unknown."""
    if beginning[4:8] == b"ftyp" and beginning[8:12] in _BRANDS:
        return _BRANDS[beginning[8:12]]
    for start, name in _BEGINNINGS.items():
        if beginning.startswith(start):
            return name
    return None


def count_endings(endings: Iterable[str], most: int = 8) -> str:
    """How often each ending occurs, for a message: ".heic 12, .svg 1"."""
    counted = Counter(endings).most_common()
    told = [f"{ending} {count:,}" for ending, count in counted[:most]]
    if len(counted) > most:
        told.append(f"and {len(counted) - most} other endings")
    return ", ".join(told)
