"""All that is made of scenes is the same on every machine and in every version: results name scenes by number only."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import hashlib

from fiber_cli.data.scenes.captions import captions
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.expressions import expressions
from fiber_cli.data.scenes.layout import scene
from fiber_cli.data.scenes.questions import questions
from fiber_cli.data.scenes.statements import pair_statements, statements

scenes = [scene(0, "val", index) for index in range(40)]
texts = []
for one, other in zip(scenes, scenes[1:]):
    texts += [caption.text for caption in captions(one)]
    texts += [f"{question.text} {question.answers[0]}" for question in questions(one)]
    texts += [f"{statement.text} {statement.label}" for statement in statements(one)]
    texts += [f"{statement.text} {statement.label}" for statement in pair_statements(one, other)]
    texts += [f"{expression.text} {expression.object}" for expression in expressions(one)]
print(hashlib.sha256("\\n".join(texts).encode()).hexdigest(), hashlib.sha256(draw(scenes[0]).tobytes()).hexdigest())
"""
#: Of the texts of version 0.1.0.
TEXTS = "7eede0f20cfebb8305f4f6a4efa45b39f56bdc245edb3e3558e7a73394cef644"


@pytest.fixture(scope="module")
def digests() -> list[list[str]]:
    """Of the texts and of a picture, by two processes with different orders of sets."""
    outputs = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        )
        outputs.append(ended.stdout.split())
    return outputs


def test_nothing_depends_on_the_order_of_sets(digests):
    assert digests[0] == digests[1]


def test_texts_are_those_of_earlier_versions(digests):
    assert digests[0][0] == TEXTS
