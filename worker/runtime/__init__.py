"""The process: started, supervised, stopped."""
