"""Parser workers: processes with limits in which hostile input is parsed."""
