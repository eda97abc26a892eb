"""How fast, beside what else one would pick."""
