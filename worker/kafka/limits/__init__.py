"""Topics' limits: what a topic refuses, and what to do about it."""
