"""`lag`: how far the group is, and why a partition waits."""
