"""VQAv2: questions about images with the answers of ten annotators."""

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from fiber_cli.data.files import expecting, read_json
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.records import ANNOTATORS, Question
from fiber_cli.data.source import QuestionSource
from fiber_cli.data.sources.format import Format
from fiber_cli.errors import UserError
from fiber_cli.settings import SourceSettings, option


@dataclass(frozen=True)
class VqaSourceSettings(SourceSettings):
    """VQAv2 questions with an image folder."""

    kind: Literal["vqa"]
    questions: str = option("The official questions JSON.", path=True)
    images: str = option("Folder that the pattern is relative to.", path=True)
    annotations: str | None = option("The official annotations JSON.", None, path=True)
    pattern: str = option("File name of an image by its id.", "{image_id:012d}.jpg")


class VqaSource(FolderSource, QuestionSource):
    """One sample per question of an official questions JSON, with the answers of an annotations JSON if given.

    images: folder that `pattern` is relative to; pattern: file name of an image by `image_id`, such as
    `COCO_val2014_{image_id:012d}.jpg`. A question that is annotated with one answer alone counts as answered so by
    all annotators. Raises `UserError` for files that are not of this form or do not belong together.
    """

    def __init__(
        self,
        questions: str | Path,
        images: str | Path,
        annotations: str | Path | None = None,
        pattern: str = "{image_id:012d}.jpg",
    ):
        annotated = [] if annotations is None else read_annotations(annotations)
        annotation_of = {entry["question_id"]: entry for entry in annotated}
        self._questions: list[Question] = []
        files: list[str] = []
        for row in read_entries(questions, "questions", ("question", "question_id", "image_id")):
            self._questions.append(_question(row, annotation_of.get(row["question_id"], {})))
            wanted = f"fit for image_id {row['image_id']!r} of {questions}"
            with expecting(f"pattern {pattern!r}", wanted, "one like COCO_val2014_{image_id:012d}.jpg"):
                files.append(pattern.format(image_id=row["image_id"]))
        if annotated and not any(question.answers for question in self._questions):
            raise UserError(f"{annotations}: has no answer to any question of {questions}; they are of other splits")
        keys = [str(question.question_id) for question in self._questions]
        super().__init__(Path(questions).stem, images, files, keys)

    def questions(self, i: int) -> tuple[Question, ...]:
        return (self._questions[i],)

    def answerable(self, has_answer: Callable[[Question], bool]) -> Self:
        samples = [i for i, question in enumerate(self._questions) if has_answer(question)]
        if not samples:
            raise UserError(
                f"data.train: no question of {self.name} has an answer in the vocabulary; "
                "give its annotations, and the vocabulary made of them"
            )
        return self._only(samples)

    def _only(self, samples: Sequence[int]) -> Self:
        """The source with these samples only; `dropped` is how many it lacks."""
        rest = copy.copy(self)
        rest._questions = [self._questions[i] for i in samples]
        rest._files = [self._files[i] for i in samples]
        rest._keys = [self._keys[i] for i in samples]
        rest.dropped = len(self) - len(rest)
        return rest


VQA = Format(kind="vqa", settings=VqaSourceSettings, source=VqaSource)


def _question(row: dict[str, Any], annotation: dict[str, Any]) -> Question:
    # 6.6 million answers of VQAv2 are a few hundred thousand different ones.
    answers = tuple(sys.intern(answer["answer"]) for answer in annotation.get("answers", ()))
    if len(answers) == 1:
        answers *= ANNOTATORS
    return Question(
        text=row["question"],
        answers=answers,
        question_id=row["question_id"],
        answer_type=sys.intern(annotation.get("answer_type", "unknown")),
        question_type=sys.intern(annotation.get("question_type", "unknown")),
    )


def read_annotations(path: str | Path) -> list[dict[str, Any]]:
    """The entries of an official annotations JSON. Raises `UserError` for a file of another form."""
    entries = read_entries(path, "annotations", ("question_id", "multiple_choice_answer", "answers"))
    form = '{"multiple_choice_answer": "yes", "answers": [{"answer": "yes"}, …], …}'
    checked = 0
    with expecting(path, "of VQAv2's form", form, see=lambda: f"annotations[{checked}]"):
        for entry in entries:
            _check_texts(entry)
            checked += 1
    return entries


def _check_texts(entry: dict[str, Any]) -> None:
    """TypeError unless all answers are texts."""
    texts = [entry["multiple_choice_answer"]]
    for answer in entry["answers"]:
        texts.append(answer["answer"])
    "".join(texts)


def read_entries(path: str | Path, what: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    """The list `what` of an official JSON, each of whose entries has these fields. Raises `UserError`."""
    content = read_json(path, f"VQAv2's {what} JSON")
    entries = content.get(what) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f'{path}: not a VQAv2 {what} JSON; wanted is {{"{what}": [{{…}}, …]}}')
    for number, entry in enumerate(entries):
        lacking = _lacking(entry, fields)
        if lacking:
            raise UserError(f"{path}: {what}[{number}] has no {', '.join(lacking)}; fetch the file again")
    return entries


def _lacking(entry: Any, fields: tuple[str, ...]) -> list[str]:
    if not isinstance(entry, dict):
        return list(fields)
    return [field for field in fields if field not in entry]
