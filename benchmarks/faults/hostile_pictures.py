"""Pictures that say that they are enormous, are cut, go round, or are something else."""

import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from image_files import encoded, jpeg, photograph

from benchmarks.faults import harm
from benchmarks.faults.hostile import Hostile, Make
from benchmarks.faults.stock import Stock


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that says that it has this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = png_chunk(b"IDAT", zlib.compress(b"\0" * 100_000))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + content + png_chunk(b"IEND", b"")


def png_with_text_bomb() -> bytes:
    """A PNG whose compressed comment is 200 MB."""
    whole = encoded(photograph(16, 16))
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 200_000_000))
    return whole[:33] + bomb + whole[33:]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def tiff_with_itself_as_next() -> bytes:
    """A TIFF whose list of pictures goes round."""
    entries = struct.pack("<HHII", 256, 3, 1, 8) + struct.pack("<HHII", 257, 3, 1, 8)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2) + entries + struct.pack("<I", 8)


PICTURES: dict[str, Callable[[], bytes]] = {
    "a PNG that says 60,000 x 60,000": lambda: png_of_size(60_000, 60_000),
    "a PNG that says 2^31 - 1 x 1": lambda: png_of_size(2**31 - 1, 1),
    "a PNG that says 0 x 0": lambda: png_of_size(0, 0),
    "a PNG with a comment of 200 MB": png_with_text_bomb,
    "half of a JPEG": lambda: half(jpeg(size=(200, 200))),
    "the first bytes of a JPEG": lambda: jpeg()[:4],
    "half of a WebP": lambda: half(encoded(photograph(), "WEBP")),
    "half of a GIF": lambda: half(encoded(photograph(), "GIF"))[:20],
    "a PPM of a negative size": lambda: b"P6\n-1 -1\n255\n",
    "a PPM of an enormous size": lambda: b"P6\n99999999 99999999\n255\n\0\0\0",
    "a PPM with a number of 5,000 digits": lambda: f"P6\n{harm.MANY_DIGITS} 1\n255\n".encode(),
    "a TIFF that goes round": tiff_with_itself_as_next,
    "a BMP of an enormous size": lambda: b"BM" + struct.pack("<IHHI", 60, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
    "an SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(executed) (w) file closefile\nshowpage\n",
    "a folder of a ZIP": lambda: b"PK\x03\x04" + bytes(60),
}  # fmt: skip


def _picture(verb: str, content: Callable[[], bytes]) -> Make:
    def make(stock: Stock, folder: Path) -> list[object]:
        (folder / "bad.png").write_bytes(content())
        checkpoint = {"caption": "caption", "answer": "vqa", "detect": "fine"}[verb]
        asked = {"caption": [], "answer": ["what is it?"], "detect": ["cat . dog"]}[verb]
        return [verb, folder / "bad.png", *asked, "--checkpoint", stock.run(checkpoint)]

    return make


def _socket(stock: Stock, folder: Path) -> list[object]:
    """A socket among the pictures of a folder."""
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(folder)  # the path of a socket may be short only
        made.bind("bad.png")
        os.chdir(here)
    return ["caption", folder / "bad.png", "--checkpoint", stock.run("caption")]


#: Tried with every verb that reads pictures, not with `caption` alone.
OF_ALL_VERBS = ("a PNG that says 60,000 x 60,000", "half of a JPEG", "PostScript")


def hostile() -> list[Hostile]:
    made = []
    for what, content in PICTURES.items():
        for verb in ("caption", "answer", "detect") if what in OF_ALL_VERBS else ("caption",):
            made.append(Hostile(11, f"{verb}: the picture is {what}", _picture(verb, content), "bad.png"))
    made.append(Hostile(11, "caption: the picture is a socket", _socket, "bad.png"))
    return made
