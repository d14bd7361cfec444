"""What topics refuse, and what to do about it."""
