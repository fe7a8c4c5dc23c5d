"""The commands, one module per group. Each offers `register(app)`."""
