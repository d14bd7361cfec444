"""`check`: what workers would decide for orders, before they are published."""
