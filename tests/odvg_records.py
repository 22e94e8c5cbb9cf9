"""Records in ODVG's form, for the tests of sources that hold them."""

GROUNDING = {
    "filename": "a.png",
    "height": 30,
    "width": 40,
    "grounding": {
        "caption": "a cat and a dog",
        "regions": [
            {"bbox": [1, 2, 11, 7], "phrase": "a dog"},
            {"bbox": [[0, 0, 4, 4], [5, 5, 9, 9]], "phrase": "a cat", "tokens_positive": [[2, 5]]},
        ],
    },
}
DETECTION = {
    "filename": "a.png",
    "height": 30,
    "width": 40,
    "detection": {"instances": [{"bbox": [1, 2, 11, 7], "label": 12, "category": "cat"}]},
}


def check_odvg(grounded, detected):
    assert grounded.caption == "a cat and a dog"
    assert grounded.size == detected.size == (30, 40)
    assert grounded.boxes.tolist() == [[1, 2, 11, 7], [0, 0, 4, 4], [5, 5, 9, 9]]
    assert grounded.spans == [[(10, 15)], [(2, 5)], [(2, 5)]]
    assert detected.boxes.tolist() == [[1, 2, 11, 7]]
    assert detected.labels.tolist() == [1]
