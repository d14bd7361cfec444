"""Why a database is not upgraded. Of its own, for the migrations that find out."""


class UpgradeRefusedError(Exception):
    """Somebody has to put the database right first. The message is one line, with what to do."""
