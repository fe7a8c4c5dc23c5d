"""From the entry log to the replica, and back again for what has expired."""
