"""The one exception that the scripts turn into a line of text instead of a traceback."""


class FetchError(RuntimeError):
    """A failure to be expected of networks, disks and archives.

    The message is one line: what failed, on which file or address, and the remedy.
    """
