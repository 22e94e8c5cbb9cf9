"""VQA accuracy as the official evaluator of VQAv2 computes it, its peculiarities included, and soft targets."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

#: With so many annotators of one mind, their answer has an accuracy of 1.
FULL_AGREEMENT = 4
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
#: The evaluator passes a flag of value 32 where the number of replacements belongs.
_MAX_PERIODS = 32
_ARTICLES = {"a", "an", "the"}
_NUMBERS = "zero one two three four five six seven eight nine ten"
_DIGITS = {"none": "0"} | {word: str(n) for n, word in enumerate(_NUMBERS.split())}
#: Each is restored where one of its apostrophes is missing. The evaluator knows no other ("lets", "shes", "wed", "id"
#: and so on stay), its forms with a capital I never match lower case, and one entry of it goes the wrong way.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_REPAIRED = {"somebody'd": "somebodyd"} | {
    word[: mark.start()] + word[mark.end() :]: word for word in _CONTRACTIONS.split() for mark in re.finditer("'", word)
}


@lru_cache(maxsize=1 << 18)
def normalise(answer: str) -> str:
    """Lower case without articles and punctuation, number words up to ten as digits, apostrophes restored.

    A punctuation mark becomes a space, but nothing where it stands beside a space anywhere in the answer or where a
    comma stands between two digits. A period goes unless a digit follows it.
    """
    text = bare = clean(answer)
    glue = bool(_DIGIT_COMMA.search(bare))
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in bare or f" {mark}" in bare
        text = text.replace(mark, "" if glue or beside_space else " ")
    words = (_DIGITS.get(word, word) for word in _PERIOD.sub("", text, count=_MAX_PERIODS).lower().split())
    return " ".join(_REPAIRED.get(word, word) for word in words if word not in _ARTICLES)


def clean(answer: str) -> str:
    """What the evaluator does to every answer: line breaks and tabs to spaces, no spaces at the ends."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def accuracy(answer: str, annotators: Sequence[str]) -> float:
    """Accuracy in [0, 1]: the mean over annotators of min(1, how many of the others say the same / 3).

    Answers are normalised only if the annotators disagree; otherwise even the case of letters counts.
    """
    annotators, answer = [clean(other) for other in annotators], clean(answer)
    if len(set(annotators)) > 1:
        annotators, answer = [normalise(other) for other in annotators], normalise(answer)
    agreeing = annotators.count(answer)
    return sum(min(1.0, (agreeing - (other == answer)) / 3) for other in annotators) / len(annotators)


def accuracies(results: Iterable[tuple[float, str, str]]) -> dict[str, float]:
    """Percentages from (accuracy, answer type, question type) of every question: `vqa/accuracy`, `vqa/yes-no` and so
    on by answer type, `vqa/question/…` by question type."""
    values: dict[str, list[float]] = {}
    for value, answer_type, question_type in results:
        for name in ("accuracy", answer_type.replace("/", "-"), f"question/{question_type}"):
            values.setdefault(f"vqa/{name.replace(' ', '-')}", []).append(value)
    return {name: 100.0 * sum(found) / len(found) for name, found in values.items()}


def soft_targets(annotators: Sequence[str]) -> dict[str, float]:
    """Normalised answer → 0.3, 0.6, 0.9 or 1, for 1, 2, 3 or at least 4 annotators who gave it."""
    return {answer: (0.3, 0.6, 0.9, 1.0)[min(n, 4) - 1] for answer, n in Counter(map(normalise, annotators)).items()}
