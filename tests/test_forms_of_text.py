"""Every reader of users' text takes it in each form that editors give it, and says where bytes are no text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from good_recipe import GOOD
from image_files import jpeg
from odvg_records import DETECTION, GROUNDING
from region_files import coco_box, coco_file, mdetr_file, write_image
from run_folders import FLICKR30K, make_run
from statement_files import write_statements
from tar_files import write_tar
from vqa_files import vqa_source, write_vqa_files

from fiber_cli.checkpoints.config import read_config
from fiber_cli.checkpoints.directory import choose, resolve
from fiber_cli.checkpoints.trained_on import trained_on
from fiber_cli.config.resolve import read_recipe, recipe_header, resolve_recipe
from fiber_cli.data.sources.coco import CocoSource
from fiber_cli.data.sources.flickr_entities import FlickrEntitiesSource
from fiber_cli.data.sources.karpathy import KarpathySource
from fiber_cli.data.sources.mdetr import MdetrSource
from fiber_cli.data.sources.nocaps import NocapsSource
from fiber_cli.data.sources.odvg import OdvgSource
from fiber_cli.data.sources.region_shards import RegionShardsSource
from fiber_cli.data.sources.statements import StatementFile
from fiber_cli.data.sources.visual_genome import VisualGenomeSource
from fiber_cli.data.sources.webdataset import WebDatasetSource
from fiber_cli.errors import UserError
from fiber_cli.evaluation.odinw import read_odinw
from fiber_cli.inference.queries import read_queries
from fiber_cli.outputs import LEDGER
from fiber_cli.tasks.caption.cider import DocumentFrequency, read_document_frequency, write_document_frequency
from fiber_cli.tasks.vqa.vocabulary import read_vocabulary
from fiber_cli.training.resume import check_same_recipe

XML = """<annotation>
<size><width>40</width><height>30</height></size>
<object><name>5</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>
</annotation>
"""
#: What a form makes of a text in lines that end in a newline.
FORMS: dict[str, Callable[[str], bytes]] = {
    "a mark of UTF-8": lambda text: text.encode("utf-8-sig"),
    "UTF-16 with its mark": lambda text: text.encode("utf-16"),
    "UTF-16, the other way round": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "line ends of Windows": lambda text: text.replace("\n", "\r\n").encode(),
    "line ends of old Macs": lambda text: text.replace("\n", "\r").encode(),
    "all of Notepad": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
}
#: Files of a reader, and what it makes of them, to be compared.
Read = Callable[[], Any]


def write(folder: Path, name: str, content: Any) -> Path:
    """A text, or a value as JSON in several lines."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
    return path


def recipe(folder: Path) -> Read:
    path = write(folder, "mine.yaml", "# about: a gar\u00e7on\n" + GOOD)
    return lambda: (resolve_recipe(str(path)), recipe_header(path), read_recipe(path).splitlines()[0])


def recipe_of_a_run(folder: Path) -> Read:
    recipe = resolve_recipe(str(write(folder, "mine.yaml", GOOD)))
    (folder / "mine.yaml").unlink()
    path = write(folder, "recipe.yaml", recipe.to_yaml())
    return lambda: check_same_recipe(recipe, path)


def run_below_runs(folder: Path) -> Read:
    run = make_run(folder, "coarse", FLICKR30K)
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "log: {keep_best: itm/ir@1}\n")
    write(run, "checkpoints/best", "step-000001\n")
    checkpoint = resolve(run)
    return lambda: (read_config(checkpoint), resolve(run, latest=True), choose(run), trained_on(run))


def list_of_sets(folder: Path) -> Read:
    sets = "- name: caf\u00e9\n  json: a.json\n  images: a\n- {name: b, json: b.json, images: b}\n"
    path = write(folder, "sets.yaml", sets)
    return lambda: read_odinw(path)


def list_of_sets_as_json(folder: Path) -> Read:
    path = write(folder, "sets.json", [{"name": "caf\u00e9", "json": "a.json", "images": "a"}])
    return lambda: read_odinw(path)


def labels(folder: Path) -> Read:
    path = write(folder, "labels.txt", "gar\u00e7on\n\nred circle\nline\u2028separator\n")
    return lambda: read_queries(path)


def vocabulary(folder: Path) -> Read:
    path = write(folder, "answers.json", ["yes", "caf\u00e9"])
    return lambda: read_vocabulary(path)


def document_frequencies(folder: Path) -> Read:
    path = folder / "df.json"
    write_document_frequency(path, DocumentFrequency(3.0, {"caf\u00e9": 2.0}))
    return lambda: read_document_frequency(path)


def karpathy(folder: Path) -> Read:
    write_image(folder / "images" / "0.jpg")
    image = {"filename": "0.jpg", "split": "train", "sentences": [{"raw": "a caf\u00e9"}]}
    path = write(folder, "dataset.json", {"images": [image]})
    return lambda: KarpathySource(path, folder / "images").captions(0)


def nocaps(folder: Path) -> Read:
    write_image(folder / "images" / "0.png")
    content = {"images": [{"id": 1, "file_name": "0.png"}], "annotations": [{"image_id": 1, "caption": "a caf\u00e9"}]}
    path = write(folder, "nocaps.json", content)
    return lambda: NocapsSource(path, folder / "images").captions(0)


def visual_genome(folder: Path) -> Read:
    write_image(folder / "images" / "VG_100K" / "1.jpg")
    path = write(folder, "regions.json", [{"id": 1, "regions": [{"phrase": "a caf\u00e9"}]}])
    return lambda: VisualGenomeSource(path, folder / "images").captions(0)


def vqa(folder: Path) -> Read:
    write_vqa_files(folder)
    return lambda: [vqa_source(folder).questions(i) for i in range(4)]


def coco(folder: Path) -> Read:
    path = coco_file(folder, [coco_box(7, 3, [1, 2, 10, 5])], ({"id": 3, "name": "caf\u00e9"},))
    return lambda: (CocoSource(path, folder).names, CocoSource(path, folder).trained_boxes)


def mdetr(folder: Path) -> Read:
    path = mdetr_file(folder, [[[2, 5]]], caption="a cat in a caf\u00e9")
    return lambda: MdetrSource(path, folder / "images").regions(0).caption


def odvg(folder: Path) -> Read:
    write_image(folder / "a.png")
    path = write(folder, "odvg.jsonl", f"{json.dumps(GROUNDING)}\n{json.dumps(DETECTION)}\n")
    label_map = write(folder, "label_map.json", {"12": "cat", "3": "caf\u00e9"})

    def read():
        source = OdvgSource(path, folder, label_map)
        return source.names, len(source), source.regions(0).caption, source.left_out

    return read


def statements(folder: Path) -> Read:
    rows = [{"sentence": f"caf\u00e9 {number}", "identifier": str(number), "image": "a.png"} for number in range(3)]
    jsonl, images = write_statements(folder, {"a.png": 60}, rows)
    jsonl.write_bytes(jsonl.read_bytes() + b"\n")

    def read():
        source = StatementFile(jsonl, images)
        return [source.statements(i) for i in range(len(source))], source.left_out

    return read


def flickr_entities(folder: Path) -> Read:
    write(folder, "val.txt", "1\n2\n")
    for number in (1, 2):
        write(folder, f"Annotations/{number}.xml", XML)
        write(folder, f"Sentences/{number}.txt", "[/EN#5/people A gar\u00e7on] .\n[/EN#5/people He] .\n")
        write_image(folder / "images" / f"{number}.jpg")

    def read():
        source = FlickrEntitiesSource(folder, folder / "images", "val")
        return [source.phrases(i)[0] for i in range(len(source))], source.left_out

    return read


READERS = [
    recipe,
    recipe_of_a_run,
    run_below_runs,
    list_of_sets,
    list_of_sets_as_json,
    labels,
    vocabulary,
    document_frequencies,
    karpathy,
    nocaps,
    visual_genome,
    vqa,
    coco,
    mdetr,
    odvg,
    statements,
    flickr_entities,
]
#: Files that are not the user's text.
OTHERS = {".png", ".jpg", ".safetensors"}


def text_files(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in OTHERS]
    # Neither a tokeniser's nor fiber's own list of outputs.
    return [path for path in files if "tokenizer" not in path.parts and path.name != LEDGER]


@pytest.fixture(autouse=True)
def index_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_a_file_reads_otherwise_in_another_form(reader, form, tmp_path, capsys):
    read = reader(tmp_path)
    expected = read()
    for path in text_files(tmp_path):
        path.write_bytes(FORMS[form](path.read_text(encoding="utf-8")))
    assert read() == expected
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", FORMS)
def test_members_of_shards_read_otherwise_in_another_form(form, tmp_path):
    in_form = FORMS[form]
    members = [("a.jpg", jpeg((9, 9, 9))), ("a.txt", in_form("a caf\u00e9\n"))]
    members += [("b.jpg", jpeg((9, 9, 9))), ("b.json", in_form('{"captions":\n["one", "caf\u00e9"]}\n'))]
    source = WebDatasetSource(str(write_tar(tmp_path / "captions.tar", members)))
    assert [source.captions(i) for i in range(2)] == [("a caf\u00e9",), ("one", "caf\u00e9")]
    assert [source.caption_count(i) for i in range(2)] == [1, 2]
    members = [("a.jpg", jpeg((9, 9, 9))), ("a.json", in_form(json.dumps(GROUNDING, indent=1)))]
    regions = RegionShardsSource(str(write_tar(tmp_path / "regions.tar", members))).regions(0)
    assert regions.caption == GROUNDING["grounding"]["caption"]


def error_of(read: Read) -> str:
    """Empty where the rest could be read."""
    try:
        read()
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_bytes_that_are_no_text_end_in_a_traceback_or_without_their_place(reader, tmp_path, capsys):
    read = reader(tmp_path)
    for path in text_files(tmp_path):
        before = path.read_bytes()
        place = max(1, before.find(b"a"))
        path.write_bytes(before[:place] + b"\xe9" + before[place:])
        if path.name == "recipe.yaml" and reader is run_below_runs:
            read()  # tells only what a run was trained on
        else:
            message = error_of(read) or capsys.readouterr().err
            assert "\n" not in message.strip()
            assert path.name in message
            assert "not UTF-8" in message or "not well-formed" in message
        path.write_bytes(before)
    read()
