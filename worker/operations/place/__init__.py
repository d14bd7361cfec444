"""`orders place`: publish orders, from a file or made up."""
