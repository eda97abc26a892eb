"""Whether two models say the same: logits, argmax, text."""
