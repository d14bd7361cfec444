"""The operators' commands, one folder each. `terminal` in each is the output for people."""
