"""Generated from the protos by `make proto`; never edited."""
