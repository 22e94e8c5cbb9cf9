"""Names, phrases and spans against the published functions' stored results, hand-made cases and properties."""

import json

import numpy as np
import pytest

from fiber_cli.tasks.regions import prompts
from fiber_cli.tasks.regions.prompts import (
    BACKGROUND,
    Prompt,
    Shown,
    build_prompt,
    chunk_labels,
    clean_name,
    encode_prompt,
    locate_phrases,
    noun_phrases,
    parse_prompt,
    positive_map,
    sample_labels,
    shown_names,
)
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError


@pytest.fixture(scope="module")
def cases(shared):
    return json.loads((shared / "golden" / "fine_data_cases.json").read_text())


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("builtin")


def tokens_of(offsets, spans):
    return [np.flatnonzero(row).tolist() for row in positive_map(offsets, spans, 256)]


def test_prompt_and_tokens_of_names(cases):
    for case in cases["create_queries_and_maps"]:
        if "names" in case:
            shown = shown_names(case["names"], published=True)
        else:
            shown = [Shown(**part) for part in case["caption_prompt"]] + [Shown(n) for n in case["additional_labels"]]
        prompt = build_prompt(shown, case["separation"])
        assert prompt.text == case["query"]
        tokens = tokens_of(case["stub_token_offsets"], prompt.spans)
        assert {str(label): own for label, own in zip(case["labels"], tokens)} == case["label_to_token"]


def test_chunks_of_a_data_set_have_the_published_prompts(cases):
    case = cases["create_queries_and_maps_from_dataset_chunk2"]
    names = shown_names([case["categories"][key] for key in sorted(case["categories"], key=int)])
    groups = chunk_labels(names, WordTokenizer(), 256, 2)
    assert [build_prompt([names[label] for label in group]).text for group in groups] == case["queries"]


def test_published_names(cases):
    for name, wanted in cases["clean_name"].items():
        assert clean_name(name, published=True) == wanted
        if name.count("(") < 2:
            assert clean_name(name) == wanted


def test_parentheses_are_removed_one_by_one():
    assert clean_name("pan_(for_cooking)_lid_(big)") == "pan lid "
    assert clean_name("a (b (c)) d") == "a d"


def test_positive_map(cases):
    for case in cases["create_positive_map"]:
        rows = positive_map(case["stub_token_offsets"], case["tokens_positive"], 256)
        assert list(rows.shape) == case["shape"]
        for row, wanted in zip(rows, case["nonzero"], strict=True):
            assert np.flatnonzero(row).tolist() == [column for column, _ in wanted]
            weights = np.float32(1) / (np.float32(row.sum()) + np.float32(1e-6))
            np.testing.assert_allclose([weight for _, weight in wanted], weights, rtol=1e-6)


def test_spans_beyond_the_window_have_no_tokens():
    rows = positive_map([None, (0, 3), (4, 7), None], [[(0, 3)], [(4, 7)]], 2)
    assert rows.tolist() == [[False, True], [False, False]]


def test_characters_of_several_bytes_belong_to_their_first_token():
    assert tokens_of([(0, 1), (0, 1), (1, 2)], [[(0, 1)], [(0, 2)]]) == [[0], [0, 1, 2]]


@pytest.mark.parametrize("name", ["builtin", "roberta-base"])
def test_real_tokenizers_give_back_the_names(name, shared):
    tokenizer = load_tokenizer(name if name == "builtin" else shared / "data" / name)
    names = ["cat", "traffic light", "red circle", "déjà vu", "bow "]
    prompt = build_prompt([Shown(each) for each in names])
    encoded = encode_prompt(tokenizer, prompt, 64)
    for each, row in zip(names, encoded.positive_map):
        assert tokenizer.decode(encoded.ids[row]).strip() == each.strip()
    assert encoded.truncated == 0 and encoded.mask.sum() == (encoded.ids != tokenizer.pad_token_id).sum()


def test_a_cut_prompt_says_so(tokenizer):
    prompt = Prompt("red circle. blue star", [[(0, 10)], [(12, 21)]])
    whole = int(encode_prompt(tokenizer, prompt, 64).mask.sum())
    encoded = encode_prompt(tokenizer, prompt, whole - 1)
    assert encoded.truncated == 1
    assert encoded.positive_map[0].any() and not encoded.positive_map[1, -1]


def test_overrides_cover_the_name_only():
    shown = shown_names(["cat", "dog_x"], {"cat": {"prefix": "a furry ", "suffix": " at home", "name": "kitten"}})
    prompt = build_prompt(shown)
    assert prompt.text == "a furry kitten at home. dog x"
    assert [prompt.text[a:b] for [(a, b)] in prompt.spans] == ["kitten", "dog x"]
    for wrong in ({"bird": {}}, {"cat": {"sufix": ""}}):
        with pytest.raises(UserError, match="bird|sufix"):
            shown_names(["cat"], wrong)
    with pytest.raises(UserError, match="(thing)"):
        shown_names(["(thing)"])


class WordTokenizer:
    """As many tokens as words and periods, and two more."""

    def __call__(self, text, **_):
        return {"input_ids": [0, *text.replace(".", " .").split(), 2]}


def test_chunk_lengths(cases):
    for case in cases["chunks"]:
        groups = chunk_labels([Shown("x")] * case["n_items"], WordTokenizer(), 256, case["chunk"])
        assert [len(group) for group in groups] == case["chunk_lengths"]
        assert [label for group in groups for label in group] == list(range(case["n_items"]))


def test_chunks_never_cut_a_name():
    names = [Shown(" ".join(["word"] * n)) for n in (3, 1, 4, 1, 5, 2, 6)]
    # two special tokens, the words, and a period between names
    assert chunk_labels(names, WordTokenizer(), 10, "auto") == [[0, 1], [2, 3], [4, 5], [6]]
    assert chunk_labels(names, WordTokenizer(), 10, 3) == [[0, 1], [2], [3, 4], [5], [6]]
    with pytest.raises(UserError, match="has 8 tokens alone, the model reads 7"):
        chunk_labels(names, WordTokenizer(), 7, "auto")


def test_parse_prompt():
    assert parse_prompt("cat . traffic light. St.Bernard .") == ["cat", "traffic light", "St.Bernard"]
    for bad, word in (
        ("", "empty"),
        (" . ", "empty"),
        ("cat . . dog", "label 2"),
        ("cat. Cat", "'Cat', is label 1 again"),
    ):
        with pytest.raises(UserError, match=word):
            parse_prompt(bad)


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
            assert positives <= set(order) and len(set(order)) == len(order)
            assert sum(lengths[label] for label in order) <= stored["max_seq_length"]
            seen.add(len(order))
            prompt = build_prompt(shown_names([names[label] for label in order]))
            assert [prompt.text[a:b] for [(a, b)] in prompt.spans] == [clean_name(names[label]) for label in order]
            assert BACKGROUND not in [names[label] for label in draw(case, seed, **options)[2]]
        assert stored["n_categories_in_caption"] in seen
        assert sum(lengths[label] for label in positives) == stored["positive_caption_length"]


def test_everything_is_drawn_where_it_fits(cases):
    case = cases["od_to_grounding_random_negatives"]
    options = {"budget": 254, "control": (0, 0, 1)}
    assert sorted(draw(case, 0, draw_background=True, **options)[2]) == list(range(13))
    assert sorted(draw(case, 0, **options)[2]) == list(range(1, 13))


def test_how_many_negatives_are_drawn(cases):
    wanted = cases["num_negatives_distribution_0.05_0.05_0.5"]
    rng, counts = np.random.default_rng(0), []
    for _ in range(6000):
        counts.append(len(sample_labels([], ["x"] * 200, [1] * 200, rng, budget=1000)))
    share = np.bincount(counts, minlength=86) / len(counts)
    assert len(share) == 86
    np.testing.assert_allclose(share[[0, 1, 85]], [wanted["P(0)"], wanted["P(1)"], wanted["P(85)"]], atol=0.02)
    np.testing.assert_allclose(share[2:85].mean(), wanted["P(2..84 each, mean)"], atol=5e-4)


def test_positives_that_do_not_fit(cases):
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


def test_simple_conversion(cases):
    classes = cases["convert_od_to_grounding_simple"]["ind_to_class"]
    case = cases["convert_od_to_grounding_simple"]["cases"][0]
    prompt = build_prompt(shown_names([classes[key] for key in sorted(classes, key=int)]))
    assert prompt.text == case["caption"]
    labels = cases["od_to_grounding_random_negatives"]["target_labels"]
    assert [[list(span) for span in prompt.spans[label - 1]] for label in labels] == case["tokens_positive"]


@pytest.fixture
def tagger(shared, monkeypatch):
    import nltk

    prompts._tagger.cache_clear()
    monkeypatch.setattr(nltk.data, "path", [str(shared / "data" / "nltk_data")])
    yield
    prompts._tagger.cache_clear()


@pytest.mark.usefixtures("tagger")
def test_noun_phrases():
    sentence = "A man in a blue shirt is riding two large brown horses near the well-known beach."
    found = noun_phrases(sentence)
    assert [phrase for phrase, _ in found] == [
        "A man", "a blue shirt", "two large brown horses", "the well-known beach",
    ]  # fmt: skip
    assert all(sentence[a:b] == phrase for phrase, (a, b) in found)
    assert [phrase for phrase, _ in noun_phrases("his little sister's umbrella")] == ["his little sister", "umbrella"]
    assert noun_phrases("") == noun_phrases("running quickly") == []


def test_a_missing_tagger_says_how_to_get_it(monkeypatch, tmp_path):
    import nltk

    prompts._tagger.cache_clear()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(UserError, match="python -m nltk.downloader averaged_perceptron_tagger_eng"):
        noun_phrases("a cat")
    prompts._tagger.cache_clear()


def test_given_phrases_are_located():
    sentence = "A dog and a dog with a dogged man"
    spans = locate_phrases(sentence, ["a dog", "man", "A DOG"])
    assert spans == [(0, 5), (30, 33), (10, 15)]
    for missing in ("cat", "", "dogge"):
        with pytest.raises(UserError, match="is not in"):
            locate_phrases(sentence, [missing])
    with pytest.raises(UserError):
        locate_phrases(sentence, ["man", "man"])
