"""VQAv2's files for tests: three pictures, of which the third is missing, and four questions about them."""

import json
from pathlib import Path

from PIL import Image

from fiber_cli.data.sources.vqa import VqaSource

PATTERN = "COCO_val2014_{image_id:012d}.jpg"
#: (question id, image id, text)
QUESTIONS = [(10, 1, "what animal is it?"), (11, 1, "is it left of you?"), (20, 2, "how many?"), (30, 3, "where?")]
SAID = {
    10: ["cat"] * 3 + ["Dog"] + ["pig"] * 6,
    11: ["yes"] * 10,
    20: ["two"] * 2 + ["3"] * 8,
    30: ["on the left"] * 9 + ["right"],
}
TYPES = {10: ("other", "what"), 11: ("yes/no", "is it"), 20: ("number", "how many"), 30: ("other", "where")}
#: Has no answer to the last question.
VOCABULARY = ["yes", "no", "cat", "dog", "2"]


def annotation(question_id: int, said: list[str], answer_type: str = "other", question_type: str = "what") -> dict:
    return {
        "question_id": question_id,
        "multiple_choice_answer": max(said, key=said.count),
        "answers": [{"answer": text, "answer_id": n, "answer_confidence": "yes"} for n, text in enumerate(said, 1)],
        "answer_type": answer_type,
        "question_type": question_type,
    }


def write_annotations(path: Path, entries: list[dict]) -> Path:
    path.write_text(json.dumps({"annotations": entries}))
    return path


def write_vqa_files(folder: Path) -> Path:
    rows = [{"question_id": number, "image_id": image, "question": text} for number, image, text in QUESTIONS]
    (folder / "val_questions.json").write_text(json.dumps({"questions": rows}))
    entries = [annotation(number, said, *TYPES[number]) for number, said in reversed(SAID.items())]
    write_annotations(folder / "annotations.json", entries)
    (folder / "images").mkdir()
    for image in (1, 2):
        Image.new("RGB", (40, 30), (90 * image, 0, 0)).save(folder / "images" / PATTERN.format(image_id=image))
    return folder


def vqa_source(folder: Path, annotations: str | None = "annotations.json", pattern: str = PATTERN) -> VqaSource:
    file = None if annotations is None else folder / annotations
    return VqaSource(folder / "val_questions.json", folder / "images", file, pattern=pattern)
