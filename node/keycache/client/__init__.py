"""Python client for a node."""
