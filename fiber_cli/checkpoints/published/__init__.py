"""Checkpoints of the authors' code: their names and tensors to ours and back, one to one.

names    renaming by tables of templates
towers   what both stages hold below different prefixes: the image and the text tower
coarse   the coarse stage: pre-training and what was fine-tuned from it
fine     the fine stage: the detector
file     a published file to a checkpoint directory
"""
