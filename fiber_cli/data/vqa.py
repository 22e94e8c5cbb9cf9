"""VQAv2: questions about images with the answers of ten annotators, and the vocabulary of answers."""

from __future__ import annotations

import copy
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fiber_cli.data.images import MAX_PIXELS, FolderSource
from fiber_cli.data.karpathy import read_json
from fiber_cli.data.source import Source
from fiber_cli.errors import UserError
from fiber_cli.metrics.vqa import normalise, soft_targets

ANNOTATORS = 10


class VqaQuestion(NamedTuple):
    """answers: one of each annotator, none where they are not known. answer_type: "yes/no", "number" or "other"."""

    text: str
    answers: tuple[str, ...]
    question_id: int | str
    answer_type: str
    question_type: str


class VqaSource(FolderSource):
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
        max_pixels: int = MAX_PIXELS,
    ):
        answers = (
            {} if annotations is None else {entry["question_id"]: entry for entry in read_annotations(annotations)}
        )
        rows = _entries(questions, "questions", ("question", "question_id", "image_id"))
        self._questions, files, self.dropped = [], [], 0
        for row in rows:
            found = answers.get(row["question_id"], {})
            # 6.6 million answers of VQAv2 are a few hundred thousand different ones.
            said = tuple(sys.intern(answer["answer"]) for answer in found.get("answers", ()))
            if len(said) == 1:
                said *= ANNOTATORS
            kinds = (sys.intern(found.get(kind, "unknown")) for kind in ("answer_type", "question_type"))
            self._questions.append(VqaQuestion(row["question"], said, row["question_id"], *kinds))
            try:
                files.append(pattern.format(image_id=row["image_id"]))
            except (ValueError, LookupError) as error:
                raise UserError(
                    f"pattern {pattern!r} does not fit image_id {row['image_id']!r} of {questions} ({error}); "
                    "write it like COCO_val2014_{image_id:012d}.jpg"
                ) from None
        if annotations is not None and not any(question.answers for question in self._questions):
            raise UserError(f"{annotations}: has no answer to any question of {questions}; they are of other splits")
        super().__init__(Path(questions).stem, images, files, [[]] * len(files), max_pixels)

    def key(self, i: int) -> str:
        return str(self._questions[i].question_id)

    def questions(self, i: int) -> tuple[VqaQuestion, ...]:
        return (self._questions[i],)

    def keep(self, samples: Sequence[int]) -> VqaSource:
        """The source with these samples only; `dropped` is how many it lacks."""
        kept = copy.copy(self)
        kept._questions, kept._files, kept._captions = (
            [column[i] for i in samples] for column in (self._questions, self._files, self._captions)
        )
        kept.dropped = len(self) - len(kept)
        return kept


def answerable(source: Source, vocabulary: Iterable[str]) -> Source:
    """The source as it is trained on: VQAv2 without the questions none of whose answers is in the vocabulary, their
    number in `dropped`. Raises `UserError` for a source without questions, or where none is left."""
    if not hasattr(source, "questions"):
        raise UserError(f"data.train: {source.name} has no questions; use a source of kind vqa or scenes")
    if not isinstance(source, VqaSource):
        return source
    known = set(vocabulary)
    kept = source.keep([i for i in range(len(source)) if known & soft_targets(source.questions(i)[0].answers).keys()])
    if not len(kept):
        raise UserError(
            f"data.train: no question of {source.name} has an answer in the vocabulary; "
            "give its annotations, and the vocabulary made of them"
        )
    return kept


def build_vocabulary(annotations: Sequence[str | Path], minimum: int = 9) -> list[str]:
    """The normalised most common answers (`multiple_choice_answer`) that occur at least `minimum` times in the files
    together, in the order of their first occurrence. Of VQAv2's train and val these are 3,129."""
    entries = (entry for path in annotations for entry in read_annotations(path))
    counts = Counter(normalise(entry["multiple_choice_answer"]) for entry in entries)
    return [answer for answer, count in counts.items() if count >= minimum]


def write_vocabulary(path: str | Path, vocabulary: Sequence[str]) -> None:
    """As a JSON list, the inverse of `read_vocabulary`."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(vocabulary, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def read_vocabulary(path: str | Path) -> list[str]:
    """Answers in the order of their numbers. Raises `UserError` unless the file is a list of different texts."""
    found = read_json(path, "a vocabulary of answers")
    if not isinstance(found, list) or not found or not all(isinstance(answer, str) for answer in found):
        raise UserError(f'{path}: not a vocabulary of answers; wanted is a JSON list such as ["yes", "no", …]')
    if len(set(found)) < len(found):
        raise UserError(f"{path}: names {Counter(found).most_common(1)[0][0]!r} more than once; remove one of them")
    return found


def read_annotations(path: str | Path) -> list[dict[str, Any]]:
    """The entries of an official annotations JSON."""
    entries = _entries(path, "annotations", ("question_id", "multiple_choice_answer", "answers"))
    for number, entry in enumerate(entries):
        try:
            texts = (entry["multiple_choice_answer"], *(answer["answer"] for answer in entry["answers"]))
        except (KeyError, TypeError):
            texts = (None,)
        if not all(isinstance(text, str) for text in texts):
            raise UserError(
                f"{path}: annotations[{number}] is not of VQAv2's form; wanted is "
                '{"multiple_choice_answer": "yes", "answers": [{"answer": "yes"}, …], …}'
            )
    return entries


def _entries(path: str | Path, what: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    content = read_json(path, f"VQAv2's {what} JSON")
    entries = content.get(what) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f'{path}: not a VQAv2 {what} JSON; wanted is {{"{what}": [{{…}}, …]}}')
    for number, entry in enumerate(entries):
        lacking = [field for field in fields if not isinstance(entry, dict) or field not in entry]
        if lacking:
            raise UserError(f"{path}: {what}[{number}] has no {', '.join(lacking)}; fetch the file again")
    return entries
