"""`orders check`: what a worker would make of orders, before they are published."""
