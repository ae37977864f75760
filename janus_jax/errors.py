"""The one exception that commands turn into one line and exit status 2."""


class UserError(ValueError):
    """Something the user can mend. The message is a single line that names the mend."""
