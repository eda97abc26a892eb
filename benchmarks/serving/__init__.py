"""Measurements of servers. Run them from the project's root."""
