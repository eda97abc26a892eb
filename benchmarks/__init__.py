"""Measurements: one script for each question.

Run them from the project's root, as `python -m benchmarks.speed.peers`.
"""
