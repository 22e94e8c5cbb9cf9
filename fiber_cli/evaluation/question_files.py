"""A file of questions in VQAv2's form as a data set: its answers beside it, and how its pictures are called."""

import re
from pathlib import Path

from fiber_cli.data.files import read_json
from fiber_cli.data.sources.vqa import VqaSourceSettings
from fiber_cli.errors import UserError

#: A name that every question has, and no file of captions or boxes.
_KEY = b'"question_id"'
#: Bytes of a file that are looked at for it.
_HEAD = 1 << 20
#: What the file of answers is called, where that of questions is called "questions": officially, and by `fiber scenes`.
_ANSWERS = ("annotations", "answers")
#: The official questions have a word in their names that their annotations lack.
_OFFICIAL = "OpenEnded_"
#: A picture's name by its number: what comes before, the number, what comes behind.
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<behind>\.\w+)")


def holds_questions(path: Path) -> bool:
    """Whether a JSON file has questions; False for one that is not there or cannot be read."""
    try:
        with path.open("rb") as file:
            return _KEY in file.read(_HEAD)
    except OSError:
        return False


def question_file(path: Path, images: Path) -> VqaSourceSettings:
    """The source of a file of questions whose pictures lie in `images`; without a file of answers beside it, it is
    predicted only. Raises UserError where the pictures are not called by the questions' image_id."""
    annotations = _answers_beside(path)
    return VqaSourceSettings(
        kind="vqa",
        questions=str(path),
        images=str(images),
        annotations=None if annotations is None else str(annotations),
        pattern=_pattern(path, images),
    )


def _answers_beside(path: Path) -> Path | None:
    for name in (path.name, path.name.replace(_OFFICIAL, "")):
        for word in _ANSWERS:
            file = path.with_name(name.replace("questions", word))
            if file != path and file.is_file():
                return file
    return None


def _pattern(path: Path, images: Path) -> str:
    """How the pictures of a folder are called by their number, as the first question's is found there."""
    image = _first_image(path)
    for file in sorted(images.iterdir()) if images.is_dir() else ():
        name = _NUMBERED.fullmatch(file.name)
        if name is not None and int(name["number"]) == image:
            width = len(name["number"])
            number = f"{{image_id:0{width}d}}" if name["number"].startswith("0") else "{image_id}"
            return f"{_literal(name['before'])}{number}{name['behind']}"
    raise UserError(
        f"{images}: has no picture of image_id {image}, which {path} begins with; name their folder with --images, or "
        "their names by `pattern` of an entry of data.val (kind: vqa)"
    )


def _literal(text: str) -> str:
    """Braces of a name as a pattern has them."""
    return text.replace("{", "{{").replace("}", "}}")


def _first_image(path: Path) -> int:
    """The image_id of the first question that has one that is a number. Raises UserError where none has."""
    content = read_json(path, "VQAv2's questions JSON")
    questions = content.get("questions") if isinstance(content, dict) else None
    for question in questions if isinstance(questions, list) else ():
        image = question.get("image_id") if isinstance(question, dict) else None
        if isinstance(image, int):
            return image
    raise UserError(f'{path}: no question with a number as image_id; wanted is {{"questions": [{{"image_id": 1, …}}]}}')
