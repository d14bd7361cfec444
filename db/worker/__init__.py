"""The worker's own tables: outcomes, positions, leases, redrives, skips, withheld outcomes."""
