"""Names of files that move a terminal, split a line or are no text."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from image_files import encoded, photograph

from benchmarks.faults.bench import Bench
from benchmarks.faults.hostile import Hostile, Make
from benchmarks.faults.kinds import Case, Verdict
from benchmarks.faults.stock import Stock


def _named_pictures(verb: str, name: str, *, is_good: bool) -> Make:
    """A picture of that name in a folder."""

    def make(stock: Stock, folder: Path) -> list[object]:
        content = encoded(photograph()) if is_good else b"no picture"
        (folder / os.fsencode(name).decode(errors="surrogateescape")).write_bytes(content)
        asked: list[object] = {"caption": [], "detect": ["cat . dog", "--threshold", "0"]}[verb]
        task = {"caption": "caption", "detect": "fine"}[verb]
        return [verb, folder, *asked, "--checkpoint", stock.run(task)]

    return make


NAMES = {
    "a line feed": "bad\nname.png",
    "an escape of the terminal": "bad\x1b[2Jname.png",
    "a carriage return": "bad\rname.png",
    "a tab": "bad\tname.png",
    "no UTF-8": "bad\udcffname.png",
    "a mark of direction": "bad\u202egnp.png",
    "a line separator": "bad\u2028name.png",
    "a control of the second block": "bad\x9b2Jname.png",
}


def hostile() -> list[Hostile]:
    made = []
    for what, name in NAMES.items():
        shown = "gnp" if what == "a mark of direction" else "bad"
        instance = f"caption: a picture that is none, with {what} in its name"
        made.append(Hostile(6, instance, _named_pictures("caption", name, is_good=False), shown))
    return made


def printed_cases() -> list[Case]:
    """Good pictures under these names: what is printed of them."""
    made = []
    for what, name in NAMES.items():
        for verb in ("caption", "detect"):
            for form in ("", " --json"):
                instance = f"{verb}{form}: a picture with {what} in its name"
                make = _named_pictures(verb, name, is_good=True)
                made.append(Case("inputs", 6, instance, _printed_harmless(make, as_json=bool(form))))
    return made


def _printed_harmless(make: Make, *, as_json: bool) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        words = make(bench.stock, folder)
        if as_json:
            words.append("--json")
        ended = bench.program.run(*words, cwd=folder)
        return Verdict(ended, printed_problem(ended.code, ended.out, ended.err, as_json=as_json))

    return attempt


def printed_problem(code: int, out: str, err: str, *, as_json: bool) -> str | None:
    """What is wrong with the lines about one picture: their number, and what moves a terminal."""
    if code or "Traceback" in err:
        lines = err.strip().splitlines()
        return f"exit {code}: {lines[-1] if lines else ''}"
    if as_json:
        try:
            rows = json.loads(out)
        except ValueError as error:
            return f"no JSON: {error}"
        if len(rows) != 1:
            return f"{len(rows)} rows of JSON for one picture"
    else:
        for line in out.split("\n")[:-1]:
            if line.count("\t") < 1 or not line.rpartition("\t")[0]:
                return f"a line that is none: {line!r}"
            if len(line.split("\t")) not in (2, 4):
                return f"columns are split: {line!r}"
    moving = [character for character in out + err if is_moving(character)]
    return f"prints {moving[0]!r} as it is" if moving else None


def is_moving(character: str) -> bool:
    """Whether a character moves a terminal or splits a line."""
    if character in "\n\t":
        return False
    return (
        ord(character) < 32 or 127 <= ord(character) < 160 or character in "\u2028\u2029\u202e\u202d\u2066\u2067\u2068"
    )
