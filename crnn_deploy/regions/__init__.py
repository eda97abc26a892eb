"""Regions of a page: where its texts are, as files of detectors say it, and PAGE XML with the texts in it."""
