"""Decoders beyond the best path."""
