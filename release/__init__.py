"""`make release VERSION=0.2.0`: checks that a commit can be released, builds its wheel and tags it.

plan       what stands against it; pure
checkout   what git and the files say
"""
