"""Captions of the scenes, read by the independent reader."""

import re
from itertools import pairwise, product

import numpy as np
from scene_reading import NUMBERS, RELATION, attributes, having, lies, relation_of

from fiber_cli.data.scenes.captions import MAX_WORDS, captions
from fiber_cli.data.scenes.layout import scene


def claims_in(caption) -> set[tuple]:
    """What a caption says of the layout, read from the words between its phrases."""
    text, claims = caption.text, set()
    if tone := re.search(r", (on|against) a (\w+) background$", text):
        claims.add((tone[2],))
        text = text[: tone.start()]
    phrases = [phrase for phrase in caption.phrases if len(phrase.objects) == 1]
    order = [phrase.objects[0] for phrase in phrases]
    if len(phrases) < len(caption.phrases):
        (group,) = (phrase for phrase in caption.phrases if len(phrase.objects) > 1)
        claims.add(("count", NUMBERS[text[group.start : group.end].split()[0]]))
    if course := re.search("(left|right|top|bottom) to (left|right|top|bottom)", text):
        forwards = order if course[1] in ("left", "top") else order[::-1]
        relation = "left" if course[1] in ("left", "right") else "above"
        return claims | {(relation, i, j) for i, j in pairwise(forwards)}
    edges = [0, *(edge for phrase in phrases for edge in (phrase.start, phrase.end)), len(text)]
    between = [text[edges[k] : edges[k + 1]] for k in range(0, len(edges), 2)]
    place = "(top|bottom|upper|lower|left|right|middle|centre)"
    names = {"upper": "top", "lower": "bottom", "centre": "middle"}
    place_first = re.search(place, between[0])
    for k, words in enumerate(between):
        if relation := re.search(RELATION, words):
            subject = order[0] if words.startswith(" and ") else order[k - 1]
            claims.add((relation_of(relation[1]), subject, order[k]))
        else:
            places = re.findall(place, words)
            claims |= {(names.get(word, word), order[k if place_first else k - 1]) for word in places}
    return claims


def fits(caption, one) -> bool:
    """Whether what the caption says is true of a scene, generously: no margins."""
    said = [phrase for phrase in caption.phrases if len(phrase.objects) == 1]
    candidates = []
    for start, end, _ in said:
        candidates.append(having(one, caption.text[start:end]))
        if not candidates[-1]:
            return False
    names = [phrase.objects[0] for phrase in said]

    def holds(claim: tuple, where: dict[int, int]) -> bool:
        word, *rest = claim
        if word == "count":
            return len(one.objects) == rest[0]
        if word in ("dark", "light"):
            return one.tone == word
        if len(rest) == 2:
            return lies(one, word, where[rest[0]], where[rest[1]])
        x, y = (value / one.image_size for value in one.objects[where[rest[0]]].centre)
        near = abs(x - 0.5) < 0.15 and abs(y - 0.5) < 0.15
        return {"left": x < 0.5, "right": x > 0.5, "top": y < 0.5, "bottom": y > 0.5, "middle": near}[word]

    claims = claims_in(caption)
    for chosen in product(*candidates):
        where = dict(zip(names, chosen, strict=True))
        if len(set(chosen)) == len(chosen) and all(holds(claim, where) for claim in claims):
            return True
    return False


def test_captions_name_all_objects_where_they_say(some_scenes):
    forms = set()
    for one in some_scenes:
        made = captions(one)
        assert 4 <= len(made) <= 6
        assert len({caption.text for caption in made}) == len(made)
        for caption in made:
            named = [phrase.objects[0] for phrase in caption.phrases if len(phrase.objects) == 1]
            assert sorted(named) == list(range(len(one.objects)))
            assert all(a.end < b.start for a, b in pairwise(caption.phrases))
            for start, end, objects in caption.phrases:
                if len(objects) == 1:
                    said = attributes(caption.text[start:end])
                    assert {"colour", "shape"} <= set(said)
                    assert said.items() <= vars(one.objects[objects[0]]).items()
                    article, first = caption.text[start:end].split()[:2]
                    assert article == ("an" if first == "orange" else "a")
                else:
                    assert objects == tuple(range(len(one.objects)))
            claims, count = claims_in(caption), len(one.objects)
            if ("count", count) in claims:
                assert claims == {("count", count), (one.tone,)}
            else:  # of each object it is said where it is
                assert {number for _, *numbers in claims for number in numbers} == set(range(count)), caption
            assert fits(caption, one), caption
            forms.add(re.sub(r"\b(an?) [\w ]*?(?=,| and|:|$)", "_", caption.text))
    assert len(forms) > 60


def test_captions_tell_their_scene_from_199_others(some_scenes):
    every = [caption for one in some_scenes for caption in captions(one)]
    unique = [sum(fits(caption, other) for other in some_scenes) == 1 for caption in every]
    assert np.mean(unique) >= 0.97
    print(f"{100 * np.mean(unique):.2f}% of {len(unique)} captions fit one of {len(some_scenes)} scenes")


def test_captions_do_not_depend_on_the_size(some_scenes):
    assert captions(scene(0, "val", 3, 192)) == captions(some_scenes[3])


def test_captions_are_short_enough_for_the_model(some_scenes):
    lengths = [len(re.findall(r"\w+|[^\w\s]", caption.text)) for one in some_scenes for caption in captions(one)]
    assert max(lengths) == MAX_WORDS == 38
