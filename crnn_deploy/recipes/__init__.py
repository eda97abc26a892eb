"""What checkpoints do not hold: recipes, alphabets, vocabularies."""
