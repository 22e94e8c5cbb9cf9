"""The official accuracy of VQA, against one written anew and by hand."""

import hashlib
import random

import pytest

from fiber_cli.tasks.vqa import metrics
from fiber_cli.tasks.vqa.metrics import accuracies, accuracy, normalise, soft_targets

#: Some of what the evaluator restores; None: what it might be thought to restore and does not.
CONTRACTIONS = {
    "dont": "don't",
    "itll": "it'll",
    "someonell": "someone'll",
    "couldntve": None,
    "couldn'tve": "couldn't've",
    "somebody'd": "somebodyd",
    "twas": "'twas",
    "oclock": "o'clock",
    "ow's'at": "'ow's'at",
    "y'allll": "y'all'll",
    "lets": None,
    "shes": None,
    "id": None,
    "cannot": None,
    "im": None,
    "mustnt've": None,
    "whereve": "where've",
    "somebodyll": "somebody'll",
    "couldnt've": "couldn't've",
}
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
PUNCTUATION = '[](){}<>@`_=+-/\\;,?!"'


def spelled(text: str) -> str:
    """Normalised letter by letter, by rules read off the evaluator."""
    words = []
    for word in without_periods(without_punctuation(text)).lower().split():
        if word == "none":
            word = "0"
        elif word in NUMBERS:
            word = str(NUMBERS.index(word))
        if word not in ("a", "an", "the"):
            words.append(CONTRACTIONS.get(word) or word)
    return " ".join(words)


def without_punctuation(text: str) -> str:
    thousands = any(
        mark == "," and before.isdigit() and after.isdigit()
        for before, mark, after in zip(text, text[1:], text[2:], strict=False)
    )
    letters = []
    for letter in text:
        if letter in PUNCTUATION:
            letter = "" if thousands or stands_beside_a_space(letter, text) else " "
        letters.append(letter)
    return "".join(letters)


def stands_beside_a_space(mark: str, text: str) -> bool:
    for at, letter in enumerate(text):
        if letter == mark and " " in (text[at - 1] if at else "", text[at + 1 : at + 2]):
            return True
    return False


def without_periods(text: str) -> str:
    """The first 32 that no digit follows."""
    kept, taken = "", 0
    for at, letter in enumerate(text):
        if letter == "." and not text[at + 1 : at + 2].isdigit() and taken < 32:
            taken += 1
        else:
            kept += letter
    return kept


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


@pytest.mark.parametrize(("count", "expected"), [*enumerate((0, 0.3, 0.6, 0.9, 1, 1, 1))])
def test_accuracy_by_hand(count, expected):
    """3 of 10 say so: each of the three agrees with two others (2/3), each of the seven with three (1): 9/10."""
    annotators = [f"other {n}" for n in range(10)]
    annotators[:count] = ["a cat"] * count
    assert accuracy("The cat.", annotators) == pytest.approx(expected)


def test_answers_are_normalised_only_if_annotators_disagree():
    assert accuracy("yes", ["Yes"] * 10) == 0
    assert accuracy("Yes", ["Yes"] * 10) == 1
    assert accuracy("yes", ["Yes"] * 9 + ["no"]) == 1
    assert accuracy("0", ["none"] * 10) == 0
    assert accuracy("none", ["none"] * 10) == 1
    assert accuracy("0", ["none"] * 6 + ["zero"] * 4) == 1


def test_line_breaks_and_outer_spaces_never_count():
    """So that these annotators agree."""
    assert accuracy("yes", ["Yes"] * 5 + ["Yes\n"] * 5) == 0
    assert accuracy("Yes\t", ["Yes"] * 5 + [" Yes\n"] * 5) == 1


BY_HAND = {
    "T-Shirt": "t shirt",
    "black - white": "black white",
    "red,white": "red white",
    "red, white": "red white",
    "red,white, blue": "redwhite blue",
    "red ,white,blue": "red whiteblue",
    "1,000": "1000",
    "1,000 t-shirts": "1000 tshirts",
    "yes!": "yes",
    "(left)": "left",
    "up [or] down": "up or down",
    "a.m.": "am",
    "3.5": "3.5",
    "5.": "5",
    "1..5": "1.5",
    "x" + "." * 33: "x.",
    "10:30": "10:30",
    "$5": "$5",
    "the dog's": "dog's",
    "The A an": "",
    "none": "0",
    "Ten": "10",
    "eleven": "eleven",
    "no-one": "no 1",
    "one's": "one's",
    "dont": "don't",
    "don't": "don't",
    "lets": "lets",
    "Im": "im",
    "somebody'd": "somebodyd",
    "somebodyll": "somebody'll",
    "  two \n dogs\t": "2 dogs",
    "couldntve": "couldntve",
    "couldnt've": "couldn't've",
    "what_is": "what is",
}


@pytest.mark.parametrize(("answer", "expected"), BY_HAND.items())
def test_normalisation_by_hand(answer, expected):
    assert normalise(answer) == expected
    assert spelled(answer.replace("\n", " ").replace("\t", " ").strip()) == expected


def test_every_contraction_of_the_evaluator():
    """The digest is of the evaluator's own table, without the entries that change nothing or hold a capital I, which
    its lower-case words never are."""
    lines = "\n".join(f"{broken} {whole}" for broken, whole in sorted(metrics._REPAIRED.items()))
    assert len(metrics._REPAIRED) == 114
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
    assert soft_targets(["yes"] * 10) == {"yes": 1.0}
    assert soft_targets([]) == {}
