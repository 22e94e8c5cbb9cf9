"""Karpathy's JSON of COCO, Flickr30k and Flickr8k: one file with all captions and splits."""

from collections.abc import Sequence
from pathlib import Path

from fiber_cli.data.files import expecting, read_json
from fiber_cli.data.images import FolderSource
from fiber_cli.errors import UserError


class KarpathySource(FolderSource):
    """The images of one or several splits, each with all its captions.

    json: a file with `images[]{filename, filepath (optional), split, sentences[]{raw}}`; images: the folder
    in which `filepath/filename` lie. `train` includes COCO's `restval`, as everywhere in the field (113,287
    images). Raises `UserError` for a missing or malformed file, a missing folder, or a split without images.
    """

    def __init__(self, json: str | Path, images: str | Path, split: str | Sequence[str] = "train"):
        entries = read_karpathy(json)
        wanted = {split} if isinstance(split, str) else set(split)
        present = {entry["split"] for entry in entries}
        if not wanted or wanted - present:
            raise UserError(
                f"{json}: no images of split {', '.join(sorted(wanted - present)) or '(none given)'}; "
                f"the splits of this file are: {', '.join(sorted(present)) or 'none'}"
            )
        entries = [entry for entry in entries if entry["split"] in wanted]
        files, captions = ([entry[field] for entry in entries] for field in ("file", "captions"))
        # COCO's ids where the file gives them.
        self.image_ids = [entry["file"] if entry["cocoid"] is None else entry["cocoid"] for entry in entries]
        super().__init__(f"{Path(json).stem}:{'+'.join(sorted(wanted))}", images, files, captions)


def read_karpathy(path: str | Path) -> list[dict]:
    """The images of a Karpathy JSON as `{file, split, captions, cocoid}`; `restval` reads as `train`."""
    content = read_json(path, "a Karpathy JSON such as dataset_coco.json")
    entries = []
    form = '{"images": [{"filename": …, "split": …, "sentences": [{"raw": …}, …]}, …]}'
    with expecting(path, "a Karpathy JSON", form, see=lambda: f"images[{len(entries)}]"):
        for image in content["images"]:
            entries.append(
                {
                    "file": str(Path(image.get("filepath", ""), image["filename"])),
                    "split": "train" if image["split"] == "restval" else image["split"],
                    "captions": [text for s in image["sentences"] if (text := s["raw"].strip())],
                    "cocoid": image.get("cocoid"),
                }
            )
    return entries
