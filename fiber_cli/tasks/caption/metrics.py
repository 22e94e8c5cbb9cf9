"""BLEU, METEOR, ROUGE-L, CIDEr and SPICE of captions, by pycocoevalcap on its own tokenisation, which needs Java."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pycocoevalcap
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.spice.spice import Spice
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

FOLDER = Path(pycocoevalcap.__path__[0])
#: What SPICE would download the first time it is used.
SPICE_FILES = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def caption_metrics(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float], list[str]]:
    """Percentages `caption/bleu1` to `bleu4`, `rouge_l`, `cider`, `meteor` and `spice` of one caption an image against
    its references, at least one; and notes on what is left out and why. Without Java only what needs none is computed,
    on a plain tokenisation and with that in the name, as in `caption/cider (plain tokens)`."""
    texts = [*hypotheses, *(text for own in references for text in own)]
    suffix, notes = "", []
    try:
        tokenized = iter(ptb_tokens(texts))
    except (OSError, subprocess.CalledProcessError) as error:
        suffix = " (plain tokens)"
        notes.append(
            f"METEOR, SPICE and the standard tokeniser are left out because Java, which they need, does not run ({error}"
            "): install a Java runtime. BLEU, ROUGE-L and CIDEr are of plain lower-cased words, so not to be compared"
        )
        tokenized = iter([" ".join(re.findall(r"\w+", text.lower())) for text in texts])
    results = {i: [next(tokenized)] for i in range(len(hypotheses))}
    truth = {i: [next(tokenized) for _ in own] for i, own in enumerate(references)}
    bleu, _ = Bleu(4).compute_score(truth, results, verbose=0)
    scores = {f"bleu{n}": score for n, score in enumerate(bleu, 1)}
    scores["rouge_l"], _ = Rouge().compute_score(truth, results)
    scores["cider"], _ = Cider().compute_score(truth, results)
    if not suffix:
        scores["meteor"] = _meteor(truth, results)
        spice = _spice(truth, results)
        if isinstance(spice, str):
            notes.append(spice)
        else:
            scores["spice"] = spice
    return {f"caption/{name}{suffix}": 100 * float(score) for name, score in scores.items()}, notes


def ptb_tokens(texts: Sequence[str]) -> list[str]:
    """Every text lower-cased, in Penn Treebank tokens joined by one space, without punctuation. OSError or
    CalledProcessError where Java is missing or fails.

    Runs pycocoevalcap's tokeniser over pipes; its wrapper writes into the package's folder and loses empty last texts.
    """
    # One line a text, whatever Java takes for the end of a line; METEOR separates texts by |||.
    lines = "".join(" ".join(text.replace("|||", " ").split()) + "\n" for text in texts)
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(FOLDER / "tokenizer" / STANFORD_CORENLP_3_4_1_JAR)]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    done = subprocess.run(command, input=lines.encode(), capture_output=True, check=True)
    tokenized = done.stdout.decode().split("\n")[:-1]
    assert len(tokenized) == len(texts), (len(tokenized), len(texts))
    return [" ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATIONS) for line in tokenized]


def _meteor(truth: dict[int, list[str]], results: dict[int, list[str]]) -> float:
    meteor = Meteor()
    with meteor.meteor_p as process:
        try:
            return meteor.compute_score(truth, results)[0]
        finally:
            process.kill()


def _spice(truth: dict[int, list[str]], results: dict[int, list[str]]) -> float | str:
    """The score, or why there is none."""
    if not all((FOLDER / "spice" / "lib" / file).is_file() for file in SPICE_FILES):
        get = "python -m pycocoevalcap.spice.get_stanford_models"
        return f"SPICE is left out: its CoreNLP models are not installed; to fetch them (about 400 MB), run {get}"
    try:
        return Spice().compute_score(truth, results)[0]
    except (OSError, subprocess.CalledProcessError) as error:
        return f"SPICE is left out: its program failed ({error}); it was made for Java 8"
