"""The long run: steady load, a fault now and then, every order judged."""
