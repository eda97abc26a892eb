"""Images on a cluster: the proof of the count, and what it all costs."""
