"""Many machines on one: object stores, nodes, and what goes wrong with them. Run these from the project's root."""
