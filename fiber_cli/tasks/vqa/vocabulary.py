"""The closed list of answers that VQA chooses from."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fiber_cli.data.files import read_json
from fiber_cli.data.sources.vqa import read_annotations
from fiber_cli.errors import UserError
from fiber_cli.outputs import Outputs
from fiber_cli.tasks.vqa.metrics import normalise
from fiber_cli.text_files import dump_json


def build_vocabulary(annotations: Sequence[str | Path], minimum: int = 9) -> list[str]:
    """The normalised most common answers (`multiple_choice_answer`) that occur at least `minimum` times in the files
    together, in the order of their first occurrence. Of VQAv2's train and val these are 3,129."""
    counts: Counter[str] = Counter()
    for path in annotations:
        for entry in read_annotations(path):
            counts[normalise(entry["multiple_choice_answer"])] += 1
    return [answer for answer, count in counts.items() if count >= minimum]


def write_vocabulary(path: str | Path, vocabulary: Sequence[str], outputs: Outputs | None = None) -> None:
    """As a JSON list, the inverse of `read_vocabulary`. UserError where it may not or cannot be written."""
    (outputs or Outputs()).write(Path(path), dump_json(vocabulary, indent=0) + "\n")


def read_vocabulary(path: str | Path) -> list[str]:
    """Answers in the order of their numbers. Raises `UserError` unless the file is a list of different texts."""
    answers = read_json(path, "a vocabulary of answers, which `fiber vqa-answers --recipe RECIPE` makes")
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f'{path}: not a vocabulary of answers; wanted is a JSON list such as ["yes", "no", …]')
    [(most_common, count)] = Counter(answers).most_common(1)
    if count > 1:
        raise UserError(f"{path}: names {most_common!r} more than once; remove one of them")
    return answers
