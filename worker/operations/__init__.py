"""What operators do, a folder a command. `terminal` of each is what a person sees of it."""
