"""Names drawn for a training prompt, against the published function's stored results and rules."""

import numpy as np

from fiber_cli.data.coco_json import BACKGROUND
from fiber_cli.tasks.regions.label_sampling import sample_labels
from fiber_cli.tasks.regions.prompts import build_prompt, clean_name, prompt_names


def stub_length(text):
    """Tokens of the stored cases' toy tokenizer: runs of letters and digits in pieces of 4, other marks alone."""
    runs = "".join(c if c.isalnum() else f" {c} " for c in text).split()
    return sum(-(-len(run) // 4) if run.isalnum() else 1 for run in runs)


def draw(case, seed, **options):
    classes = case["ind_to_class"]
    names = [classes[key] for key in sorted(classes, key=int)]
    lengths = [stub_length(clean_name(name) + ". ") for name in names]
    rng = np.random.default_rng(seed)
    return names, lengths, sample_labels(case["target_labels"], names, lengths, rng, **options)


def test_negatives_follow_the_published_rules(cases):
    case = cases["od_to_grounding_random_negatives"]
    positives = set(case["target_labels"])
    for stored in case["cases"]:
        options = {
            "budget": stored["max_seq_length"],
            "negatives": stored["random_sample_negative"],
            "control": tuple(stored["control_probabilities"][:3]),
        }
        seen = set()
        for seed in range(60):
            names, lengths, order = draw(case, seed, draw_background=True, **options)
            assert positives <= set(order)
            assert len(set(order)) == len(order)
            assert sum(lengths[label] for label in order) <= stored["max_seq_length"]
            seen.add(len(order))
            prompt = build_prompt(prompt_names([names[label] for label in order]))
            assert [prompt.text[a:b] for [(a, b)] in prompt.spans] == [clean_name(names[label]) for label in order]
            assert BACKGROUND not in [names[label] for label in draw(case, seed, **options)[2]]
        assert stored["n_categories_in_caption"] in seen
        assert sum(lengths[label] for label in positives) == stored["positive_caption_length"]


def test_everything_is_drawn_where_it_fits(cases):
    case = cases["od_to_grounding_random_negatives"]
    options = {"budget": 254, "control": (0, 0, 1)}
    assert sorted(draw(case, 0, draw_background=True, **options)[2]) == list(range(13))
    assert sorted(draw(case, 0, **options)[2]) == list(range(1, 13))


def test_as_many_negatives_are_drawn_as_published(cases):
    wanted = cases["num_negatives_distribution_0.05_0.05_0.5"]
    rng, counts = np.random.default_rng(0), []
    for _ in range(6000):
        counts.append(len(sample_labels([], ["x"] * 200, [1] * 200, rng, budget=1000)))
    share = np.bincount(counts, minlength=86) / len(counts)
    assert len(share) == 86
    np.testing.assert_allclose(share[[0, 1, 85]], [wanted["P(0)"], wanted["P(1)"], wanted["P(85)"]], atol=0.02)
    np.testing.assert_allclose(share[2:85].mean(), wanted["P(2..84 each, mean)"], atol=5e-4)


def test_positives_that_do_not_fit_are_left_out(cases):
    case = cases["od_to_grounding_random_negatives"]
    for stored in cases["check_for_positive_overflow"]:
        kept = set()
        for seed in range(40):
            order = draw(case, seed, budget=stored["max_seq_length"], control=(0, 1, 0))[2]
            kept.add(frozenset(label for label in case["target_labels"] if label in order))
        assert frozenset(stored["kept_box_labels"]) in kept


def test_a_name_in_the_picture_is_never_a_negative():
    """Of two positives one fits; the other must not come back as a negative."""
    for seed in range(30):
        order = sample_labels(
            [0, 1], list("abcd"), [5, 5, 1, 1], np.random.default_rng(seed), budget=9, control=(0, 0, 1)
        )
        assert len({0, 1} & set(order)) == 1


def sampled(positives, rng, **options):
    names = [f"name {number}" for number in range(40)]
    return sample_labels(positives, names, [3] * 40, rng, budget=100, negatives=20, **options)


def test_a_name_that_is_left_out_stands_in_the_prompt_as_absent():
    """Its boxes are background then: it must not be asked for."""
    rng = np.random.default_rng(0)
    positives = list(range(10))
    shares = []
    for _ in range(400):
        present = set(sampled(positives, rng, absent=(0.2, 0.8))) & set(positives)
        shares.append(len(present) / len(positives))
    assert abs(np.mean(shares) - 0.5) < 0.04
    assert np.std(shares) > 0.2  # the chance is another one for every prompt


def test_nothing_is_asked_for_where_all_names_are_left_out():
    rng = np.random.default_rng(0)
    for _ in range(200):
        assert sampled([3, 4], rng, absent=(1, 1), control=(0, 1, 0))


def test_names_in_the_picture_take_the_room_of_others():
    """Where a picture has more names than a prompt, all that is asked for would be there."""
    positives = list(range(38))
    rng = np.random.default_rng(0)
    others = set()
    for _ in range(50):
        names = set(sampled(positives, rng, most_positives=8, control=(0, 0, 1)))
        assert len(names & set(positives)) == 8
        others |= names - set(positives)
    assert others == {38, 39}
    assert len(sampled(positives, rng, control=(0, 0, 1))) == 33


def test_prompts_without_absent_names_are_not_the_published_ones():
    first, second = np.random.default_rng(7), np.random.default_rng(7)
    assert sampled([1, 5, 9], first) == sampled([1, 5, 9], second, absent=(0, 0))


def test_short_prompts_ask_for_many_names_or_other_prompts_change():
    def draw_all(short):
        options = {"budget": 1000, "negatives": 10, "short": short}
        return [sample_labels([0, 1, 2], ["x"] * 20, [1] * 20, np.random.default_rng(i), **options) for i in range(60)]

    usual, mixed, short = draw_all(0), draw_all(0.5), draw_all(1)
    assert {len(labels) for labels in short} == {1, 2, 3}
    for whole, begun in zip(usual * 2, mixed + short, strict=True):
        assert begun in (whole, whole[:1], whole[:2], whole[:3])
    assert sum(labels in usual for labels in mixed) in range(10, 50)
