"""How right, how sure, how alike."""
