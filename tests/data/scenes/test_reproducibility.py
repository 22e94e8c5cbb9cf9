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
#: Of the texts of version 0.2.0.
TEXTS = "e517726ca597078d83ccc7e5d8a8e5e78a955bdfa70c2e5e3690250db3d06727"


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


def test_texts_are_other_ones_than_in_the_last_version(digests):
    assert digests[0][0] == TEXTS
