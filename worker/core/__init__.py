"""The pure core, which makes every decision: no await, clock, client or connection."""
