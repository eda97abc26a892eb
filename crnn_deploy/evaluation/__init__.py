"""How right, how sure and how fast a model is."""
