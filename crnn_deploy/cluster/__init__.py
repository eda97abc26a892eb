"""Images by the million on the machines of a Ray cluster, and the proof that each is read once."""
