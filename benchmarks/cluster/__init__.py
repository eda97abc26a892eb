"""Many machines on one: object stores, nodes and what happens to them. Run these from the project's root."""
