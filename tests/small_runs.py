"""Recipes of models that take seconds, for the tests of evaluation and use."""

RECIPE = """
model:
  {preset: tiny, image_size: 64, text_length: 30, depths: [1, 2], image_heads: [2, 4], text_layers: 2,
   fusion_layers: 1}
task: {name: coarse}
data: {train: [{kind: scenes, count: 16}], workers: 0}
optim: {lr: 1e-3, steps: 4}
runtime: {micro_batch: 8, global_batch: 8}
"""
VAL = "data.val=[{kind: scenes, split: val, count: 4}]"
#: Task → its section, and another setting that goes with it.
TASKS = {
    "vqa": ("{name: vqa}", "log.keep_best=vqa/accuracy"),
    "vqa_generated": ("{name: vqa_generated, beam: 2, answer_length: 4}", "log.keep_best=vqa/accuracy"),
    "nlvr2": ("{name: nlvr2}", "log.keep_best=nlvr2/accuracy"),
    "retrieval": ("{name: retrieval, itc: 0, itm: 1, itm_negatives: random}", "log.keep_best=itm/ir@1"),
    "caption": ("{name: caption, beam: 2}", "model.text_length=30"),
}
