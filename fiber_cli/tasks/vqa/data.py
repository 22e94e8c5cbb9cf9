"""VQAv2: questions about images with the answers of ten annotators, the vocabulary of answers, training samples with
soft targets, and evaluation by the official accuracy."""

import copy
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from fiber_cli.tasks.evalset import EvalSet, Score
from fiber_cli.data.files import expecting, read_json
from fiber_cli.data.images import FolderSource
from fiber_cli.data.loader import TextReader, speaks_of_sides
from fiber_cli.data.source import BadSample, Source
from fiber_cli.data.text import encode_one
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError
from fiber_cli.tasks.vqa.metrics import accuracies, accuracy, normalise, soft_targets

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
        self, questions: str | Path, images: str | Path, annotations: str | Path | None = None,
        pattern: str = "{image_id:012d}.jpg",
    ):  # fmt: skip
        annotated = [] if annotations is None else read_annotations(annotations)
        answers = {entry["question_id"]: entry for entry in annotated}
        self._questions, files, self.dropped = [], [], 0
        for row in _entries(questions, "questions", ("question", "question_id", "image_id")):
            found = answers.get(row["question_id"], {})
            # 6.6 million answers of VQAv2 are a few hundred thousand different ones.
            said = tuple(sys.intern(answer["answer"]) for answer in found.get("answers", ()))
            if len(said) == 1:
                said *= ANNOTATORS
            kinds = (sys.intern(found.get(kind, "unknown")) for kind in ("answer_type", "question_type"))
            self._questions.append(VqaQuestion(row["question"], said, row["question_id"], *kinds))
            asked = f"fit for image_id {row['image_id']!r} of {questions}"
            with expecting(f"pattern {pattern!r}", asked, "one like COCO_val2014_{image_id:012d}.jpg"):
                files.append(pattern.format(image_id=row["image_id"]))
        if annotated and not any(question.answers for question in self._questions):
            raise UserError(f"{annotations}: has no answer to any question of {questions}; they are of other splits")
        keys = [str(question.question_id) for question in self._questions]
        super().__init__(Path(questions).stem, images, files, keys=keys)

    def questions(self, i: int) -> tuple[VqaQuestion, ...]:
        return (self._questions[i],)

    def keep(self, samples: Sequence[int]) -> Self:
        """The source with these samples only; `dropped` is how many it lacks."""
        kept = copy.copy(self)
        for column in ("_questions", "_files", "_captions", "_keys"):
            setattr(kept, column, [getattr(self, column)[i] for i in samples])
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
    number, form = 0, '{"multiple_choice_answer": "yes", "answers": [{"answer": "yes"}, …], …}'
    with expecting(path, "of VQAv2's form", form, see=lambda: f"annotations[{number}]"):
        for number, entry in enumerate(entries):
            # Whether all of them are texts.
            "".join((entry["multiple_choice_answer"], *(answer["answer"] for answer in entry["answers"])))
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


class VqaReader(TextReader):
    """One image with one of its questions that have an answer in the vocabulary.

    Gives `pixels` uint8 (3, H, W), the text, and `targets` float32 (labels,).
    """

    def __init__(self, tokenizer, text_length: int, image_size: int, augment: str, vocabulary: Sequence[str]):
        super().__init__(tokenizer, text_length, image_size, augment)
        self.label = {answer: number for number, answer in enumerate(vocabulary)}

    def __call__(self, source: Source, i: int, rng: np.random.Generator) -> dict[str, Any]:
        scores = [(question, soft_targets(question.answers)) for question in source.questions(i)]
        usable = [(question, found) for question, found in scores if self.label.keys() & found]
        if not usable:
            raise BadSample("no question with an answer in the vocabulary")
        question, found = usable[rng.integers(len(usable))]
        targets = torch.zeros(len(self.label))
        for answer in self.label.keys() & found:
            targets[self.label[answer]] = found[answer]
        # Where the picture is mirrored, the answer "left" is wrong although the question names no side.
        flip = not speaks_of_sides(" ".join((question.text, *question.answers)))
        pixels = self.transform(source.image(i, self.least), rng, flip=flip)
        return self.sample(source, i, question.text, pixels) | {"targets": targets}


class VqaSet(EvalSet):
    """Every question of the sources, those without an answer in the vocabulary included."""

    def __init__(
        self, sources: Sequence[Source], tokenizer, text_length: int, image_size: int | tuple[int, int],
        vocabulary: Sequence[str],
    ):  # fmt: skip
        self.tokenizer, self.text_length, self.vocabulary = tokenizer, text_length, vocabulary
        self.transform = EvalTransform(image_size)
        self.items: list[tuple[Source, int, VqaQuestion]] = [
            (source, i, question) for source in sources for i in range(len(source)) for question in source.questions(i)
        ]
        self.ids = [f"{source.name}/{question.question_id}" for source, _, question in self.items]

    def read(self, index: int) -> dict[str, Any]:
        source, i, question = self.items[index]
        pixels = self.transform(source.image(i))
        return {"pixels": pixels, **encode_one(self.tokenizer, question.text, self.text_length)}

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        """Official accuracy of the predicted labels, over the questions that have annotators."""
        given = [(self.items[index][2], self.vocabulary[int(row)]) for index, row in sorted(predictions.items())]
        known = [(question, answer) for question, answer in given if question.answers]
        metrics = accuracies(
            (accuracy(answer, question.answers), question.answer_type, question.question_type)
            for question, answer in known
        )
        files = {"predictions.json": [{"question_id": q.question_id, "answer": answer} for q, answer in given]}
        unknown = len(given) - len(known)
        return Score(metrics, files, [f"{unknown} questions have no annotations: predicted only"] if unknown else [])
