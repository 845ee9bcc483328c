"""What the devstack raises for everything that can be foreseen."""


class StackError(Exception):
    """The stack cannot start or go on; the message says what is wrong and what to do about it.

    The command line prints the message without a traceback and exits with status 1.
    """


class StackStopped(StackError):
    """The stack was asked to stop while it was still starting."""
