"""Checkpoints as data: what a file holds, whichever way it was saved; nothing that it names is called."""
