"""Coverage-guided fuzzing of what reads callers' and issuers' octets: `make fuzz`, README.md."""
