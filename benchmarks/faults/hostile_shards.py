"""Tar shards with sizes, names and headers that lie."""

import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tar_files import shard_sample

from benchmarks.faults import harm
from benchmarks.faults.hostile import Hostile, Make
from benchmarks.faults.stock import Stock, train_words


def tar_header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A header with a sum that is right; size: its twelve bytes."""
    header = bytearray(512)
    header[0 : len(name)] = name
    header[100:108], header[124:136], header[136:148] = b"0000644\0", size.ljust(12, b"\0"), b"00000000000\0"
    header[156:157], header[257:265] = kind, b"ustar\x0000"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


def binary_size(value: int) -> bytes:
    """Twelve bytes in GNU's form for large and negative numbers."""
    return (b"\x80" if value >= 0 else b"\xff") + (value % 256**11).to_bytes(11, "big")


def whole_shard() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(8):
            for name, content in shard_sample(f"0{number}"):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pax_shard(key: str, value: str) -> bytes:
    """A shard whose first member has an extended header with that entry."""
    record = f" {key}={value}\n"
    length = len(record) + len(str(len(record) + 3))
    content = f"{length}{record}".encode()
    padded = content.ljust(-(-len(content) // 512) * 512, b"\0")
    return tar_header(b"pax", f"{len(content):011o}".encode(), b"x") + padded + whole_shard()


SHARDS: dict[str, Callable[[], bytes]] = {
    "a negative size": lambda: tar_header(b"00.jpg", binary_size(-512)) + bytes(1024),
    "a negative size that leads back to its own header": lambda: tar_header(b"00.txt", b"00000000005")
    + b"a cat".ljust(512, b"\0")
    + tar_header(b"00.jpg", binary_size(-1024))
    + bytes(1024),
    "a size of 2^80": lambda: tar_header(b"00.jpg", binary_size(2**80)) + bytes(1024),
    "a size that is no number": lambda: tar_header(b"00.jpg", b"many") + bytes(1024),
    "a sum that is wrong": lambda: whole_shard()[:148] + b"0000001\0" + whole_shard()[156:],
    "a long name of 2^40 bytes": lambda: tar_header(b"././@LongLink", binary_size(2**40), b"L") + bytes(1024),
    "an extended header of 2^40 bytes": lambda: tar_header(b"pax", binary_size(2**40), b"x") + bytes(1024),
    "an extended size that is negative": lambda: pax_shard("size", "-512"),
    "an extended size of 5,000 digits": lambda: pax_shard("size", harm.MANY_DIGITS),
    "an extended size that is no number": lambda: pax_shard("size", "many"),
    "an extended record that is longer than it is": lambda: tar_header(b"pax", b"00000000012", b"x")
    + b"99999 a=b\n".ljust(512, b"\0") + whole_shard(),
    "no members": lambda: bytes(10240),
    "links to themselves only": lambda: tar_header(b"00.jpg", b"0", b"1") + bytes(1024),
    "compressed by gzip": lambda: zlib.compress(whole_shard(), wbits=31),
    "cut inside a header": lambda: whole_shard()[:300],
}  # fmt: skip


def _shard(verb: str, content: Callable[[], bytes]) -> Make:
    def make(stock: Stock, folder: Path) -> list[object]:
        file = folder / "bad.tar"
        file.write_bytes(content())
        if verb == "eval":
            return ["eval", file, "--checkpoint", stock.run("coarse"), "--workers", "0", "--output", folder / "out"]
        source = f"data.train=[{{kind: webdataset, shards: {file}}}]"
        return train_words("coarse", stock.recipe(), folder / "out", source)

    return make


#: Tried with `eval` too.
OF_EVAL = ("a negative size", "a size of 2^80", "an extended header of 2^40 bytes", "compressed by gzip")


def hostile() -> list[Hostile]:
    made = []
    for what, content in SHARDS.items():
        for verb in ("pretrain", "eval") if what in OF_EVAL else ("pretrain",):
            made.append(Hostile(11, f"{verb}: the shard has {what}", _shard(verb, content), "bad.tar"))
    return made
