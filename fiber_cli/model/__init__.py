"""Networks only: tensors in, tensors out; no recipe, path or tokenizer."""
