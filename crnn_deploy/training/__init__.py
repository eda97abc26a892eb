"""Training: a plain PyTorch loop, its data, its state, and what it says of itself."""
