"""BLEU, METEOR, ROUGE-L, CIDEr and SPICE of captions, by pycocoevalcap on its own tokenisation, which needs Java."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pycocoevalcap
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.spice.spice import Spice
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

#: BLEU of up to so many words in a row.
ORDERS = 4
FOLDER = Path(pycocoevalcap.__path__[0])
#: What SPICE would download the first time it is used.
SPICE_FILES = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
#: Ends the name of a metric that was computed without Java.
PLAIN_TOKENS = " (plain tokens)"

#: Image number → tokenised texts, as pycocoevalcap has them.
TextsOfImages = dict[int, list[str]]


class Captions(NamedTuple):
    """Captions, one an image, and the references of each, at least one."""

    hypotheses: Sequence[str]
    references: Sequence[Sequence[str]]

    @property
    def texts(self) -> list[str]:
        """All of them, the captions first."""
        texts = [*self.hypotheses]
        for of_image in self.references:
            texts.extend(of_image)
        return texts


class Tokenized(NamedTuple):
    """References and captions, tokenised."""

    truth: TextsOfImages
    results: TextsOfImages


class LeftOut(Exception):
    """Why a metric is not computed."""


def caption_metrics(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float], list[str]]:
    """Percentages `caption/bleu1` to `bleu4`, `rouge_l`, `cider`, `meteor` and `spice` of one caption an image against
    its references, at least one; and notes on what is left out and why. Without Java only what needs none is computed,
    on a plain tokenisation and with that in the name, as in `caption/cider (plain tokens)`."""
    return grouped_caption_metrics([Captions(hypotheses, references)])[0]


def grouped_caption_metrics(groups: Sequence[Captions]) -> list[tuple[dict[str, float], list[str]]]:
    """`caption_metrics` of each group. METEOR's program is started once, which takes as long as many captions."""
    if not groups:
        return []
    texts: list[str] = []
    for group in groups:
        texts += group.texts
    try:
        tokenized = _by_group(ptb_tokens(texts), groups)
    except (OSError, subprocess.CalledProcessError) as error:
        note = (
            "METEOR, SPICE and the standard tokeniser are left out because Java, which they need, does not run "
            f"({error}): install a Java runtime. BLEU, ROUGE-L and CIDEr are of plain lower-cased words, so not to be "
            "compared"
        )
        tokenized = _by_group(plain_tokens(texts), groups)
        return [_plain_metrics(group, note) for group in tokenized]
    return list(map(_standard_metrics, tokenized, _meteors(tokenized)))


def _plain_metrics(tokenized: Tokenized, note: str) -> tuple[dict[str, float], list[str]]:
    scores = _python_scores(tokenized)
    return _percentages(scores, suffix=PLAIN_TOKENS), [note, *_notes_on_cider(scores, len(tokenized.truth))]


def _standard_metrics(tokenized: Tokenized, meteor: float) -> tuple[dict[str, float], list[str]]:
    scores = _python_scores(tokenized)
    scores["meteor"] = meteor
    notes = _notes_on_cider(scores, len(tokenized.truth))
    try:
        scores["spice"] = _spice(tokenized)
    except LeftOut as reason:
        notes.append(f"SPICE is left out: {reason}")
    return _percentages(scores), notes


def _by_group(tokenized: Sequence[str], groups: Sequence[Captions]) -> list[Tokenized]:
    """The texts of all groups, as `Captions.texts` has those of each."""
    tokens = iter(tokenized)
    of_groups = []
    for group in groups:
        of_groups.append(_by_image(tokens, group.references))
    return of_groups


def _by_image(tokens: Iterator[str], references: Sequence[Sequence[str]]) -> Tokenized:
    """The next captions, one an image, and the references, which stand behind them."""
    results: TextsOfImages = {}
    truth: TextsOfImages = {}
    for image in range(len(references)):
        results[image] = [next(tokens)]
    for image, of_image in enumerate(references):
        truth[image] = list(islice(tokens, len(of_image)))
    return Tokenized(truth, results)


def _percentages(scores: dict[str, float], *, suffix: str = "") -> dict[str, float]:
    return {f"caption/{name}{suffix}": 100 * float(score) for name, score in scores.items()}


def ptb_tokens(texts: Sequence[str]) -> list[str]:
    """Every text lower-cased, in Penn Treebank tokens joined by one space, without punctuation. OSError or
    CalledProcessError where Java is missing or fails.

    Runs pycocoevalcap's tokeniser over pipes; its wrapper writes into the package's folder and loses empty last texts.
    """
    lines = "".join(map(_one_line, texts))
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(FOLDER / "tokenizer" / STANFORD_CORENLP_3_4_1_JAR)]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    finished = subprocess.run(command, input=lines.encode(), capture_output=True, check=True)
    tokenized = finished.stdout.decode().split("\n")[:-1]
    assert len(tokenized) == len(texts), (len(tokenized), len(texts))
    return list(map(_without_punctuation, tokenized))


def _one_line(text: str) -> str:
    """One line a text, whatever Java takes for the end of a line; METEOR separates texts by |||."""
    return " ".join(text.replace("|||", " ").split()) + "\n"


def _without_punctuation(line: str) -> str:
    return " ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATIONS)


def plain_tokens(texts: Sequence[str]) -> list[str]:
    """Every text in lower-cased words joined by one space."""
    return [" ".join(re.findall(r"\w+", text.lower())) for text in texts]


def _python_scores(tokenized: Tokenized) -> dict[str, float]:
    """What needs no Java."""
    scores = {}
    bleu, _ = Bleu(ORDERS).compute_score(*tokenized, verbose=0)
    for order, score in enumerate(bleu, 1):
        scores[f"bleu{order}"] = score
    scores["rouge_l"], _ = Rouge().compute_score(*tokenized)
    scores["cider"], _ = Cider().compute_score(*tokenized)
    return scores


def _notes_on_cider(scores: dict[str, float], images: int) -> list[str]:
    """Why it is 0, where captions share words with their references."""
    if scores["cider"] > 0 or scores["rouge_l"] == 0:
        return []
    rarity = "CIDEr is 0 because it weighs a word by how few of the evaluated images have it in their references"
    if images == 1:
        return [f"{rarity}, and this is one image alone: evaluate more"]
    return [f"{rarity}, and all {images} have the words that captions and references share: evaluate more"]


def _meteors(groups: Sequence[Tokenized]) -> list[float]:
    """Of each group, by one process."""
    meteor = Meteor()
    scores = []
    with meteor.meteor_p as process:
        try:
            for tokenized in groups:
                score, _ = meteor.compute_score(*tokenized)
                scores.append(score)
        finally:
            process.kill()
    return scores


def _spice(tokenized: Tokenized) -> float:
    """Raises `LeftOut`."""
    if not all((FOLDER / "spice" / "lib" / file).is_file() for file in SPICE_FILES):
        command = "python -m pycocoevalcap.spice.get_stanford_models"
        raise LeftOut(f"its CoreNLP models are not installed; to fetch them (about 400 MB), run {command}")
    try:
        score, _ = Spice().compute_score(*tokenized)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LeftOut(f"its program failed ({error}); it was made for Java 8") from error
    return score
