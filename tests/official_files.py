"""Small files and folders under the names by which the paper's data sets are published, as the recipes' headers say."""

from pathlib import Path

from fiber_cli.evaluation.odinw13 import SEEDS, SETS, SHOTS

FILES = (
    "coco/dataset_coco.json",
    "coco/annotations/instances_train2017.json",
    "coco/annotations/instances_val2017.json",
    "flickr30k/dataset_flickr30k.json",
    "vg/region_descriptions.json",
    "vg/image_data.json",
    "cc3m/00000.tar",
    "sbu/00000.tar",
    "vqa/v2_OpenEnded_mscoco_train2014_questions.json",
    "vqa/v2_mscoco_train2014_annotations.json",
    "vqa/v2_OpenEnded_mscoco_val2014_questions.json",
    "vqa/v2_mscoco_val2014_annotations.json",
    "vqa/v2_OpenEnded_mscoco_test-dev2015_questions.json",
    "vqa/v2_OpenEnded_mscoco_test2015_questions.json",
    "nlvr2/train.json",
    "nlvr2/dev.json",
    "nlvr2/test1.json",
    "nocaps/nocaps_val_4500_captions.json",
    "nocaps/nocaps_test_image_info.json",
    "mixed/final_mixed_train_no_coco.json",
    "flickr30k_entities/train.txt",
    "flickr30k_entities/val.txt",
    "flickr30k_entities/test.txt",
    "flickr30k_entities/Sentences/1.txt",
    "flickr30k_entities/Annotations/1.xml",
    "objects365/annotations/objects365_train.json",
    "mdetr/finetune_refcoco_train.json",
    "mdetr/finetune_refcoco_val.json",
    "mdetr/finetune_refcoco_testA.json",
    "mdetr/finetune_refcoco_testB.json",
    "mdetr/finetune_refcoco+_train.json",
    "mdetr/finetune_refcoco+_val.json",
    "mdetr/finetune_refcoco+_testA.json",
    "mdetr/finetune_refcoco+_testB.json",
    "mdetr/finetune_refcocog_train.json",
    "mdetr/finetune_refcocog_val.json",
    "mdetr/finetune_refcocog_test_corrected.json",
    "mdetr/final_flickr_separateGT_train.json",
    "mdetr/final_flickr_separateGT_val.json",
    "mdetr/final_flickr_separateGT_test.json",
    "lvis/lvis_v1_train.json",
    "lvis/lvis_v1_minival_inserted_image_name.json",
)
PICTURES = (
    *(f"coco/images/{name}" for name in ("train2014", "val2014", "test2015", "train2017", "val2017")),
    *("flickr30k/flickr30k-images", "vg/VG_100K", "vg/VG_100K_2", "vg/images", "nlvr2/images/train"),
    *("nlvr2/dev", "nlvr2/test1", "nocaps/images", "flickr30k_entities/flickr30k-images", "objects365/train"),
)


def write_official_files(root: Path) -> Path:
    """All of them below `root`, ODinW's 13 sets with all draws among them."""
    names = [*FILES, *(f"{folder}/1.jpg" for folder in PICTURES)]
    for each in SETS:
        annotations = [each.annotations(split) for split in ("train", "valid", "test")]
        draws = [each.few_shot_annotations(shots, seed) for shots in SHOTS for seed in SEEDS]
        names += [f"odinw/{file}" for file in (*annotations, *draws)]
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}" if file.suffix == ".json" else "x")
    return root
