"""Texts of other services, which nobody here has checked: what of them can't be shown."""

import re

UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""C0 and C1, line separators, and what turns the direction of the text around it."""
UNSEEN = re.compile("[\u00ad\u200b\u2060-\u2064\ufeff]")
"""What has no width and no meaning; joiners have one, in Persian and in emoji, and marks of direction have one."""


def on_one_line(text: str) -> str:
    """The text without what can't be shown or seen, and with one blank for any number of blanks and newlines."""
    # Blanks first: newlines and tabs are of both kinds. Blanks last: where nothing is left between two, they are one.
    return " ".join(UNSEEN.sub("", UNSHOWABLE.sub("", " ".join(text.split()))).split())
