"""Claims that a coin decides."""

import itertools
import random

from scene_reading import NUMBERS, having, lies, relation_of, the_one

from fiber_cli.data.scenes.claims import exact_count_claim, fair_choice, relation_claim


def test_a_choice_is_fair_and_made_only_where_both_could_be():
    rng = random.Random(0)
    assert fair_choice(rng, ["a"], []) is None
    assert fair_choice(rng, [], ["a"]) is None
    choices = [fair_choice(rng, ["a", "b"], ["c"]) for _ in range(1000)]
    assert set(choices) == {("a", True), ("b", True), ("c", False)}
    assert 420 < choices.count(("c", False)) < 580


def test_no_draw_is_lost_where_no_choice_is_made():
    """Otherwise every later text of a scene would be another one."""
    rng, untouched = random.Random(0), random.Random(0)
    fair_choice(rng, ["a"], [])
    assert rng.random() == untouched.random()


def test_relations_are_as_claimed(some_scenes):
    made = 0
    for one in some_scenes:
        claim = relation_claim(random.Random(one.key), one)
        if claim is not None:
            first, second = the_one(one, claim.subject), the_one(one, claim.reference)
            assert lies(one, relation_of(claim.relation), first, second) == claim.label
            made += 1
    assert made > 100


def test_exact_counts_are_as_claimed(some_scenes):
    labels = []
    for number in (1, 2, 3):
        for pair in itertools.pairwise(some_scenes):
            claim = exact_count_claim(random.Random(f"{pair[0].key} {number}"), pair, number, " here")
            if claim is not None:
                verb, _, said, *words = claim.text.removeprefix("there ").removesuffix(" here").split()
                assert NUMBERS[said] == number
                assert verb == ("is" if number == 1 else "are")
                count = sum(len(having(one, " ".join(words))) for one in pair)
                assert (count == number) == claim.label
                labels.append(claim.label)
    assert 0.4 < sum(labels) / len(labels) < 0.6
