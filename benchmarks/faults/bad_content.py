"""Hostile recipes, pictures, shards, checkpoints, run folders and names: files of the right kind with wrong content."""

import io
import json
import os
import shutil
import socket
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from image_files import encoded, jpeg, photograph
from tar_files import shard_sample, write_tar

from benchmarks.faults import harm
from benchmarks.faults.bench import Bench, judged, tree
from benchmarks.faults.kinds import Case, Verdict
from benchmarks.faults.stock import DETECTOR_MODEL, Stock, copy, train_words

#: Writes the content into a folder and gives the command line that reads it.
Make = Callable[[Stock, Path], list[object]]

STEP = "checkpoints/step-000002"
#: Of the recipe `odinw`, were it started.
ODINW_SIZES = ("model.preset=tiny", "model.image_size=64", "model.tokenizer=builtin", *DETECTOR_MODEL)


def odinw_archive(stock: Stock, folder: Path) -> Path:
    """The archive with one set."""
    root = folder / "archive"
    for split in ("train", "valid", "test"):
        pictures = root / "Raccoon" / "Raccoon.v2-raw.coco" / split
        shutil.copytree(stock.pictures(), pictures)
        shutil.copy(stock.coco(), pictures / "annotations_without_background.json")
    return root


# Recipes

RECIPES: dict[str, str] = {
    "a list": "- 1\n- 2\n",
    "aliases that multiply": "model:\n- &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"- &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(9)),
    "aliases of mappings that multiply": "model:\n- &a0 {x: 1}\n"
    + "".join(f"- &a{n + 1} {{p: *a{n}, q: *a{n}}}\n" for n in range(60)),
    "an alias of itself": "model: &a [*a]\n",
    "a mapping that holds itself": "model: &a {preset: *a}\n",
    "merge keys that go round": "model: &a\n  <<: *a\n  preset: tiny\n",
    "an alias of nothing": "model: *nowhere\n",
    "a Python object": "model: !!python/object/apply:os.system ['touch executed']\n",
    "a Python name": "model: !!python/name:os.system\n",
    "an unknown tag": "model: !secret {preset: tiny}\n",
    "a key twice": "model: {preset: tiny}\nmodel: {preset: base}\n",
    "a key that is a number": "3: {preset: tiny}\n",
    "a key that is a list": "? [a, b]\n: 1\n",
    "a date for a number": "optim: {lr: 2026-01-01, steps: 2}\n",
    "an impossible date": "optim: {lr: 2026-13-45, steps: 2}\n",
    "bytes for a text": "name: !!binary aGVsbG8=\n",
    "a number of 5,000 digits": f"optim: {{steps: {harm.MANY_DIGITS}}}\n",
    "a hexadecimal number of 5,000 digits": f"optim: {{steps: 0x{'f' * 5000}}}\n",
    "a sexagesimal number": f"optim: {{steps: 1{':59' * 3000}}}\n",
    "tabs": "model:\n\tpreset: tiny\n",
    "two documents": "model: {preset: tiny}\n---\nmodel: {preset: tiny}\n",
    "a control character": "name: \x07\n",
    "a mapping 5,000 deep": "a: " + "{a: " * 5000 + "1" + "}" * 5000 + "\n",
    "a block 3,000 deep": "".join(" " * n + "a:\n" for n in range(3000)),
    "sections that are lists": "model: []\ntask: []\ndata: []\noptim: []\n",
    "sections that are empty": "model:\ntask:\ndata:\noptim:\n",
    "a misspelt section": "modell: {preset: tiny}\n",
}


def _recipe(text: str) -> Make:
    def make(stock: Stock, folder: Path) -> list[object]:
        (folder / "bad.yaml").write_text(text)
        return ["pretrain", "coarse", "--recipe", "bad.yaml", "--output", folder / "out"]

    return make


# Pictures


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


# Shards


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
    "a negative size that leads back to itself": lambda: whole_shard()[:1024]
    + tar_header(b"00.png", binary_size(-1024)) + bytes(1024),
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


# Checkpoints with code


CODE = "from pathlib import Path\nPath('executed').touch()\nclass Own:\n    pass\n"


def tokenizer_with_code(folder: Path) -> None:
    """A tokeniser whose class comes with it."""
    config = folder / "tokenizer_config.json"
    written = json.loads(config.read_text())
    auto_map = {"AutoTokenizer": ["own.Own", "own.Own"]}
    config.write_text(json.dumps(written | {"tokenizer_class": "Own", "auto_map": auto_map}))
    (folder / "own.py").write_text(CODE)


def config_with_code(folder: Path) -> None:
    """The same in the file that the hub has for models."""
    (folder / "own.py").write_text(CODE)
    written = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", None]}}
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "tokenizer_config.json").unlink()


def custom_tokenizer_class(folder: Path) -> None:
    """A class of transformers that nobody has."""
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "../../own.Own"}))
    (folder / "own.py").write_text(CODE)


def _copied(task: str, change: Callable[[Path], object], inside: str = "") -> Make:
    """A picture captioned, answered or searched with a copy of a checkpoint that was changed."""

    def make(stock: Stock, folder: Path) -> list[object]:
        run = copy(stock.run(task), folder, "run")
        change(run / STEP / inside)
        picture = stock.pictures() / "0.png"
        if task == "caption":
            return ["caption", picture, "--checkpoint", run]
        if task == "vqa":
            return ["answer", picture, "what is it?", "--checkpoint", run]
        return ["detect", picture, "cat . dog", "--checkpoint", run]

    return make


def _resumed(change: Callable[[Path], object], inside: str = "") -> Make:
    """A copy of a run that was changed, and goes on."""

    def make(stock: Stock, folder: Path) -> list[object]:
        run = copy(stock.run("coarse"), folder, "run")
        change(run / inside)
        return [*train_words("coarse", stock.recipe(), run), "--resume"]

    return make


def _with_tokenizer(change: Callable[[Path], object]) -> Make:
    """A recipe that names the tokeniser."""

    def make(stock: Stock, folder: Path) -> list[object]:
        tokenizer = copy(stock.tokenizer(), folder, "words")
        change(tokenizer)
        return train_words("coarse", stock.recipe(), folder / "out", f"model.tokenizer={tokenizer}")

    return make


def _engine_state_with_code(run: Path) -> None:
    """The engine's own file is a pickle with code."""
    for file in (run / STEP / "state").rglob("*.pt"):
        harm.pickled_code(file)


def json_change(**changes: object) -> Callable[[Path], object]:
    """A JSON file with other values."""

    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def task_change(**changes: object) -> Callable[[Path], object]:
    """A config.json with other values in its section `task`."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        content["task"] = content["task"] | changes
        path.write_text(json.dumps(content))

    return change


def index_of(header: object, features: bytes, shape: list[int]) -> bytes:
    """A safetensors file in the form of an index, by its metadata and its one array."""
    described = {
        "__metadata__": {"fiber": json.dumps(header)},
        "features": {"dtype": "F32", "shape": shape, "data_offsets": [0, len(features)]},
    }
    text = json.dumps(described).encode()
    return struct.pack("<Q", len(text)) + text + features


def _index(change: Callable[[dict[str, object], bytes, list[int]], bytes]) -> Make:
    """An index of the folder, made by the program and then changed."""

    def make(stock: Stock, folder: Path) -> list[object]:
        pictures = copy(stock.pictures(), folder)
        words: list[object] = ["rerank", "--images", pictures, "--query", "a star", "--index", folder / "i.safetensors"]
        words += ["--checkpoint", stock.run("coarse"), "--workers", "0"]
        stock.program.run(*words, cwd=folder)
        raw = (folder / "i.safetensors").read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        described = json.loads(raw[8 : 8 + length])
        header = json.loads(described["__metadata__"]["fiber"])
        array = described["features"]
        first, last = array["data_offsets"]
        data = raw[8 + length :]
        (folder / "i.safetensors").write_bytes(change(header, data[first:last], array["shape"]))
        return words

    return make


INDEXES: dict[str, Callable[[dict[str, object], bytes, list[int]], bytes]] = {
    "features of another width": lambda header, data, shape: index_of(header, data[: 4 * shape[0]], [shape[0], 1]),
    "features that are not finite": lambda header, data, shape: index_of(
        header, struct.pack("<f", float("nan")) * (len(data) // 4), shape
    ),
    "infinite features": lambda header, data, shape: index_of(
        header, struct.pack("<f", float("inf")) * (len(data) // 4), shape
    ),
    "fewer rows than pictures": lambda header, data, shape: index_of(
        header, data[: len(data) // shape[0]], [1, shape[1]]
    ),
    "one long row": lambda header, data, shape: index_of(header, data, [len(data) // 4]),
    "stamps of text": lambda header, data, shape: index_of(
        header | {"images": [["0.png", "many", "late"]] * shape[0]}, data, shape
    ),
    "no list of pictures": lambda header, data, shape: index_of(header | {"images": {"a": 1}}, data, shape),
    "the header of a list": lambda header, data, shape: index_of([1, 2], data, shape),
}


# Names


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


def hostile() -> list[tuple[int, str, Make, str]]:
    """(kind, what is wrong, makes it, what the error must name)"""
    made: list[tuple[int, str, Make, str]] = []
    for what, text in RECIPES.items():
        made.append((11, f"pretrain: the recipe has {what}", _recipe(text), "bad.yaml"))
    for what, content in PICTURES.items():
        made.append((11, f"caption: the picture is {what}", _picture("caption", content), "bad.png"))
    for verb in ("answer", "detect"):
        for what in ("a PNG that says 60,000 x 60,000", "half of a JPEG", "PostScript"):
            made.append((11, f"{verb}: the picture is {what}", _picture(verb, PICTURES[what]), "bad.png"))
    made.append((11, "caption: the picture is a socket", _socket, "bad.png"))
    for what, content in SHARDS.items():
        made.append((11, f"pretrain: the shard has {what}", _shard("pretrain", content), "bad.tar"))
    for what in ("a negative size", "a size of 2^80", "an extended header of 2^40 bytes", "compressed by gzip"):
        made.append((11, f"eval: the shard has {what}", _shard("eval", SHARDS[what]), "bad.tar"))
    for what, change in INDEXES.items():
        made.append((11, f"rerank: the index has {what}", _index(change), "i.safetensors"))
    for task, verb in (("caption", "caption"), ("vqa", "answer"), ("fine", "detect")):
        made.append(
            (10, f"{verb}: a tokeniser with code", _copied(task, tokenizer_with_code, "tokenizer"), "tokenizer")
        )
    made += [
        (10, "caption: a tokeniser's config.json with code", _copied("caption", config_with_code, "tokenizer"), "tokenizer"),
        (10, "caption: a tokeniser of an own class", _copied("caption", custom_tokenizer_class, "tokenizer"), "tokenizer"),
        (10, "caption: weights that are a pickle", _copied("caption", harm.pickled_code, "model.safetensors"), "model.safetensors"),
        (10, "pretrain: model.tokenizer with code", _with_tokenizer(tokenizer_with_code), "words"),
        (10, "pretrain: model.tokenizer with a config.json with code", _with_tokenizer(config_with_code), "words"),
        (10, "pretrain: the engine's state has code", _resumed(_engine_state_with_code), ".pt"),
        (10, "pretrain: the run's own state has code", _resumed(harm.pickled_code, f"{STEP}/state/run.safetensors"), "run.safetensors"),
        (5, "caption: config.json of a later format", _copied("caption", json_change(format=10**6, version=10**6, format_version=10**6), "config.json"), "config.json"),
        (5, "caption: a task that there is none of", _copied("caption", task_change(name="everything"), "config.json"), "step-000002"),
        (5, "caption: no tokeniser", _copied("caption", shutil.rmtree, "tokenizer"), "tokenizer"),
        (5, "detect: labels that are a number", _copied("fine", json_change(labels=3), "config.json"), "config.json"),
        (5, "answer: labels of numbers", _copied("vqa", json_change(labels=list(range(32))), "config.json"), "config.json"),
        (5, "pretrain: `latest` leads out of the folder", _resumed(lambda path: path.write_text("../../..\n"), "checkpoints/latest"), "latest"),
        (5, "pretrain: `latest` of many lines", _resumed(lambda path: path.write_text("step-000002\nstep-000001\n"), "checkpoints/latest"), "latest"),
        (5, "pretrain: metrics.jsonl with a list", _resumed(lambda path: path.write_text("[1]\n" * 2), "metrics.jsonl"), "metrics.jsonl"),
        (5, "pretrain: metrics.jsonl with a step of text", _resumed(lambda path: path.write_text('{"step": "two"}\n'), "metrics.jsonl"), "metrics.jsonl"),
        (5, "pretrain: state/run.json with text for its numbers", _resumed(json_change(step="two", progress={"step": "two"}), f"{STEP}/state/run.json"), "run.json"),
    ]  # fmt: skip
    for what, name in NAMES.items():
        shown = "bad" if what != "a mark of direction" else "gnp"
        made.append(
            (
                6,
                f"caption: a picture that is none, with {what} in its name",
                _named_pictures("caption", name, is_good=False),
                shown,
            )
        )
    return made


def harmless() -> list[tuple[int, str, Make]]:
    """(kind, what is there, makes it) of what may be taken or refused, as long as nothing breaks."""
    made: list[tuple[int, str, Make]] = []
    foreign = {
        "a copied folder of a checkpoint": lambda run: shutil.copytree(run / STEP, run / "checkpoints/step-000002 copy"),
        "a file with the name of a checkpoint": lambda run: (run / "checkpoints/step-000009").write_text("x"),
        "an empty folder with the name of a checkpoint": lambda run: (run / "checkpoints/step-000009").mkdir(),
        "a step without digits": lambda run: shutil.copytree(run / STEP, run / "checkpoints/step-last"),
        "a step of Arabic digits": lambda run: shutil.copytree(run / STEP, run / "checkpoints/step-٣"),
        "a step of superscript digits": lambda run: shutil.copytree(run / STEP, run / "checkpoints/step-²"),
        "a link round in the folder": lambda run: (run / "checkpoints/round").symlink_to(".."),
        "a pipe in the folder": lambda run: os.mkfifo(run / "pipe"),
        "a summary.json that is binary": lambda run: (run / "summary.json").write_bytes(b"\xff\x00"),
        "a curves.png that is a folder": lambda run: ((run / "curves.png").unlink(), (run / "curves.png").mkdir()),
        "a folder that is not whole": lambda run: shutil.copytree(run / STEP / "state", run / "checkpoints/.step-000003.tmp"),
    }  # fmt: skip
    for what, change in foreign.items():
        made.append((5, f"pretrain --resume: {what}", _resumed(change)))
    return made


def cases() -> list[Case]:
    """Each of these as a trial."""
    made = []
    for kind, what, make, named in hostile():
        made.append(Case("inputs", kind, what, _refused(make, named)))
    for kind, what, make in harmless():
        made.append(Case("inputs", kind, what, _unbroken(make)))
    for what, name in NAMES.items():
        for verb in ("caption", "detect"):
            for form in ("", " --json"):
                instance = f"{verb}{form}: a picture with {what} in its name"
                make = _named_pictures(verb, name, is_good=True)
                made.append(Case("inputs", 6, instance, _printed_harmless(make, as_json=bool(form))))
    return made


def _refused(make: Make, named: str) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        words = make(bench.stock, folder)
        before = tree(folder)
        ended = bench.program.run(*words, cwd=folder, stdin="y\n" * 5)
        return Verdict(ended, judged(ended, folder, before, named))

    return attempt


def _unbroken(make: Make) -> Callable[[Bench, Path], Verdict]:
    def attempt(bench: Bench, folder: Path) -> Verdict:
        words = make(bench.stock, folder)
        before = tree(folder)
        ended = bench.program.run(*words, cwd=folder)
        return Verdict(ended, judged(ended, folder, before, is_either=True))

    return attempt


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
            if len(line.split("\t")) not in (2, 7):
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


__all__ = ["ODINW_SIZES", "cases", "odinw_archive", "write_tar"]
