"""Errors that a person can act on: the command line prints their one line and exits with 2."""


class UserError(Exception):
    """Something outside the program is wrong: a file, an option, a folder, a disk.

    The message is one line that names the file, row or key, and says what to do. Anything that is
    not a UserError is a fault of ours and keeps its traceback.
    """


class StorageError(UserError):
    """A path could not be read or written."""


class DiskFull(StorageError):
    """No space, no quota or no inodes left where a file was to be written."""


class NotAllowed(StorageError):
    """The operating system or the store refused: missing rights or a read-only file system."""


class FolderInUse(UserError):
    """Another run owns the output folder."""
