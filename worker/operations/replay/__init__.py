"""`replay`: move a group's offsets, rehearsed first; take over those of another group."""
