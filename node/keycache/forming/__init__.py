"""Making a cluster of nodes, and enlarging it: what `keycache cluster create`, `token` and `join` ask a node to do."""
