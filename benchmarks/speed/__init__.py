"""How fast the toolkit is, beside what else one would pick."""
