"""The README's claims about the code that a change could silently make untrue."""

from pathlib import Path

from server.settings import ENV_NAMES

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_readme_explains_every_setting() -> None:
    assert {name for name in ENV_NAMES if f"`{name}`" not in README} == set()
