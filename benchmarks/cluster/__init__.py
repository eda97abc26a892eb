"""Many machines on one: object stores, nodes, and what goes wrong. Run these from the project's root."""
