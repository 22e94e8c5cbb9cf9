"""Questions about the scenes, answered by the independent reader."""

import math
import re
from collections import Counter, defaultdict

from scene_reading import RELATION, guessing, having, lies, relation_of, the_one

from fiber_cli.data.records import ANNOTATORS
from fiber_cli.data.scenes.layout import scene
from fiber_cli.data.scenes.questions import answers, questions


def answer(one, question) -> str:
    text = question.text.removesuffix("?")
    if question.question_type in ("size", "texture", "colour", "shape"):
        named = re.search(r"the ([\w ]+?)( small or large| large or small| have)?$", text)[1]
        return getattr(one.objects[the_one(one, named)], question.question_type)
    if question.question_type in ("total", "count"):
        return str(len(having(one, re.search("how many (.*) (are there|do you see)", text)[1])))
    if question.question_type == "exists":
        return "yes" if having(one, re.search(r"\ban? .*", text)[0]) else "no"
    if question.question_type == "relation":
        first, words, second = re.fullmatch(f"is (the .*?) {RELATION} (the .*)", text).groups()
        return "yes" if lies(one, relation_of(words), the_one(one, first), the_one(one, second)) else "no"
    x, y = one.objects[the_one(one, re.search("the .*", text)[0])].centre
    middle = one.image_size / 2
    return f"{'top' if y < middle else 'bottom'} {'left' if x < middle else 'right'}"


def test_questions_have_one_answer_that_only_the_picture_gives(many_scenes):
    samples_of = defaultdict(list)
    for one in many_scenes:
        for question in questions(one):
            assert answer(one, question) == question.answers[0], question
            samples_of[question.question_type].append((question.text, question.answers[0]))
    chance = {"size": 2, "texture": 3, "colour": 8, "shape": 8, "total": 3, "count": 3}
    chance |= {"exists": 2, "relation": 2, "position": 4}
    assert set(samples_of) == set(chance)
    for kind, choices in chance.items():
        samples = samples_of[kind]
        assert len(samples) > 400
        assert len({label for _, label in samples}) == choices
        # Four standard deviations of a guesser that knows nothing.
        spread = 4 * math.sqrt((choices - 1) / choices**2 / len(samples))
        assert guessing(samples) < 1 / choices + math.sqrt(2) * spread, kind
        shares = Counter(label for _, label in samples).values()
        assert max(abs(share / len(samples) - 1 / choices) for share in shares) < spread, kind


def test_questions_do_not_depend_on_the_size(some_scenes):
    assert questions(scene(0, "val", 3, 192)) == questions(some_scenes[3])


def test_every_answer_is_listed_and_given(many_scenes):
    given = set()
    for one in many_scenes:
        for question in questions(one):
            assert question.answers == (question.answers[0],) * ANNOTATORS
            given.add(question.answers[0])
    listed = answers()
    assert len(set(listed)) == len(listed)
    assert given <= set(listed)
    assert set(listed) - given <= {"0", "1"}  # of the numbers that a total never is


def test_questions_are_numbered_and_typed_as_vqav2_has_them(some_scenes):
    for one in some_scenes[:40]:
        for number, question in enumerate(questions(one)):
            assert question.question_id == f"{one.key}-{number}"
            wanted = "other"
            if question.question_type in ("exists", "relation"):
                wanted = "yes/no"
            elif question.question_type in ("total", "count"):
                wanted = "number"
            assert question.answer_type == wanted
