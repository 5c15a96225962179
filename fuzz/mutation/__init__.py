"""The configurations of `make mutation` (tools/mutation.py)."""
