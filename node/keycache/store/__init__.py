"""The database of a node: replica and local entry log on SQLite, and the in-memory fakes."""
