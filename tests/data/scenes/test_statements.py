"""Statements about scenes, judged by the independent reader."""

import re
from itertools import pairwise

from scene_reading import NUMBERS, RELATION, guessing, having, lies, relation_of, the_one

from fiber_cli.data.scenes.statements import pair_statements, statements


def truth(one, text: str) -> bool:
    if match := re.fullmatch(f"(the .*?) is {RELATION} (the .*)", text):
        return lies(one, relation_of(match[2]), the_one(one, match[1]), the_one(one, match[3]))
    if match := re.fullmatch("there (?:is|are) exactly (one|two|three) (.*)", text):
        return len(having(one, match[2])) == NUMBERS[match[1]]
    if match := re.fullmatch("there are more (.*) than (.*)", text):
        return len(having(one, match[1])) > len(having(one, match[2]))
    if match := re.fullmatch("there is no (.*)", text):
        return not having(one, match[1])
    if match := re.fullmatch("(?:there is|the picture shows) (an? .*)", text):
        return bool(having(one, match[1]))
    match = re.fullmatch("(the .*) is (.*)", text)
    return the_one(one, match[1]) in having(one, match[2])


def pair_truth(left, right, text: str) -> bool:
    sides = {"left": (left, right), "right": (right, left)}
    if match := re.fullmatch(r"both (?:image|picture)s have a (\w+) background", text):
        return left.tone == right.tone == match[1]
    if match := re.fullmatch(r"only the (\w+) (?:image|picture) has a (\w+) background", text):
        this, that = sides[match[1]]
        return this.tone == match[2] != that.tone
    if match := re.fullmatch("both (?:image|picture)s contain (.*)", text):
        return bool(having(left, match[1]) and having(right, match[1]))
    if match := re.fullmatch("only one of the two (?:image|picture)s shows (.*)", text):
        return bool(having(left, match[1])) != bool(having(right, match[1]))
    if match := re.fullmatch(r"(an? .*) is in the (\w+) (?:image|picture)", text):
        return bool(having(sides[match[2]][0], match[1]))
    if match := re.fullmatch(r"the (\w+) (?:image|picture) has more (.*) than the other one", text):
        this, that = sides[match[1]]
        return len(having(this, match[2])) > len(having(that, match[2]))
    match = re.fullmatch(r"there are exactly (\w+) (.*) in the two (?:image|picture)s", text)
    return len(having(left, match[2])) + len(having(right, match[2])) == NUMBERS[match[1]]


def test_statements_are_true_or_false_as_said_and_wording_does_not_tell(many_scenes):
    said = [(one, statement) for one in many_scenes for statement in statements(one)]
    assert all(truth(one, text) == label for one, (text, label, *_) in said)
    assert guessing([(text, str(label)) for _, (text, label, *_) in said]) < 0.53
    assert min(len(statements(one)) for one in many_scenes) >= 2


def test_pair_statements_are_true_or_false_as_said_and_wording_does_not_tell(many_scenes):
    pairs = [(left, right, s) for left, right in pairwise(many_scenes) for s in pair_statements(left, right)]
    assert all(pair_truth(left, right, text) == label for left, right, (text, label, *_) in pairs)
    assert guessing([(text, str(label)) for _, _, (text, label, *_) in pairs]) < 0.53
    assert len(pairs) > 3 * len(many_scenes)


def test_statements_about_the_same_pictures_count_together(some_scenes):
    for left, right in pairwise(some_scenes[:30]):
        about_one, about_two = statements(left), pair_statements(left, right)
        assert {statement.group for statement in about_one} == {left.key}
        assert {statement.group for statement in about_two} == {f"{left.key}|{right.key}"}
        for group in (about_one, about_two):
            numbers = [statement.identifier.removeprefix(f"{statement.group}-") for statement in group]
            assert numbers == [str(number) for number in range(len(group))]
