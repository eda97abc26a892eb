"""The containers of `crnn-deploy serve`, and a way to try their files."""
