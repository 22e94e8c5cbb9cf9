"""Built-in scenes as files, in the forms that data sets have, so that every command has something to work on.

FOLDER/
  images/000000.png …    the pictures
  captions.json          Karpathy's form: what is in each and where
  queries.json           the same form: short texts that are true of each
  boxes.json             COCO's form: a box for every object, with its colour and shape
  phrases.json           MDETR's form: a caption each, and the boxes of its phrases
  expressions.json       MDETR's form: an expression for one object each
  questions.json         VQAv2's form, with answers.json, its annotations
  statements.jsonl       NLVR2's form: true or false of one picture each
  pairs.jsonl            the same form: true or false of a picture and the next; not of a single picture
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fiber_cli.data.scenes.captions import captions
from fiber_cli.data.scenes.categories import categories, category_boxes
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.expressions import expressions
from fiber_cli.data.scenes.layout import Box, Scene, check_scenes, scene
from fiber_cli.data.scenes.queries import queries
from fiber_cli.data.scenes.questions import questions
from fiber_cli.data.scenes.statements import pair_statements, statements
from fiber_cli.errors import UserError
from fiber_cli.outputs import write_problem

#: File name of a picture by its number, also for `kind: vqa`.
PATTERN = "{image_id:06d}.png"

Entry = dict[str, Any]


def write_scenes(
    folder: Path, split: str, count: int, *, seed: int = 0, image_size: int = 256, alike: bool = False
) -> None:
    """Write the first `count` scenes of a split into a new or empty folder; see the top of this file, and
    `scenes.layout.scene` for the arguments. A failure leaves nothing. Raises UserError."""
    check_scenes(split, seed, image_size)
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not an empty folder: name another one")
    scenes = [scene(seed, split, number, image_size, alike) for number in range(count)]
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        (temporary / "images").mkdir(parents=True)
        for number, one in enumerate(tqdm(scenes, "drawing", unit="picture", delay=2, disable=None)):
            draw(one).save(temporary / "images" / PATTERN.format(image_id=number))
        for name, content in _files(scenes, split).items():
            (temporary / name).write_text(content, encoding="utf-8")
        temporary.replace(folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        problem = write_problem(error)
        if problem is None:
            raise
        raise UserError(f"{folder}: cannot be written ({problem}); nothing was left") from error


def _files(scenes: Sequence[Scene], split: str) -> dict[str, str]:
    """Name → content of all files but the pictures."""
    said = [[caption.text for caption in captions(one)] for one in scenes]
    asked = [[query.text for query in queries(one)] for one in scenes]
    questions_file, answers_file = _questions(scenes)
    contents = {
        "captions.json": _karpathy(said, split),
        "queries.json": _karpathy(asked, split),
        "boxes.json": _boxes(scenes, split),
        "phrases.json": _phrases(scenes),
        "expressions.json": _expressions(scenes),
        "questions.json": questions_file,
        "answers.json": answers_file,
    }
    files = {name: json.dumps(content, indent=1) + "\n" for name, content in contents.items()}
    files["statements.jsonl"] = _lines(_statements(scenes))
    if len(scenes) > 1:
        files["pairs.jsonl"] = _lines(_pair_statements(scenes))
    return files


def _lines(entries: Iterable[Entry]) -> str:
    """JSON lines."""
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def _karpathy(texts: Sequence[Sequence[str]], split: str) -> Entry:
    images = []
    for number, of_image in enumerate(texts):
        sentences = [{"raw": text} for text in of_image]
        file_name = PATTERN.format(image_id=number)
        images.append({"filename": file_name, "cocoid": number, "split": split, "sentences": sentences})
    return {"dataset": "scenes", "images": images}


def _image(one: Scene, image_id: int, number: int) -> Entry:
    """The entry of a COCO form for the picture of scene `number`."""
    side = one.image_size
    return {"id": image_id, "file_name": PATTERN.format(image_id=number), "width": side, "height": side}


def _annotation(number: int, image_id: int, box: Box, **more: Any) -> Entry:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    bbox = [left, top, width, height]
    return {"id": number, "image_id": image_id, "bbox": bbox, "area": width * height, "iscrowd": 0, **more}


def _boxes(scenes: Sequence[Scene], split: str) -> Entry:
    images = []
    annotations: list[Entry] = []
    names = categories("coloured_shapes", split)
    number_of = {name: category for category, name in enumerate(names, 1)}
    for number, one in enumerate(scenes):
        images.append(_image(one, number, number))
        for name, box in category_boxes(one):
            annotations.append(_annotation(len(annotations) + 1, number, box, category_id=number_of[name]))
    entries = [{"id": category, "name": name} for name, category in number_of.items()]
    info = {"description": "fiber scenes"}
    return {"info": info, "images": images, "annotations": annotations, "categories": entries}


def _phrases(scenes: Sequence[Scene]) -> Entry:
    images = []
    annotations: list[Entry] = []
    for number, one in enumerate(scenes):
        all_captions = captions(one)
        caption = all_captions[number % len(all_captions)]
        images.append(_image(one, number, number) | {"caption": caption.text, "dataset_name": "flickr"})
        for i, of_object in caption.spans_of_objects().items():
            box = one.objects[i].box
            annotations.append(_annotation(len(annotations) + 1, number, box, category_id=1, tokens_positive=of_object))
    return _mdetr(images, annotations)


def _expressions(scenes: Sequence[Scene]) -> Entry:
    images: list[Entry] = []
    annotations: list[Entry] = []
    for number, one in enumerate(scenes):
        for expression in expressions(one):
            image_id = len(images)
            entry = _image(one, image_id, number)
            images.append(entry | {"caption": expression.text, "dataset_name": "refcoco", "original_id": number})
            whole = [(0, len(expression.text))]
            annotation = _annotation(image_id + 1, image_id, expression.box, category_id=1, tokens_positive=whole)
            annotations.append(annotation)
    return _mdetr(images, annotations)


def _mdetr(images: list[Entry], annotations: list[Entry]) -> Entry:
    categories = [{"id": 1, "name": "object"}]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _questions(scenes: Sequence[Scene]) -> tuple[Entry, Entry]:
    """VQAv2's questions and its annotations."""
    asked: list[Entry] = []
    annotations: list[Entry] = []
    for number, one in enumerate(scenes):
        for question in questions(one):
            own = {"question_id": len(asked), "image_id": number}
            asked.append(own | {"question": question.text})
            answers = [{"answer_id": i, "answer": answer} for i, answer in enumerate(question.answers, 1)]
            kinds = {"question_type": question.question_type, "answer_type": question.answer_type}
            annotations.append(own | kinds | {"multiple_choice_answer": question.answers[0], "answers": answers})
    return {"questions": asked}, {"annotations": annotations}


def _statements(scenes: Sequence[Scene]) -> Iterator[Entry]:
    for number, one in enumerate(scenes):
        for which, statement in enumerate(statements(one)):
            yield {
                "identifier": f"{number}_{which}",
                "image": PATTERN.format(image_id=number),
                "sentence": statement.text,
                "label": str(statement.label),
            }


def _pair_statements(scenes: Sequence[Scene]) -> Iterator[Entry]:
    """Of each picture and the next, of the last and the first."""
    for number, one in enumerate(scenes):
        next_number = (number + 1) % len(scenes)
        for which, statement in enumerate(pair_statements(one, scenes[next_number])):
            yield {
                "identifier": f"{number}_{next_number}_{which}",
                "left": PATTERN.format(image_id=number),
                "right": PATTERN.format(image_id=next_number),
                "sentence": statement.text,
                "label": str(statement.label),
            }
