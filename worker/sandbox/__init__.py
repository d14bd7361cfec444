"""Servers and a demo for people and tests: not in the production image, imported by nothing but the demo."""
