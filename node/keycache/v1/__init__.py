"""Generated from proto/keycache/v1 by proto/generate; do not edit."""
