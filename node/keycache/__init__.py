"""Keycache: a replicated cache of mail-encryption keys."""
