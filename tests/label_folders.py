"""The same pictures and boxes in every form that labelling tools export, written for a test."""

import json
from pathlib import Path

from PIL import Image

NAMES = ("red cell", "platelet")
SIZE = (60, 40)  # width, height
#: Split → picture → (number of the name, x, y, width, height) of each box, in whole pixels.
BOXES = {
    "train": {"a": [(0, 3, 4, 20, 10), (1, 30, 20, 30, 20)], "b": [(1, 0, 0, 7, 9)], "c": []},
    "val": {"d": [(0, 11, 13, 17, 19), (0, 1, 1, 13, 7)], "e": [(1, 20, 2, 11, 31)]},
}


def write_picture(path: Path, shade: int, size=SIZE) -> None:
    """A picture that no other shade looks like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (shade, 80, 40))
    width, height = size
    image.paste((20, 255 - shade, 200), (shade % width // 2, 0, width // 2, height // (1 + shade % 3)))
    image.paste((240, shade, 10), (shade % 7, height // 2, width // (1 + shade % 4), height))
    image.save(path)


def _pictures(split):
    for number, name in enumerate(BOXES[split]):
        yield name, 40 * number + (130 if split == "val" else 0)


def write_coco(folder: Path, names=NAMES) -> Path:
    for split, boxes in BOXES.items():
        images, annotations = [], []
        for number, (name, shade) in enumerate(_pictures(split), 1):
            write_picture(folder / split / f"{name}.png", shade)
            images.append({"id": number, "file_name": f"{name}.png", "width": SIZE[0], "height": SIZE[1]})
            for category, *box in boxes[name]:
                annotations.append({"image_id": number, "category_id": category + 1, "bbox": box})
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def yolo_line(category, x, y, width, height):
    shares = ((x + width / 2) / SIZE[0], (y + height / 2) / SIZE[1], width / SIZE[0], height / SIZE[1])
    return " ".join([str(category), *(f"{share:.6f}" for share in shares)])


def write_yolo(folder: Path) -> Path:
    for split, boxes in BOXES.items():
        for name, shade in _pictures(split):
            write_picture(folder / "images" / split / f"{name}.png", shade)
            lines = [yolo_line(*box) for box in boxes[name]]
            labels = folder / "labels" / split / f"{name}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("\n".join(lines))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(NAMES))
    (folder / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return folder


def voc_xml(name, boxes, *, difficult=0, size=SIZE, head=""):
    objects = []
    for category, x, y, width, height in boxes:
        edges = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + width}</xmax><ymax>{y + height}</ymax>"
        label = f"<name>{NAMES[category]}</name><difficult>{difficult}</difficult>"
        objects.append(f"<object>{label}<bndbox>{edges}</bndbox></object>")
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"{head}<annotation><filename>{name}.png</filename>{sides}{''.join(objects)}</annotation>"


def write_voc(folder: Path) -> Path:
    for split, boxes in BOXES.items():
        for name, shade in _pictures(split):
            write_picture(folder / "JPEGImages" / f"{name}.png", shade)
            xml = folder / "Annotations" / f"{name}.xml"
            xml.parent.mkdir(parents=True, exist_ok=True)
            xml.write_text(voc_xml(name, boxes[name]))
        listed = folder / "ImageSets" / "Main" / f"{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(boxes))
    return folder


def write_flat_voc(folder: Path) -> Path:
    """XML files beside the pictures, as Roboflow has them."""
    for split, boxes in BOXES.items():
        name_of_split = {"val": "valid"}.get(split, split)
        for name, shade in _pictures(split):
            write_picture(folder / name_of_split / f"{name}.png", shade)
            (folder / name_of_split / f"{name}.xml").write_text(voc_xml(name, boxes[name]))
    return folder


def write_roboflow_yolo(folder: Path) -> Path:
    """`../train/images` in a data.yaml that lies beside `train/`."""
    for split, boxes in BOXES.items():
        name_of_split = {"val": "valid"}.get(split, split)
        for name, shade in _pictures(split):
            write_picture(folder / name_of_split / "images" / f"{name}.png", shade)
            labels = folder / name_of_split / "labels" / f"{name}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("\n".join(yolo_line(*box) for box in boxes[name]))
    (folder / "data.yaml").write_text(
        f"train: ../train/images\nval: ../valid/images\nnc: {len(NAMES)}\nnames: {list(NAMES)}\n"
    )
    return folder


FORMS = {
    "coco": write_coco,
    "yolo": write_yolo,
    "voc": write_voc,
    "flat_voc": write_flat_voc,
    "roboflow_yolo": write_roboflow_yolo,
}
