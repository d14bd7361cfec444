"""What can go wrong with local services: one exception, its message says what to do next."""

# Not by name: no index has this project, and what another one calls so is another project.
INSTALL_HINT = "pip install '.[local]' in the order worker's folder"


class LocalServiceError(Exception):
    """A service could not be had. The message is one line, for a person, and names the way out."""


def missing_package(error: ImportError) -> LocalServiceError:
    """The optional packages are not installed: say which command installs them."""
    return LocalServiceError(f"{error.name or error} is not installed; local services need: {INSTALL_HINT}")
