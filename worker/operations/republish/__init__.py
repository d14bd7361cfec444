"""`republish`: publish stored outcomes again."""
