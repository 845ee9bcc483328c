"""The token by which this service is known to another one: a file that somebody else keeps fresh."""

from pathlib import Path
from typing import NamedTuple


class UnusableToken(Exception):
    """The file can't be read, or holds nothing that can be sent; the message says which, and never what it holds."""


class BearerFile(NamedTuple):
    """A file that holds a token and nothing else but blanks around it."""

    path: Path

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with a gRPC call. The file is read each time: a token that was replaced is used at once.

        Raises:
            UnusableToken: there is nothing to send.
        """
        try:
            token = self.path.read_text("ascii", errors="replace").strip()
        except OSError as error:
            raise UnusableToken(f"the token file can't be read: {error}") from error
        if not (token.isascii() and token.isprintable() and token) or " " in token:
            raise UnusableToken("the token file holds no token")
        return (("authorization", f"Bearer {token}"),)
