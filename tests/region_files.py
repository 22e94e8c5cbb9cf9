"""Small files of data with boxes, written for a test."""

import json

from PIL import Image


def write_image(path, width=40, height=30, shade=120):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (shade, 80, 40)).save(path)


def coco_file(
    tmp_path, annotations, categories=({"id": 3, "name": "cat"}, {"id": 9, "name": "traffic light"}), **image
):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png")
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30, **image},
            {"id": 5, "file_name": "b.png", "width": 40, "height": 30},
        ],
        "annotations": annotations,
        "categories": list(categories),
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path / "instances.json"


def coco_box(image, category, bbox, **more):
    return {"image_id": image, "category_id": category, "bbox": bbox, **more}


def mdetr_file(tmp_path, spans, **image):
    write_image(tmp_path / "images" / "a.png")
    image = {"id": 12, "file_name": "a.png", "width": 40, "height": 30, "caption": "a cat left of a dog", **image}
    annotations = [coco_box(12, 1, [1, 2, 10, 5], tokens_positive=each) for each in spans]
    (tmp_path / "mixed.json").write_text(json.dumps({"images": [image], "annotations": annotations, "categories": []}))
    return tmp_path / "mixed.json"
