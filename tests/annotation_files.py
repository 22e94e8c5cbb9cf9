"""Files of annotations of every form, of many records, some of them bad, and all that a source says of them."""

import json
import random
from pathlib import Path

from region_files import write_image

KINDS = (
    *("coco", "objects365", "lvis", "folder", "yolo", "yolo_folder", "voc", "voc_folder"),
    *("mdetr", "odvg", "flickr_entities"),
    *("karpathy", "visual_genome", "nocaps", "vqa", "statements"),
)
_IMAGES = 300
_WORDS = ["a", "cat,", "a", "Dog", "and", "an", "‘émeu’", "🐋", "left", "of", "two", "red", "birds"]


def entry_of(kind: str, folder: Path) -> str:
    """The files of a data set below `folder`, as an entry of a recipe that names them."""
    _write_images(folder / "images")
    return _WRITERS[kind](folder, random.Random(kind))


def _write_images(folder: Path) -> None:
    """One picture under the names of all."""
    first = folder / "0.png"
    write_image(first)
    for number in range(1, _IMAGES):
        (folder / f"{number}.png").write_bytes(first.read_bytes())


def _dump(file: Path, content: object, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False, **options), encoding="utf-8")
    return file


def _sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randrange(3, 12)))


def _image(number: int, **more: object) -> dict:
    return {"id": number, "file_name": f"{number}.png", "width": 40, "height": 30, **more}


def _boxes(rng: random.Random, **more: object) -> list[dict]:
    """Of all images, in no order; some are thin, outside, crowds or of another form, a few cannot be read."""
    boxes = []
    for number in range(4 * _IMAGES):
        box = [rng.uniform(-5, 45), rng.uniform(-5, 30), rng.choice([0.5, 7, 12.25]), rng.randrange(0, 9)]
        entry = {"id": number, "image_id": rng.randrange(_IMAGES), "category_id": rng.choice([3, 9, 4]), "bbox": box}
        entry |= {"iscrowd": rng.choice([0, 0, 1, "0"]), "area": rng.choice([None, 3, "4.5"])}
        boxes.append(entry | more)
    boxes[17]["bbox"] = [1, 2, "x", 3]
    boxes[401]["category_id"] = None
    del boxes[640]["bbox"]
    return boxes


_CATEGORIES = [{"id": 9, "name": "traffic light"}, {"id": 3, "name": "cat"}, {"id": 4, "name": "bird"}]


def _coco(folder: Path, rng: random.Random) -> str:
    images = [_image(number) for number in range(_IMAGES)]
    images[30]["height"] = -1
    content = {"info": {"note": ["x", {"y": "]}"}]}, "images": images, "annotations": _boxes(rng)}
    _dump(folder / "instances.json", content | {"categories": _CATEGORIES}, indent=1)
    return "{kind: coco, json: instances.json, images: images, shots: null}"


def _objects365(folder: Path, rng: random.Random) -> str:
    """Annotations first, and the paths of another layout."""
    images = [_image(number, file_name=f"images/v1/patch0/{number}.png") for number in range(_IMAGES)]
    _write_images(folder / "images" / "patch0")
    content = {"annotations": _boxes(rng, isfake=0), "categories": _CATEGORIES, "images": images}
    _dump(folder / "objects365.json", content)
    return "{kind: coco, json: objects365.json, images: images, shots: 3, seed: 2}"


def _lvis(folder: Path, rng: random.Random) -> str:
    images = []
    for number in range(_IMAGES):
        lists = {"neg_category_ids": rng.sample([3, 4, 9], 2), "not_exhaustive_category_ids": [3] * (number % 2)}
        images.append(_image(number, coco_url=f"http://images/{number}.png", **lists))
        del images[-1]["file_name"]
    write_image(folder / "images" / "images" / "0.png")
    categories = [{**each, "frequency": "rcf"[number]} for number, each in enumerate(_CATEGORIES)]
    _dump(folder / "lvis.json", {"images": images, "annotations": _boxes(rng), "categories": categories})
    return "{kind: coco, json: lvis.json, images: images, copies: 2, prompts: {cat: {name: tom cat}}}"


def _folder(folder: Path, rng: random.Random) -> str:
    write_image(folder / "set" / "train" / "0.png")
    images = [_image(number) for number in range(_IMAGES)]
    content = {"images": images, "annotations": _boxes(rng), "categories": _CATEGORIES}
    _dump(folder / "set" / "train" / "_annotations.coco.json", content)
    return "{kind: folder, folder: set, split: train}"


def _yolo(folder: Path, rng: random.Random) -> str:
    _write_images(folder / "set" / "images" / "train")
    labels = folder / "set" / "labels" / "train"
    labels.mkdir(parents=True)
    for number in range(0, _IMAGES, 2):
        boxes = [f"{rng.randrange(3)} 0.5 0.5 {rng.random():.6f} {rng.choice([0, 0.01, 0.5])}" for _ in range(3)]
        (labels / f"{number}.txt").write_text("\n".join(boxes))
    (labels / "8.txt").write_text("9 0.5 0.5 0.1 0.1")
    (labels / "of-nothing.txt").write_text("")
    (folder / "set" / "data.yaml").write_text("train: images/train\nnames: [cat, traffic light, bird]\n")
    return "{kind: yolo, data: set/data.yaml}"


def _yolo_folder(folder: Path, rng: random.Random) -> str:
    _yolo(folder, rng)
    return "{kind: folder, folder: set, split: train}"


def _voc(folder: Path, rng: random.Random) -> str:
    root = folder / "set"
    _write_images(root / "JPEGImages")
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for number in range(_IMAGES):
        corners = f"<xmin>{rng.randrange(9)}</xmin><ymin>2</ymin><xmax>{rng.randrange(9, 50)}</xmax><ymax>9</ymax>"
        thing = f"<object><name>{rng.choice(['cat', 'bird'])}</name><bndbox>{corners}</bndbox></object>"
        (root / "Annotations" / f"{number}.xml").write_text(f"<annotation>{thing}</annotation>")
    (root / "Annotations" / "7.xml").write_text("<annotation>")
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(map(str, range(200))))
    return "{kind: voc, folder: set, split: train}"


def _voc_folder(folder: Path, rng: random.Random) -> str:
    _voc(folder, rng)
    return "{kind: folder, folder: set, split: train}"


def _mdetr(folder: Path, rng: random.Random) -> str:
    images = []
    for number in range(_IMAGES):
        images.append(_image(number, caption=_sentence(rng), dataset_name=rng.choice(["flickr", "refcoco", "flickr"])))
    images[12]["caption"] = 5
    boxes = _boxes(rng)
    for box in boxes:
        box["tokens_positive"] = rng.choice([[], [[0, 1]], [[0, 3], [2, 4]]])
    boxes[900]["tokens_positive"] = [[0, 500]]
    content = {"info": {}, "images": images, "annotations": boxes, "categories": []}
    _dump(folder / "mixed.json", content)
    return "{kind: mdetr, json: mixed.json, images: images}"


def _odvg(folder: Path, rng: random.Random) -> str:
    lines = []
    for number in range(_IMAGES):
        record = {"filename": f"{number}.png", "height": 30, "width": 40}
        if number % 2:
            instances = [{"bbox": [1, 2, rng.randrange(2, 30), 7], "label": 3, "category": "cat"}] * rng.randrange(3)
            record["detection"] = {"instances": instances}
        else:
            region = {"bbox": [rng.randrange(9), 2, 11, 7], "phrase": "a cat"}
            record["grounding"] = {"caption": f"a cat {_sentence(rng)}", "regions": [region]}
        lines.append(json.dumps(record, ensure_ascii=False))
    lines[7] = "{}"
    (folder / "odvg.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return "{kind: odvg, jsonl: odvg.jsonl, images: images}"


def _flickr_entities(folder: Path, rng: random.Random) -> str:
    for name in ("Annotations", "Sentences"):
        (folder / name).mkdir()
    for number in range(40):
        box = f"<xmin>{rng.randrange(1, 20)}</xmin><ymin>2</ymin><xmax>{rng.randrange(20, 60)}</xmax><ymax>9</ymax>"
        size = "<size><width>40</width><height>30</height></size>"
        thing = f"<object><name>5</name><name>6</name><bndbox>{box}</bndbox></object>"
        (folder / "Annotations" / f"{number}.xml").write_text(f"<annotation>{size}{thing}</annotation>")
        text = "[/EN#5/people/other A man] by [/EN#6/scene the sea] and [/EN#7/notvisual it]"
        (folder / "Sentences" / f"{number}.txt").write_text(f"{text}\n{_sentence(rng)}\n{text} .\n", encoding="utf-8")
    (folder / "Annotations" / "3.xml").write_text("<annotation>")
    (folder / "train.txt").write_text("\n".join(map(str, range(40))))
    write_image(folder / "images" / "0.jpg")
    return "{kind: flickr_entities, folder: ., images: images}"


def _karpathy(folder: Path, rng: random.Random) -> str:
    images = []
    for number in range(_IMAGES):
        sentences = [{"raw": f" {_sentence(rng)}"} for _ in range(rng.randrange(1, 4))]
        image = {"filename": f"{number}.png", "split": rng.choice(["train", "restval", "val"]), "sentences": sentences}
        images.append(image | ({"cocoid": number} if number % 3 else {}))
    del images[5]["split"]
    images[0]["split"] = "train"
    _dump(folder / "dataset.json", {"images": images, "dataset": "coco"})
    return "{kind: karpathy, json: dataset.json, images: images, split: [train, val]}"


def _visual_genome(folder: Path, rng: random.Random) -> str:
    regions = []
    for number in range(1, _IMAGES):
        regions.append({"id": number, "regions": [{"phrase": _sentence(rng)} for _ in range(rng.randrange(4))]})
    regions[4]["regions"] = 7
    _dump(folder / "region_descriptions.json", regions)
    data = [{"image_id": number, "coco_id": number if number % 2 else None} for number in range(1, _IMAGES)]
    _dump(folder / "image_data.json", data)
    write_image(folder / "images" / "VG_100K" / "1.jpg")
    write_image(folder / "images" / "VG_100K_2" / "2.jpg")
    return "{kind: visual_genome, regions: region_descriptions.json, images: images, image_data: image_data.json}"


def _nocaps(folder: Path, rng: random.Random) -> str:
    images = [_image(number, domain=rng.choice(["in-domain", None])) for number in range(_IMAGES)]
    captions = [{"image_id": rng.randrange(_IMAGES), "caption": _sentence(rng)} for _ in range(3 * _IMAGES)]
    captions[8]["image_id"] = "nobody"
    _dump(folder / "nocaps.json", {"images": images, "annotations": captions})
    return "{kind: nocaps, json: nocaps.json, images: images}"


def _vqa(folder: Path, rng: random.Random) -> str:
    questions = []
    annotations = []
    for number in range(_IMAGES):
        questions.append({"question_id": f"q{number}", "image_id": number, "question": f"{_sentence(rng)}?"})
        said = rng.choices(["yes", "no", "zwei", "3"], k=rng.choice([1, 10]))
        entry = {"question_id": f"q{number}", "image_id": number, "multiple_choice_answer": said[0]}
        answers = [{"answer": answer} for answer in said]
        annotations.append(entry | {"answers": answers, "answer_type": rng.choice(["other", "yes/no", None])})
    questions[9]["question"] = ""
    annotations[11]["answers"] = None
    annotations[20]["image_id"] = 7
    _dump(folder / "questions.json", {"questions": questions})
    _dump(folder / "annotations.json", {"info": 1, "annotations": annotations})
    files = "questions: questions.json, annotations: annotations.json"
    return f'{{kind: vqa, {files}, images: images, pattern: "{{image_id}}.png"}}'


def _statements(folder: Path, rng: random.Random) -> str:
    lines = []
    for number in range(_IMAGES):
        row = {
            "sentence": _sentence(rng),
            "identifier": f"dev-{number}-0-{number % 3}",
            "label": rng.choice(["True", None]),
        }
        lines.append(json.dumps(row | {"left": f"{number}.png", "right": "0.png"}))
    lines[40] = lines[40].replace("sentence", "sentences")
    (folder / "dev.jsonl").write_text("\n".join(lines))
    return "{kind: statements, jsonl: dev.jsonl, images: images}"


_WRITERS = {
    "coco": _coco,
    "objects365": _objects365,
    "lvis": _lvis,
    "folder": _folder,
    "yolo": _yolo,
    "yolo_folder": _yolo_folder,
    "voc": _voc,
    "voc_folder": _voc_folder,
    "mdetr": _mdetr,
    "odvg": _odvg,
    "flickr_entities": _flickr_entities,
    "karpathy": _karpathy,
    "visual_genome": _visual_genome,
    "nocaps": _nocaps,
    "vqa": _vqa,
    "statements": _statements,
}

_COUNTS = ("name", "dropped", "trained_boxes", "wordless_boxes", "scored_all_the_same", "names", "refers", "doubts")
_OF_A_SAMPLE = (
    *("key", "image_names", "captions", "caption_count", "references", "image_id", "domain", "questions", "statements"),
    *("regions", "phrases"),
)


def said_by(source) -> dict[str, object]:
    """All that a source says of itself and its samples, as plain values."""
    said = {name: getattr(source, name, None) for name in _COUNTS}
    said["left_out"] = list(source.left_out)
    for name in _OF_A_SAMPLE:
        if hasattr(source, name):
            said[name] = [_asked(getattr(source, name), i) for i in range(len(source))]
    if hasattr(source, "truth"):
        said["truth"] = source.truth()
        said["category_ids"] = list(source.category_ids)
    if hasattr(source, "boxes_digest"):
        said["digest"] = source.boxes_digest()
    texts = source.all_texts((type(source),))
    said["texts"] = None if texts is None else sorted(texts)
    return _plain(said)


def _asked(method, i: int) -> object:
    try:
        return method(i)
    except Exception as error:
        return repr(error)


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return _plain([str(value.dtype), value.tolist()]) if hasattr(value, "dtype") else value
