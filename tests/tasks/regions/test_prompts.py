"""Names and spans against the published functions' stored results, hand-made cases and properties."""

import numpy as np
import pytest

from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError
from fiber_cli.tasks.regions.prompts import (
    Prompt,
    PromptName,
    build_prompt,
    clean_name,
    encode_prompt,
    parse_prompt,
    positive_map,
    prompt_names,
)


def tokens_of(offsets, spans):
    return [np.flatnonzero(row).tolist() for row in positive_map(offsets, spans, 256)]


def test_prompt_and_tokens_of_names_are_as_published(cases):
    for case in cases["create_queries_and_maps"]:
        if "names" in case:
            names = prompt_names(case["names"], as_published=True)
        else:
            names = [PromptName(**texts) for texts in case["caption_prompt"]]
            names += [PromptName(label) for label in case["additional_labels"]]
        prompt = build_prompt(names, case["separation"])
        assert prompt.text == case["query"]
        tokens = tokens_of(case["stub_token_offsets"], prompt.spans)
        # The published function leaves out the additional labels.
        numbered = {str(label): label_tokens for label, label_tokens in zip(case["labels"], tokens, strict=False)}
        assert numbered == case["label_to_token"]


def test_names_are_cleaned_as_published(cases):
    for name, wanted in cases["clean_name"].items():
        assert clean_name(name, as_published=True) == wanted
        if name.count("(") < 2:
            assert clean_name(name) == wanted


def test_parentheses_are_removed_one_by_one():
    assert clean_name("pan_(for_cooking)_lid_(big)") == "pan lid "
    assert clean_name("a (b (c)) d") == "a d"


def test_tokens_of_spans_are_as_published(cases):
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
    prompt = build_prompt([PromptName(each) for each in names])
    encoded = encode_prompt(tokenizer, prompt, 64)
    for name_in_prompt, row in zip(names, encoded.positive_map, strict=True):
        assert tokenizer.decode(encoded.ids[row]).strip() == name_in_prompt.strip()
    assert encoded.truncated == 0
    assert encoded.mask.sum() == (encoded.ids != tokenizer.pad_token_id).sum()


def test_a_cut_prompt_says_so(tokenizer):
    prompt = Prompt("red circle. blue star", [[(0, 10)], [(12, 21)]])
    whole = int(encode_prompt(tokenizer, prompt, 64).mask.sum())
    encoded = encode_prompt(tokenizer, prompt, whole - 1)
    assert encoded.truncated == 1
    assert encoded.positive_map[0].any()
    assert not encoded.positive_map[1, -1]


def test_overrides_cover_the_name_only():
    shown = prompt_names(["cat", "dog_x"], {"cat": {"prefix": "a furry ", "suffix": " at home", "name": "kitten"}})
    prompt = build_prompt(shown)
    assert prompt.text == "a furry kitten at home. dog x"
    assert [prompt.text[a:b] for [(a, b)] in prompt.spans] == ["kitten", "dog x"]
    for wrong in ({"bird": {}}, {"cat": {"sufix": ""}}):
        with pytest.raises(UserError, match=r"bird|sufix"):
            prompt_names(["cat"], wrong)
    with pytest.raises(UserError, match=r"\(thing\)"):
        prompt_names(["(thing)"])


@pytest.mark.parametrize(
    ("typed", "labels"),
    [
        ("cat . traffic light . dog.", ["cat", "traffic light", "dog"]),
        ("cat. traffic light. St.Bernard.", ["cat", "traffic light", "St.Bernard"]),
        ("st. bernard . cat", ["st. bernard", "cat"]),
        ("mt. fuji . no. 5 bus .", ["mt. fuji", "no. 5 bus"]),
        ("cat . traffic light. St.Bernard .", ["cat", "traffic light. St.Bernard"]),
        ("dr. pepper .", ["dr. pepper"]),
        ("U.S. flag", ["U.S. flag"]),
        ("cat. U.S. flag. washington d.c.", ["cat", "U.S. flag", "washington d.c."]),
        ("cat . U.S.", ["cat", "U.S."]),
        ("1.5 l bottle", ["1.5 l bottle"]),
        ("cat\n.\ndog", ["cat", "dog"]),
        ("red, round ball . cat;dog", ["red, round ball", "cat;dog"]),
        ("apple (red) . apple (green)", ["apple (red)", "apple (green)"]),
    ],
)
def test_periods_separate_labels_and_stay_in_names(typed, labels):
    assert parse_prompt(typed) == labels


@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ("", "empty"),
        (" . ", "empty"),
        (". .", "empty"),
        ("cat . . dog", "label 2"),
        (". cat", "label 1"),
        ("cat. Cat", "'Cat', is label 1 again"),
    ],
)
def test_prompts_without_a_name_are_told(typed, word):
    with pytest.raises(UserError, match=word):
        parse_prompt(typed)


def test_all_names_make_the_published_caption(cases):
    classes = cases["convert_od_to_grounding_simple"]["ind_to_class"]
    case = cases["convert_od_to_grounding_simple"]["cases"][0]
    prompt = build_prompt(prompt_names([classes[key] for key in sorted(classes, key=int)]))
    assert prompt.text == case["caption"]
    labels = cases["od_to_grounding_random_negatives"]["target_labels"]
    assert [[list(span) for span in prompt.spans[label - 1]] for label in labels] == case["tokens_positive"]


@pytest.mark.parametrize("prompts", [{"cat": None}, {"cat": "dog"}, {"cat": {"name": 7}}])
def test_malformed_prompts_are_told(prompts):
    with pytest.raises(UserError, match="prompt of 'cat': give texts"):
        prompt_names(["cat"], prompts)
