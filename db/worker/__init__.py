"""What the worker keeps beside the shop's tables: outcomes, positions, redrives, skips, withheld outcomes."""
