"""Finds sensitive data in what people write: one module per kind, read in the order of `detector.DETECTORS`.

The checks that somebody else maintains (check digits, lengths by country) are python-stdnum's; which words announce a
value is ours. Each step costs a bounded time per character, whatever the text: patterns can't go back over more than
one value.
"""

from server.detection.detector import find as find
