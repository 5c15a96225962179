"""What authentication costs, as ratios that were measured in one run. Start at README.md; `python -m benchmarks` runs it."""
