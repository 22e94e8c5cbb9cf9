"""VQAv2: questions about images with the answers of ten annotators."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from fiber_cli.data.columns import Coded, Texts
from fiber_cli.data.file_records import FileRecords, Once
from fiber_cli.data.folder import FolderSource
from fiber_cli.data.json_lists import read_json_lists
from fiber_cli.data.records import ANNOTATORS, Question
from fiber_cli.data.some_samples import some_samples
from fiber_cli.data.source import BadSample, QuestionSource, Source
from fiber_cli.data.sources.format import Format
from fiber_cli.data.values import identifier, some_text, text
from fiber_cli.errors import UserError
from fiber_cli.settings import SourceSettings, option

Value = TypeVar("Value")
Entry = dict[str, Any]

_UNKNOWN_TYPE = "unknown"
_FORMS = {
    "questions": '{"questions": [{"question": …, "question_id": …, "image_id": …}, …]}',
    "annotations": '{"annotations": [{"question_id": …, "multiple_choice_answer": …, "answers": [{"answer": …}]}]}',
}


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
    all annotators; one whose annotation is about another image is a bad record. Raises `UserError` for files that are
    not of this form or do not belong together.
    """

    def __init__(
        self,
        questions: str | Path,
        images: str | Path,
        annotations: str | Path | None = None,
        pattern: str = "{image_id:012d}.jpg",
    ):
        annotation_records = _records(annotations or questions, "annotations")
        annotation_of: dict[int | str, _Annotation] = {}
        if annotations is not None:
            annotation_of = dict(_each_annotation(annotation_records, _named_annotation))
        records = _records(questions, "questions")
        reader = _QuestionReader(questions, pattern, annotation_of)
        read: list[Question] = []
        files: list[str] = []
        for question, file in _each(records, "questions", reader.read):
            read.append(question)
            files.append(file)
        self.left_out = [*annotation_records.left_out, *records.left_out]
        if annotation_of and not any(question.answers for question in read):
            raise UserError(f"{annotations}: has no answer to any question of {questions}; they are of other splits")
        self._question_texts = Texts(question.text for question in read)
        self._answer_types = Coded(question.answer_type for question in read)
        self._question_types = Coded(question.question_type for question in read)
        self._answers = Coded(answer for question in read for answer in question.answers)
        # Where the answers of a question end among all.
        self._answer_ends = np.cumsum([len(question.answers) for question in read])
        keys = [str(question.question_id) for question in read]
        super().__init__(Path(questions).stem, images, files, keys)

    @classmethod
    def files_read(cls, **arguments: Any) -> Iterable[str | Path]:
        return filter(None, (arguments["questions"], arguments.get("annotations")))

    def questions(self, i: int) -> tuple[Question, ...]:
        start = int(self._answer_ends[i - 1]) if i else 0
        answers = self._answers[start : int(self._answer_ends[i])]
        own = identifier(self.key(i))
        return (Question(self._question_texts[i], tuple(answers), own, self._answer_types[i], self._question_types[i]),)

    def all_texts(self, reads: tuple[type[Source], ...]) -> Iterable[str]:
        return self._question_texts

    def answerable(self, has_answer: Callable[[Question], bool]) -> QuestionSource:
        samples = [i for i in range(self.total()) if has_answer(self.questions(i)[0])]
        if not samples:
            raise UserError(
                f"data.train: no question of {self.name} has an answer in the vocabulary; "
                "give its annotations, and the vocabulary made of them"
            )
        rest = some_samples(self, samples)
        rest.dropped = len(self) - len(rest)
        return rest


VQA = Format(kind="vqa", settings=VqaSourceSettings, source=VqaSource)


class _QuestionReader:
    """Reads questions. annotation_of: by question id."""

    def __init__(self, path: str | Path, pattern: str, annotation_of: "Mapping[int | str, _Annotation]"):
        self.path, self.pattern, self.annotation_of = path, pattern, annotation_of
        self.ids = Once(path, "the question_id", "questions")

    def read(self, row: Entry) -> tuple[Question, str]:
        """A question and the file of its image."""
        own = _question_id(row)
        annotation = self.annotation_of.get(own, _NO_ANNOTATION)
        question = _question(own, some_text(row["question"], "question"), annotation)
        image = identifier(row["image_id"], "image_id")
        _check_image(annotation, own, image)
        file = self._file(image)
        self.ids.add(own)
        return question, file

    def _file(self, image: int | str) -> str:
        """An image's file. A pattern that does not fit a number refuses the file of questions, an id that is no number,
        and does not fit it, its question."""
        try:
            return self.pattern.format(image_id=image)
        except (LookupError, ValueError, AttributeError) as error:
            message = f"pattern {self.pattern!r}: not fit for image_id {image!r} of {self.path} ({error})"
            if isinstance(image, str):
                raise BadSample(message) from None
            raise UserError(f"{message}; wanted is one like COCO_val2014_{{image_id:012d}}.jpg") from None


class _Annotation(NamedTuple):
    """What is taken of an entry of annotations. image: as the entry has it."""

    answers: tuple[str, ...] = ()
    answer_type: str = _UNKNOWN_TYPE
    question_type: str = _UNKNOWN_TYPE
    image: Any = None


_NO_ANNOTATION = _Annotation()


def _named_annotation(entry: Entry) -> tuple[int | str, _Annotation]:
    """The id of the question, and what is taken."""
    # 6.6 million answers of VQAv2 are a few hundred thousand different ones.
    answers = tuple(sys.intern(answer["answer"]) for answer in entry["answers"])
    if len(answers) == 1:
        answers *= ANNOTATORS
    answer_type = sys.intern(entry.get("answer_type") or _UNKNOWN_TYPE)
    question_type = sys.intern(entry.get("question_type") or _UNKNOWN_TYPE)
    return _question_id(entry), _Annotation(answers, answer_type, question_type, entry.get("image_id"))


def _check_image(annotation: _Annotation, question: int | str, image: int | str) -> None:
    """`BadSample` for an annotation that is about another image than its question."""
    if annotation.image is None:
        return
    annotated = identifier(annotation.image, "the annotation's image_id")
    if annotated != image:
        raise BadSample(f"question {question!r} is about image {image!r}, its annotation about image {annotated!r}")


def _question_id(entry: Entry) -> int | str:
    return identifier(entry["question_id"], "question_id")


def _question(question_id: int | str, words: str, annotation: _Annotation) -> Question:
    return Question(words, annotation.answers, question_id, annotation.answer_type, annotation.question_type)


def read_annotations(path: str | Path) -> list[Entry]:
    """The entries of an official annotations JSON. Raises `UserError` for a file of another form, and for a question
    that is annotated twice."""
    return list(_each_annotation(_records(path, "annotations"), lambda entry: entry))


def _each_annotation(records: FileRecords, take: Callable[[Entry], Value]) -> Iterator[Value]:
    """What is taken of the good entries."""
    once = Once(records.path, "the question_id", "annotations")

    def read(entry: Entry) -> Value:
        _check_texts(entry)
        once.add(_question_id(entry))
        return take(entry)

    return _each(records, "annotations", read)


def _check_texts(entry: Entry) -> None:
    """TypeError unless all answers and the types are texts."""
    text(entry["multiple_choice_answer"], "multiple_choice_answer")
    for answer in entry["answers"]:
        text(answer["answer"], "an answer")
    for what in ("answer_type", "question_type"):
        if entry.get(what) is not None:
            text(entry[what], what)


def _records(path: str | Path, what: str) -> FileRecords:
    return FileRecords(path, f"a VQAv2 {what} JSON", _FORMS[what])


def _each(records: FileRecords, what: str, read: Callable[[Entry], Value]) -> Iterator[Value]:
    """What is read of the good entries of an official JSON, at least one. Raises `UserError`."""
    content = read_json_lists(records.path, f"VQAv2's {what} JSON")
    entries = records.entries(content, what)
    if not entries:
        raise UserError(f'{records.path}: not a VQAv2 {what} JSON; wanted is {{"{what}": [{{…}}, …]}}')
    for _, value in records.each(what, entries, read):
        yield value
