"""`orders`: what was decided, listed; and rejected orders placed again."""
