"""Ways to harm a file of any form, and of text."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: More digits than Python makes a number of.
MANY_DIGITS = "9" * 5000
DEEP = 100_000


def absent(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    """One that nobody ever writes into."""
    path.unlink()
    os.mkfifo(path)


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def loop_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def forbidden(path: Path) -> None:
    """Not readable, but for root."""
    path.chmod(0)


def utf16(path: Path) -> None:
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))


def wrong_type(path: Path) -> None:
    path.write_text("3\n")


def wrong_type_inside(path: Path) -> None:
    """A number where the first list of a JSON is, or 3 for every line of JSON lines."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps(with_number_for_list(content)))


def with_number_for_list(content: Any) -> Any:
    changed = dict(content)
    for key, value in content.items():
        if isinstance(value, list):
            changed[key] = 3
            return changed
    for key in content:
        changed[key] = 3
        return changed
    raise AssertionError("nothing to change")


def deep(path: Path) -> None:
    path.write_text("[" * DEEP + "]" * DEEP)


def deep_objects(path: Path) -> None:
    path.write_text('{"images": ' * DEEP + "1" + "}" * DEEP)


def huge_number(path: Path) -> None:
    path.write_text(re.sub(r"(?<=[:\[,\s])\d+", MANY_DIGITS, path.read_text(), count=1))


def surrogate(path: Path) -> None:
    r"""Half of a pair, which JSON may hold as \ud800 and no file can."""
    path.write_text(re.sub(r'": "', r'": "\\ud800', path.read_text(), count=1))


def zeros(path: Path) -> None:
    path.write_bytes(b"\0" * 4096)


def html(path: Path) -> None:
    """What a failed download leaves."""
    path.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")


def pickled_code(path: Path) -> None:
    """A pickle that makes the file `executed` in the current folder, were it ever loaded."""
    path.write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")


Way = Callable[[Path], object]

#: Of files of any form, in words.
OF_ANY: dict[str, Way] = {
    "not there": absent,
    "empty": empty,
    "cut short": cut,
    "binary": binary,
    "of zero bytes": zeros,
    "a folder": directory,
    "a pipe that nobody writes into": pipe,
    "a link to nothing": dangling_link,
    "a link to itself": loop_link,
    "an error page of a download": html,
}
#: Also of JSON.
OF_JSON: dict[str, Way] = OF_ANY | {
    "in UTF-16": utf16,
    "a number": wrong_type,
    "with a number for a list": wrong_type_inside,
    "100,000 lists deep": deep,
    "100,000 objects deep": deep_objects,
    "with a number of 5,000 digits": huge_number,
}
#: What cannot be opened or read as text at all.
NO_TEXT: dict[str, Way] = {
    name: OF_ANY[name]
    for name in (
        "not there",
        "empty",
        "binary",
        "of zero bytes",
        "a folder",
        "a pipe that nobody writes into",
        "a link to nothing",
        "a link to itself",
    )
}
OF_YAML: dict[str, Way] = NO_TEXT | {
    "in UTF-16": utf16,
    "a number": wrong_type,
    "100,000 lists deep": deep,
    "an error page of a download": html,
}
if os.geteuid():
    OF_ANY["without permission"] = forbidden
    OF_JSON["without permission"] = forbidden
