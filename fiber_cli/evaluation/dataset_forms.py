"""Whether the DATASET of an evaluation is something at all, which is known before a checkpoint is chosen by it."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from fiber_cli.data.sources import FORMATS
from fiber_cli.errors import UserError
from fiber_cli.evaluation.known import existing_file
from fiber_cli.evaluation.names import DATASETS
from fiber_cli.remote_paths import is_remote

#: Endings of files that hold a data set.
ENDINGS = (".json", ".jsonl", ".yaml", ".yml")
SHARDS = ".tar"
FORMS_IN_WORDS = (
    "a JSON of captions, boxes or questions, a JSONL of statements or of ODVG, a data.yaml of Ultralytics, a YAML list "
    "of detection sets, a folder with boxes as labelling tools export them, or a folder or pattern of .tar shards"
)
_OF_SHARDS = "the folder of the .tar files, one of them, or a pattern such as shards/{00000..00331}.tar"
_OF_LABELS = "the folder with pictures and labels, or its data.yaml"
_OF_CAPTIONS = "the JSON in Karpathy's form, such as dataset_coco.json, and its pictures with --images"
_OF_BOXES = "the JSON with the boxes, and its pictures with --images"
_OF_QUESTIONS = "VQAv2's JSON of questions, and its pictures with --images"
_OF_STATEMENTS = "the JSONL, and its pictures with --images"
_OF_LISTS = "the YAML list of detection sets"
#: A form of data, and kinds of recipes, as somebody may type them in place of a path → what is missing.
_FORMS = {
    "shards": _OF_SHARDS,
    "shard": _OF_SHARDS,
    "tar": _OF_SHARDS,
    "webdataset": _OF_SHARDS,
    "region_shards": _OF_SHARDS,
    "folder": _OF_LABELS,
    "yolo": _OF_LABELS,
    "voc": _OF_LABELS,
    "captions": _OF_CAPTIONS,
    "karpathy": _OF_CAPTIONS,
    "json": _OF_CAPTIONS,
    "boxes": _OF_BOXES,
    "mdetr": _OF_BOXES,
    "questions": _OF_QUESTIONS,
    "vqa": _OF_QUESTIONS,
    "statements": _OF_STATEMENTS,
    "jsonl": _OF_STATEMENTS,
    "odvg": _OF_STATEMENTS,
    "yaml": _OF_LISTS,
}


def check_dataset(dataset: str) -> None:
    """Raises UserError as `check_name`, for a file that is not there, and for a folder that holds nothing that is
    evaluated."""
    check_name(dataset)
    path = Path(dataset)
    if path.suffix in ENDINGS and not path.is_dir():
        existing_file(path)
    if dataset in DATASETS or not path.is_dir():
        return
    if not any(entry.is_dir() or entry.suffix in (SHARDS, *ENDINGS) for entry in path.iterdir()):
        raise UserError(f"{dataset}: a folder with neither {SHARDS} shards nor labels; give {FORMS_IN_WORDS}")


def check_name(dataset: str, names: Sequence[str] = DATASETS) -> None:
    """Raises UserError for a DATASET that is neither one of fiber's own, nor there. names: those that can be meant."""
    path = Path(dataset)
    if dataset in DATASETS or path.suffix == SHARDS or (dataset and path.is_dir()):
        return
    if is_remote(dataset):
        if path.suffix in ENDINGS:
            raise UserError(f"{dataset}: from elsewhere {SHARDS} shards alone are read; fetch the file, and name it")
        return
    if path.suffix in ENDINGS:
        return
    if dataset and path.exists():
        raise UserError(f"{dataset}: is read in no form; give {FORMS_IN_WORDS}")
    form = _FORMS.get(dataset.lower())
    if form is not None:
        raise UserError(f"{dataset} is a form of data, without its path: give {form}")
    if dataset and (path.name != dataset or path.suffix):
        raise UserError(f"{dataset}: no such file or folder; give {FORMS_IN_WORDS}")
    hint = ""
    if dataset in FORMATS:
        hint = f"; {dataset} is a kind of source of recipes"
    for near in difflib.get_close_matches(dataset, DATASETS, n=1):
        hint = f"; did you mean {near}?"
    raise UserError(f"unknown dataset {dataset!r}: give one of {', '.join(names)}, {FORMS_IN_WORDS}{hint}")
