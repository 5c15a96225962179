"""What a method requires: read from proto options and rules, compiled once, asked per call."""
