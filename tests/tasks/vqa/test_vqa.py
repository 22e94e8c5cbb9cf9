"""VQA: the official accuracy against one written anew, the files, the samples, the scores and the task."""

import hashlib
import json
import math
import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image

from fiber_cli.checkpoints import directory as checkpoint
from fiber_cli.data.loader import Mixture, TrainSet, collate
from fiber_cli.data.scenes.drawing import ScenesSource, answers
from fiber_cli.data.source import BadSample
from fiber_cli.data.text import load_tokenizer
from fiber_cli.tasks.vqa.data import (
    VqaQuestion,
    VqaReader,
    VqaSet,
    VqaSource,
    answerable,
    build_vocabulary,
    read_vocabulary,
    write_vocabulary,
)
from fiber_cli.errors import UserError
from fiber_cli.tasks.vqa import metrics as vqa
from fiber_cli.tasks.vqa.metrics import accuracies, accuracy, normalise, soft_targets
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.tasks.coarse.task import CoarseTask, RetrievalTask
from fiber_cli.tasks.nlvr2.task import Nlvr2Task
from fiber_cli.tasks.vqa.task import VqaTask

TOKENIZER = load_tokenizer("builtin")
PATTERN = "COCO_val2014_{image_id:012d}.jpg"

# The official accuracy, written anew from what the evaluator does

#: Some of what the evaluator restores; None: what it might be thought to restore and does not.
CONTRACTIONS = {
    "dont": "don't", "itll": "it'll", "someonell": "someone'll", "couldntve": None, "couldn'tve": "couldn't've",
    "somebody'd": "somebodyd", "twas": "'twas", "oclock": "o'clock", "ow's'at": "'ow's'at", "y'allll": "y'all'll",
    "lets": None, "shes": None, "id": None, "cannot": None, "im": None, "mustnt've": None, "whereve": "where've",
    "somebodyll": "somebody'll", "couldnt've": "couldn't've",
}  # fmt: skip


def spelled(text: str) -> str:
    """Normalised letter by letter, by rules read off the evaluator."""
    thousands = any(
        mark == "," and before.isdigit() and after.isdigit() for before, mark, after in zip(text, text[1:], text[2:])
    )
    letters = []
    for place, letter in enumerate(text):
        if letter in '[](){}<>@`_=+-/\\;,?!"':
            spaced = any(
                other == letter and " " in (text[at - 1] if at else "", text[at + 1 : at + 2])
                for at, other in enumerate(text)
            )
            letter = "" if thousands or spaced else " "
        letters.append(letter)
    text, kept, taken = "".join(letters), "", 0
    for place, letter in enumerate(text):
        if letter == "." and not text[place + 1 : place + 2].isdigit() and taken < 32:
            taken += 1
        else:
            kept += letter
    numbers = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    words = []
    for word in kept.lower().split():
        word = "0" if word == "none" else str(numbers.index(word)) if word in numbers else word
        if word not in ("a", "an", "the"):
            words.append(CONTRACTIONS.get(word) or word)
    return " ".join(words)


def official(answer: str, annotators: list[str]) -> float:
    """Each annotator left out in turn."""
    answer, *annotators = (text.replace("\n", " ").replace("\t", " ").strip(" ") for text in (answer, *annotators))
    if any(other != annotators[0] for other in annotators):
        answer, *annotators = (spelled(text) for text in (answer, *annotators))
    total = 0.0
    for left_out in range(len(annotators)):
        total += min(1, (annotators[:left_out] + annotators[left_out + 1 :]).count(answer) / 3)
    return total / len(annotators)


OTHER_WORDS = "a an the The one Two ten none zero eleven cat DOG t 10 1 2 000 .5 3.5 p.m $ 10:30"


def random_answer(rng: random.Random) -> str:
    words = [*CONTRACTIONS, *OTHER_WORDS.split()]
    text = rng.choice(words)
    for _ in range(rng.randrange(4)):
        text += rng.choice([" ", " ", "-", ",", ", ", " ,", "/", " / ", ".", ". ", "!", "'", "\n", "\t", "; ", "  "])
        text += rng.choice(words)
    return rng.choice(["", "", "\n", " "]) + text + rng.choice(["", "", ".", "?", ' "', " "])


def test_accuracy_equals_one_written_anew():
    rng = random.Random(0)
    seen = set()
    for _ in range(3000):
        pool = [random_answer(rng) for _ in range(rng.randint(1, 3))]
        pool += [rng.choice(pool).upper(), spelled(rng.choice(pool)), rng.choice(pool) + "."]
        annotators = [rng.choice(pool) for _ in range(10)] if rng.random() < 0.9 else [pool[0]] * 10
        answer = rng.choice(pool)
        assert accuracy(answer, annotators) == pytest.approx(official(answer, annotators)), (answer, annotators)
        seen.add(round(official(answer, annotators), 6))
    assert seen == {0, 0.3, 0.6, 0.9, 1}


@pytest.mark.parametrize(("count", "expected"), list(enumerate((0, 0.3, 0.6, 0.9, 1, 1, 1))))
def test_accuracy_by_hand(count, expected):
    """3 of 10 say so: each of the three agrees with two others (2/3), each of the seven with three (1): 9/10."""
    annotators = [f"other {n}" for n in range(10)]
    annotators[:count] = ["a cat"] * count
    assert accuracy("The cat.", annotators) == pytest.approx(expected)


def test_answers_are_normalised_only_if_annotators_disagree():
    assert accuracy("yes", ["Yes"] * 10) == 0 and accuracy("Yes", ["Yes"] * 10) == 1
    assert accuracy("yes", ["Yes"] * 9 + ["no"]) == 1
    assert accuracy("0", ["none"] * 10) == 0 and accuracy("none", ["none"] * 10) == 1
    assert accuracy("0", ["none"] * 6 + ["zero"] * 4) == 1
    # Line breaks and outer spaces never count, so that these annotators agree.
    assert accuracy("yes", ["Yes"] * 5 + ["Yes\n"] * 5) == 0 and accuracy("Yes\t", ["Yes"] * 5 + [" Yes\n"] * 5) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    {
        "T-Shirt": "t shirt", "black - white": "black white", "red,white": "red white", "red, white": "red white",
        "red,white, blue": "redwhite blue", "red ,white,blue": "red whiteblue", "1,000": "1000", "1,000 t-shirts": "1000 tshirts", "yes!": "yes",
        "(left)": "left", "up [or] down": "up or down", "a.m.": "am", "3.5": "3.5", "5.": "5", "1..5": "1.5",
        "x" + "." * 33: "x.", "10:30": "10:30", "$5": "$5", "the dog's": "dog's", "The A an": "", "none": "0",
        "Ten": "10", "eleven": "eleven", "no-one": "no 1", "one's": "one's", "dont": "don't",
        "don't": "don't", "lets": "lets", "Im": "im", "somebody'd": "somebodyd", "somebodyll": "somebody'll",
        "  two \n dogs\t": "2 dogs", "couldntve": "couldntve", "couldnt've": "couldn't've", "what_is": "what is",
    }.items(),
)  # fmt: skip
def test_normalisation_by_hand(answer, expected):
    assert normalise(answer) == expected
    assert spelled(answer.replace("\n", " ").replace("\t", " ").strip()) == expected


def test_every_contraction_of_the_evaluator():
    """The digest is of the evaluator's own table, without the entries that change nothing or hold a capital I, which
    its lower-case words never are."""
    lines = "\n".join(f"{broken} {whole}" for broken, whole in sorted(vqa._REPAIRED.items()))
    assert len(vqa._REPAIRED) == 114
    assert hashlib.sha256(lines.encode()).hexdigest().startswith("f2c800b1132e79302dd72686ce8bba16120f1873")


def test_accuracies_by_type():
    results = [(1.0, "yes/no", "is the"), (0.3, "yes/no", "what is/are"), (0.6, "other", "is the"), (0.0, "number", "")]
    assert accuracies(results) == pytest.approx(
        {
            "vqa/accuracy": 47.5,
            "vqa/yes-no": 65.0,
            "vqa/other": 60.0,
            "vqa/number": 0.0,
            "vqa/question/is-the": 80.0,
            "vqa/question/what-is/are": 30.0,
            "vqa/question/": 0.0,
        }
    )
    assert accuracies([]) == {}


def test_soft_targets_count_annotators():
    said = ["cat"] * 4 + ["A dog", "dog", "dog."] + ["Two"] + ["2"] + ["owl"]
    assert soft_targets(said) == {"cat": 1.0, "dog": 0.9, "2": 0.6, "owl": 0.3}
    assert soft_targets(["yes"] * 10) == {"yes": 1.0} and soft_targets([]) == {}


# Files


def annotation(question_id: int, said: list[str], answer_type="other", question_type="what") -> dict:
    return {
        "question_id": question_id,
        "multiple_choice_answer": max(said, key=said.count),
        "answers": [{"answer": text, "answer_id": n, "answer_confidence": "yes"} for n, text in enumerate(said, 1)],
        "answer_type": answer_type,
        "question_type": question_type,
    }


QUESTIONS = [(10, 1, "what animal is it?"), (11, 1, "is it left of you?"), (20, 2, "how many?"), (30, 3, "where?")]
SAID = {
    10: ["cat"] * 3 + ["Dog"] + ["pig"] * 6,
    11: ["yes"] * 10,
    20: ["two"] * 2 + ["3"] * 8,
    30: ["on the left"] * 9 + ["right"],
}
KINDS = {10: ("other", "what"), 11: ("yes/no", "is it"), 20: ("number", "how many"), 30: ("other", "where")}
VOCABULARY = ["yes", "no", "cat", "dog", "2"]


@pytest.fixture
def folder(tmp_path):
    """Three pictures, of which the third is missing; four questions, the last with no answer in VOCABULARY."""
    rows = [{"question_id": q, "image_id": i, "question": text} for q, i, text in QUESTIONS]
    (tmp_path / "val_questions.json").write_text(json.dumps({"questions": rows}))
    entries = [annotation(number, said, *KINDS[number]) for number, said in reversed(SAID.items())]
    (tmp_path / "annotations.json").write_text(json.dumps({"annotations": entries}))
    (tmp_path / "images").mkdir()
    for i in (1, 2):
        Image.new("RGB", (40, 30), (90 * i, 0, 0)).save(tmp_path / "images" / PATTERN.format(image_id=i))
    return tmp_path


def source_of(folder, annotations="annotations.json", pattern=PATTERN) -> VqaSource:
    return VqaSource(
        folder / "val_questions.json", folder / "images", annotations and folder / annotations, pattern=pattern
    )


def test_source_joins_questions_and_annotations(folder):
    source = pickle.loads(pickle.dumps(source_of(folder)))
    assert source.name == "val_questions" and len(source) == 4
    assert [source.key(i) for i in range(4)] == ["10", "11", "20", "30"]
    assert source.questions(2) == (VqaQuestion("how many?", tuple(SAID[20]), 20, "number", "how many"),)
    assert [source.image(i).getpixel((5, 5))[0] // 80 for i in range(3)] == [1, 1, 2]
    assert sorted(source.order(np.random.default_rng(0))) == [0, 1, 2, 3]
    with pytest.raises(BadSample, match="no such file.*COCO_val2014_000000000003.jpg"):
        source.image(3)
    # One answer alone stands for all annotators.
    (folder / "one.json").write_text(json.dumps({"annotations": [annotation(10, ["cat"])]}))
    one = source_of(folder, "one.json")
    assert one.questions(0)[0].answers == ("cat",) * 10 and one.questions(1)[0].answers == ()


def test_questions_without_annotations(folder):
    source = source_of(folder, None)
    assert source.questions(0) == (VqaQuestion("what animal is it?", (), 10, "unknown", "unknown"),)
    with pytest.raises(UserError, match="no question of val_questions has an answer in the vocabulary.*annotations"):
        answerable(source, VOCABULARY)


def test_source_says_what_is_wrong(folder):
    for pattern in ("{id}.jpg", "{}.jpg", "{image_id:x^^}.jpg"):
        with pytest.raises(UserError, match=r"pattern .*: not fit for image_id 1 .*wanted is one like COCO_val2014"):
            source_of(folder, pattern=pattern)
    with pytest.raises(UserError, match="holds none of 4 images looked for, such as 000000000001.jpg"):
        source_of(folder, pattern="{image_id:012d}.jpg")
    (folder / "other.json").write_text(json.dumps({"annotations": [annotation(99, ["yes"] * 10)]}))
    with pytest.raises(UserError, match=r"other.json: has no answer to any question of .*they are of other splits"):
        source_of(folder, "other.json")
    with pytest.raises(UserError, match=r"val_questions.json: not a VQAv2 annotations JSON; wanted is \{\"annot"):
        source_of(folder, "val_questions.json")
    with pytest.raises(UserError, match=r"absent.json: No such file.*VQAv2's annotations JSON"):
        source_of(folder, "absent.json")
    entry = annotation(10, ["yes"])
    for bad in ({"answers": ["yes"]}, {"answers": None}, {"answers": [{}]}, {"multiple_choice_answer": 3}):
        (folder / "bad.json").write_text(json.dumps({"annotations": [entry, entry | bad]}))
        with pytest.raises(
            UserError, match=r"bad.json: not of VQAv2's form, see annotations\[1\] .*wanted is .*answers"
        ):
            source_of(folder, "bad.json")
    (folder / "bad.json").write_text(json.dumps({"annotations": [entry, {"question_id": 10}]}))
    with pytest.raises(UserError, match=r"annotations\[1\] has no multiple_choice_answer, answers; fetch"):
        source_of(folder, "bad.json")
    (folder / "val_questions.json").write_text('{"questions": [{"question": "why?", "image_id": 1}, 3]}')
    with pytest.raises(UserError, match=r"questions\[0\] has no question_id"):
        source_of(folder)
    (folder / "val_questions.json").write_text('{"questions": []}')
    with pytest.raises(UserError, match="not a VQAv2 questions JSON"):
        source_of(folder)


def test_training_alone_drops_what_the_vocabulary_cannot_answer(folder):
    source = source_of(folder)
    kept = answerable(source, VOCABULARY)
    assert [kept.key(i) for i in range(len(kept))] == ["10", "11", "20"] and kept.dropped == 1
    assert [kept.questions(i)[0].question_id for i in range(3)] == [10, 11, 20]
    assert kept.image(2).getpixel((5, 5))[0] > 170
    only = answerable(source, ["2"])
    assert [only.key(0), len(only), only.dropped] == ["20", 1, 3] and only.image(0).getpixel((5, 5))[0] > 170
    assert (len(source), source.dropped) == (4, 0)
    assert len(VqaSet([source], TOKENIZER, 12, 32, VOCABULARY)) == 4
    scenes = ScenesSource("val", 3)
    assert answerable(scenes, ["yes"]) is scenes

    class Captions:
        name = "captions"

    with pytest.raises(UserError, match="data.train: captions has no questions; use a source of kind vqa or scenes"):
        answerable(Captions(), VOCABULARY)


def test_vocabulary_counts_normalised_answers_over_all_files(tmp_path):
    """Nine times is enough; the order is that of the first occurrence, of rare spellings too."""
    first = ["a dog", "net", *["yes"] * 9, *["Dog"] * 4, *["cat"] * 8]
    second = ["dog."] * 4 + ["net"] * 8 + ["two", *["2"] * 8, "bird"]
    for name, said in (("train.json", first), ("val.json", second)):
        entries = [annotation(n, [text]) for n, text in enumerate(said)]
        (tmp_path / name).write_text(json.dumps({"annotations": entries}))
    files = [tmp_path / "train.json", tmp_path / "val.json"]
    assert build_vocabulary(files) == ["dog", "net", "yes", "2"]
    assert build_vocabulary(files[:1]) == ["yes"] and build_vocabulary(files, minimum=8)[3] == "cat"
    write_vocabulary(tmp_path / "answers.json", ["dog", "café", ""])
    assert read_vocabulary(tmp_path / "answers.json") == ["dog", "café", ""]
    for content, match in (
        ('["a", "b", "a"]', "names 'a' more than once"),
        ("[]", "not a vocabulary"),
        ('{"yes": 0}', "not a vocabulary"),
        ('["yes", 3]', "not a vocabulary"),
        ("yes", "not valid JSON"),
    ):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(UserError, match=f"bad.json.*{match}"):
            read_vocabulary(tmp_path / "bad.json")


# Samples


def test_reader_gives_targets_of_the_answers_in_the_vocabulary(folder):
    reader, source = VqaReader(TOKENIZER, 12, 32, "none", VOCABULARY), source_of(folder)
    rng = np.random.default_rng(0)
    # 10: cat three times, dog once; pig, said six times, is no label. 20: "two" twice.
    for i, expected in ((0, [0, 0, 0.9, 0.3, 0]), (1, [1, 0, 0, 0, 0]), (2, [0, 0, 0, 0, 0.6])):
        sample = reader(source, i, rng)
        assert sample["targets"].tolist() == pytest.approx(expected) and sample["targets"].dtype == torch.float32
        assert sample["pixels"].shape == (3, 32, 32) and sample["pixels"].dtype == torch.uint8
        assert sample["ids"].shape == sample["mask"].shape == (12,) and sample["mask"].dtype == torch.bool
        assert sample["sample_ids"] == f"val_questions/{(10, 11, 20)[i]}" and sample["truncated"] == 0
        text = TOKENIZER.decode(sample["ids"][sample["mask"]], skip_special_tokens=True)
        assert "".join(text.split()) == QUESTIONS[i][2].replace(" ", "")
    with pytest.raises(BadSample, match="no question with an answer in the vocabulary"):
        reader(source, 3, rng)
    assert VqaReader(TOKENIZER, 4, 32, "none", VOCABULARY)(source, 0, rng)["truncated"] == 1
    with pytest.raises(BadSample, match="no such file"):
        VqaReader(TOKENIZER, 12, 32, "none", ["right"])(source, 3, rng)
    batch = collate([TrainSet(Mixture([source], [1.0], 0), reader)[0, i] for i in range(4)])
    assert batch["targets"].shape == (4, 5) and batch["bad"] == [
        ("val_questions/30", "no question with an answer in the vocabulary")
    ]


def test_reader_mirrors_only_where_no_side_is_spoken_of(folder):
    """Neither in the question (11) nor by an annotator (30)."""
    reader, source = VqaReader(TOKENIZER, 12, 32, "randaugment", [*VOCABULARY, "right"]), source_of(folder)
    Image.new("RGB", (40, 30)).save(folder / "images" / PATTERN.format(image_id=3))
    flips = []

    def transform(image, rng, flip):
        flips.append(flip)
        return torch.zeros(3, 32, 32, dtype=torch.uint8)

    reader.transform = transform
    for i in range(4):
        reader(source, i, np.random.default_rng(i))
    assert flips == [True, False, True, False]


def test_reader_draws_among_the_usable_questions_of_an_image():
    source = ScenesSource("train", 1)
    asked = source.questions(0)
    usable = {q.text for q in asked if q.answers[0] in ("yes", "no")}
    assert 1 < len(usable) < len(asked)
    drawn = set()
    texts = {text.replace(" ", ""): text for text in (q.text for q in asked)}
    reader = VqaReader(TOKENIZER, 40, 32, "none", ["no", "yes"])
    for seed in range(30):
        sample = reader(source, 0, np.random.default_rng(seed))
        text = "".join(TOKENIZER.decode(sample["ids"][sample["mask"]], skip_special_tokens=True).split())
        drawn.add(texts[text])
        (answer,) = {q.answers[0] for q in asked if q.text == texts[text]}
        assert sample["targets"].tolist() == [answer == "no", answer == "yes"]
    assert drawn == usable


def test_scenes_are_answerable():
    labels, source = answers(), ScenesSource("train", 2000, seed=3)
    assert len(set(labels)) == len(labels) and [normalise(label) for label in labels] == labels
    seen, kinds = set(), set()
    for i in range(len(source)):
        asked = source.questions(i)
        assert len({q.question_id for q in asked}) == len(asked) > 1
        for question in asked:
            assert len(question.answers) == 10 and len(set(question.answers)) == 1
            seen.add(question.answers[0])
            kinds.add((question.answer_type, question.question_type))
    assert seen <= set(labels)
    assert set(labels) - seen == set()  # and no label is idle
    number, yes_no = {"total", "count"}, {"exists", "relation"}
    for answer_type, kind in kinds:
        assert answer_type == ("number" if kind in number else "yes/no" if kind in yes_no else "other")


# Evaluation


def test_set_scores_labels_and_writes_predictions(folder):
    entries = [annotation(n, SAID[n], *KINDS[n]) for n in (10, 20, 30)]
    (folder / "some.json").write_text(json.dumps({"annotations": entries}))
    questions = VqaSet([source_of(folder, "some.json")], TOKENIZER, 12, (32, 64), VOCABULARY)
    assert questions.ids == [f"val_questions/{number}" for number in (10, 11, 20, 30)]
    assert {name: getattr(value, "shape", value) for name, value in questions.read(2).items()} == {
        "pixels": (3, 32, 64), "ids": (12,), "mask": (12,), "truncated": 0,
    }  # fmt: skip
    # cat: 3 of 10 = 0.9; 11 is not annotated; "2" for two "two" and eight "3" = 0.6; yes for 30 = 0.
    score = questions.score({3: np.int64(0), 2: np.int64(4), 0: np.int64(2), 1: np.int64(1)})
    assert score.metrics == pytest.approx(
        {
            "vqa/accuracy": 50.0,
            "vqa/other": 45.0,
            "vqa/number": 60.0,
            "vqa/question/what": 90.0,
            "vqa/question/how-many": 60.0,
            "vqa/question/where": 0.0,
        }
    )
    assert score.files == {
        "predictions.json": [
            {"question_id": 10, "answer": "cat"},
            {"question_id": 11, "answer": "no"},
            {"question_id": 20, "answer": "2"},
            {"question_id": 30, "answer": "yes"},
        ]
    }
    assert score.notes == ["1 questions have no annotations: predicted only"]
    blind = VqaSet([source_of(folder, None)], TOKENIZER, 12, 32, VOCABULARY).score({0: np.int64(3)})
    assert blind.metrics == {} and blind.files["predictions.json"] == [{"question_id": 10, "answer": "dog"}]


def test_set_leaves_out_the_questions_of_a_broken_image(folder):
    (folder / "images" / PATTERN.format(image_id=2)).write_bytes(b"\xff\xd8\xff no picture")
    questions = VqaSet([source_of(folder)], TOKENIZER, 12, 32, VOCABULARY)
    (batch,) = questions.loader(rank=0, world=1, batch_size=4, workers=0)
    assert batch["index"].tolist() == [0, 1] and batch["pixels"].shape == (2, 3, 32, 32)
    assert [name for name, _ in batch["bad"]] == ["val_questions/20", "val_questions/30"]
    assert "not a readable image" in batch["bad"][0][1] and "no such file" in batch["bad"][1][1]


# The task

CONFIG = FiberConfig(
    image=ImageConfig(embed_dim=8, depths=(1, 2), heads=(1, 2), window=2, patch=8, drop_path=0.0),
    text=TextConfig(layers=3, hidden=16, heads=2, intermediate=32, vocab=40, positions=30, dropout=0.0),
    fusion_layers=2,
    hidden=12,
    image_size=(32, 32),
    init_std=None,
)


def shaken(task):
    """Far from its start: the gates are open."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return task


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(2)
    mask = torch.tensor([[True] * 8, [True] * 5 + [False] * 3, [True] * 3 + [False] * 5])
    return {
        "pixels": torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=generator),
        "ids": torch.randint(4, 40, (3, 8), generator=generator).masked_fill(~mask, 1),
        "mask": mask,
        "targets": torch.tensor([[1.0, 0, 0, 0.3, 0], [0, 0.9, 0.6, 0, 0], [0, 0, 0, 0, 0]]),
    }


def test_task_loss_by_hand(batch):
    """Binary cross-entropy, summed over the answers, averaged over the batch."""
    task = shaken(VqaTask(CONFIG, labels=5))
    logits = task.batch_logits(batch).detach()
    assert logits.shape == (3, 5)
    total, score = 0.0, 0.0
    for row, targets in zip(logits.tolist(), batch["targets"].tolist()):
        score += targets[row.index(max(row))] / 3
        for x, t in zip(row, targets):
            p = 1 / (1 + math.exp(-x))
            total -= t * math.log(p) + (1 - t) * math.log(1 - p)
    given = task(batch)
    assert given["loss"].item() == pytest.approx(total / 3, rel=1e-5)
    assert given["vqa_score"].item() == pytest.approx(score) and not given["vqa_loss"].requires_grad
    assert task.predict(batch).tolist() == logits.argmax(1).tolist()
    given["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.vqa.parameters())


def test_task_looks_at_image_and_question_and_at_no_padding(batch):
    task = shaken(VqaTask(CONFIG, labels=5)).eval()
    logits = task.batch_logits(batch)
    for name in ("pixels", "ids"):
        changed = task.batch_logits(batch | {name: batch[name].roll(1, dims=0), "mask": batch["mask"]})
        assert (changed - logits).abs().max() > 1e-3
    short = {name: batch[name][2:, :3] if name in ("ids", "mask") else batch[name][2:] for name in batch}
    torch.testing.assert_close(task.batch_logits(short), logits[2:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [VqaTask, Nlvr2Task], ids=lambda make: make.__name__)
def test_tasks_start_from_a_coarse_checkpoint(make):
    """`--init-from`: what the task has beyond it is new, what it lacks is left out, the rest is copied; all by name."""
    other = {"labels": 5} if make is VqaTask else {}
    head = "vqa." if make is VqaTask else "nlvr2."
    for start in (CoarseTask(CONFIG, queue_size=3), RetrievalTask(CONFIG)):
        weights = checkpoint.float32(checkpoint.named_weights(shaken(start)))
        task = make(CONFIG, **other)
        before = {name: value.clone() for name, value in task.state_dict().items()}
        expected = {"expect_missing": task.NEW, "expect_unexpected": task.DROPPED}
        fresh, dropped = checkpoint.load_into(task, weights, **expected)
        assert fresh == sorted(name for name in before if name.startswith(head)) and len(fresh) == 6
        assert set(dropped) == {name for name in weights if not name.startswith(("encoder.", "pool."))}
        for name, value in task.state_dict().items():
            assert torch.equal(value, before[name] if name in fresh else weights[name]), name
        with pytest.raises(UserError, match=rf"6 missing, {len(dropped)} unexpected"):
            checkpoint.load_into(task, weights)
    # The head of one downstream task is nothing that another may lose without a word.
    rest = Nlvr2Task(CONFIG) if make is VqaTask else VqaTask(CONFIG, labels=5)
    with pytest.raises(UserError, match="0 missing, 6 unexpected"):
        checkpoint.load_into(task, checkpoint.named_weights(rest), **expected)
