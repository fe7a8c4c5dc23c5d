"""Pure parsers: from the bytes of a message to findings. No I/O, no clock."""
