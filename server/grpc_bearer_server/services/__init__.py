"""Implementations of generated services."""
