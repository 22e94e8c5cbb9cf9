"""Where the files of the data sets that `fiber eval` knows lie, under their published names."""

from pathlib import Path

import pytest

from fiber_cli.errors import UserError
from fiber_cli.evaluation.datasets import eval_data
from fiber_cli.evaluation.known import KNOWN, EvalData
from fiber_cli.evaluation.names import DATASETS, SCENES

#: Data set, task, split, annotations and image folder below the recipes' data.root.
RECIPES_LAYOUT = [
    ("coco", "retrieval", "test", "coco/dataset_coco.json", "coco/images"),
    ("coco_caption", "caption", "val", "coco/dataset_coco.json", "coco/images"),
    ("coco", "detection", "val", "coco/annotations/instances_val2017.json", "coco/images/val2017"),
    ("flickr30k", "coarse", "test", "flickr30k/dataset_flickr30k.json", "flickr30k/flickr30k-images"),
    ("nocaps", "caption", "val", "nocaps/nocaps_val_4500_captions.json", "nocaps/images"),
    ("nocaps", "caption", "test", "nocaps/nocaps_test_image_info.json", "nocaps/images"),
    ("vqav2", "vqa", "test-dev", "vqa/v2_OpenEnded_mscoco_test-dev2015_questions.json", "coco/images/test2015"),
    ("nlvr2", "nlvr2", "dev", "nlvr2/dev.json", "nlvr2/dev"),
    ("nlvr2", "nlvr2", "test", "nlvr2/test1.json", "nlvr2/test1"),
    ("lvis", "detection", "val", "lvis/lvis_v1_val.json", "coco/images"),
    ("lvis", "fine", "minival", "lvis/lvis_v1_minival_inserted_image_name.json", "coco/images"),
    ("flickr30k_entities", "grounding", "val", "flickr30k_entities/val.txt", "flickr30k_entities/flickr30k-images"),
    ("refcoco", "refexp", "testA", "mdetr/finetune_refcoco_testA.json", "coco/images/train2014"),
    ("refcoco+", "refexp", "testB", "mdetr/finetune_refcoco+_testB.json", "coco/images/train2014"),
    ("refcocog", "refexp", "val", "mdetr/finetune_refcocog_val.json", "coco/images/train2014"),
]
#: Image folders that are looked for below the folder that counts.
PICTURES = {"coco/images": ("val2014", "val2017")}


def lay_out(root: Path, annotations: str, images: str) -> None:
    """The file and the folders, empty."""
    (root / annotations).parent.mkdir(parents=True, exist_ok=True)
    (root / annotations).touch()
    (root / images).mkdir(parents=True, exist_ok=True)
    for folder in PICTURES.get(images, ()):
        (root / images / folder).mkdir(exist_ok=True)


def paths(data: EvalData) -> tuple[Path, Path]:
    """Annotations and image folder of the only source."""
    (source,) = data.sources
    values = vars(source)
    folder = values.get("folder")
    if folder is not None:
        return Path(folder) / f"{values['split']}.txt", Path(values["images"])
    named = next(values[name] for name in ("json", "questions", "jsonl") if name in values)
    return Path(named), Path(values["images"])


def test_every_known_name_is_told_in_the_help():
    assert set(DATASETS) == {SCENES, *KNOWN}


@pytest.mark.parametrize(("dataset", "task", "split", "annotations", "images"), RECIPES_LAYOUT)
def test_the_root_of_the_recipes_is_not_a_root(tmp_path, dataset, task, split, annotations, images):
    lay_out(tmp_path, annotations, images)
    wanted = (tmp_path / annotations, tmp_path / images)
    assert paths(eval_data(dataset, task, split, tmp_path)) == wanted
    # The folder of the data set, whose pictures may lie in COCO's beside it.
    own = tmp_path / annotations.partition("/")[0]
    assert paths(eval_data(dataset, task, split, own)) == wanted


def test_the_current_folder_is_not_a_root(tmp_path, monkeypatch):
    lay_out(tmp_path, "mdetr/finetune_refcoco_val.json", "coco/images/train2014")
    monkeypatch.chdir(tmp_path)
    wanted = (Path("mdetr/finetune_refcoco_val.json"), Path("coco/images/train2014"))
    assert paths(eval_data("refcoco", "refexp")) == wanted
    monkeypatch.chdir(tmp_path / "mdetr")
    assert paths(eval_data("refcoco", "refexp")) == (Path(wanted[0].name), Path("../coco/images/train2014"))


@pytest.mark.parametrize(("dataset", "task", "split", "annotations", "images"), RECIPES_LAYOUT)
def test_a_named_image_folder_is_passed_over(tmp_path, dataset, task, split, annotations, images):
    lay_out(tmp_path, annotations, images)
    (tmp_path / "elsewhere").mkdir()
    data = eval_data(dataset, task, split, tmp_path, images=tmp_path / "elsewhere")
    assert paths(data) == (tmp_path / annotations, tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"--images .*nowhere: no such folder"):
        eval_data(dataset, task, split, tmp_path, images=tmp_path / "nowhere")


def test_a_folder_of_pictures_is_doubled_in_their_paths(tmp_path):
    """COCO's captions and LVIS name val2014/ and val2017/ with the picture, COCO's boxes do not."""
    for dataset, task, split, annotations, images in RECIPES_LAYOUT[:3]:
        lay_out(tmp_path, annotations, images)
        year = "val2014" if task != "detection" else "val2017"
        folder = tmp_path / "coco/images" / year
        wanted = tmp_path / images
        assert paths(eval_data(dataset, task, split, tmp_path, images=folder))[1] == wanted


def test_karpathy_images_lie_beside_the_json_too(tmp_path):
    (tmp_path / "dataset_coco.json").touch()
    with pytest.raises(UserError, match=r"no images of coco there; wanted is val2014/ or images/val2014/ .*--images"):
        eval_data("coco", "coarse", root=tmp_path)
    (tmp_path / "val2014").mkdir()
    assert paths(eval_data("coco", "coarse", root=tmp_path))[1] == tmp_path
    (tmp_path / "dataset_flickr8k.json").touch()
    (tmp_path / "images").mkdir()
    assert paths(eval_data("flickr8k", "coarse", "val", tmp_path))[1] == tmp_path / "images"


def test_a_missing_file_is_told_with_both_layouts(tmp_path):
    mend = "--root names the folder with finetune_refcoco_val.json, or the one with mdetr/finetune_refcoco_val.json"
    with pytest.raises(UserError, match=f"finetune_refcoco_val.json: no such file; {mend}"):
        eval_data("refcoco", "refexp", root=tmp_path)


def test_refcocog_is_tested_on_the_file_with_faults(tmp_path):
    lay_out(tmp_path, "mdetr/finetune_refcocog_test.json", "coco/images/train2014")
    data = eval_data("refcocog", "refexp", "test", tmp_path)
    assert paths(data)[0].name == "finetune_refcocog_test.json"
    assert data.notes == ("annotations: finetune_refcocog_test.json",)
    (tmp_path / "mdetr/finetune_refcocog_test_corrected.json").touch()
    data = eval_data("refcocog", "refexp", "test", tmp_path)
    assert paths(data)[0].name == "finetune_refcocog_test_corrected.json"
    assert data.notes == ("annotations: finetune_refcocog_test_corrected.json",)
    assert data.details == {"annotations": "finetune_refcocog_test_corrected.json"}
    (source,) = data.sources
    assert source.refers is True


def test_a_split_that_is_not_there_is_taken_for_another():
    with pytest.raises(UserError, match="refcocog has val, test"):
        eval_data("refcocog", "refexp", "testA")
    with pytest.raises(UserError, match="odinw13 has test, valid"):
        eval_data("odinw13", "detection", "val")


def test_a_data_set_of_another_task_is_refused():
    with pytest.raises(UserError, match="vqav2 is for checkpoints of vqa, vqa_generated, not of detection"):
        eval_data("vqav2", "detection")
    with pytest.raises(UserError, match="coco_caption is for checkpoints of caption, not of coarse"):
        eval_data("coco_caption", "coarse")


def test_prompts_and_images_of_other_data_are_ignored_in_silence(tmp_path):
    with pytest.raises(UserError, match="--published-prompts are those of odinw13; lvis has none"):
        eval_data("lvis", "detection", published_prompts=True)
    with pytest.raises(UserError, match="scenes are built in: leave out --root and --images"):
        eval_data("scenes", "detection", root=tmp_path)
    with pytest.raises(UserError, match="the pictures of odinw13 lie in the archive's folders"):
        eval_data("odinw13", "detection", images=tmp_path)
