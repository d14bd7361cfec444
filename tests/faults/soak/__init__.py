"""The long run: steady load, a blow now and then, every order judged."""
