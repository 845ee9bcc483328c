"""Where the figures of a benchmark go, beside what is printed."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(".bench")


def write_results(section: str, found: Any, file: Path | None = None) -> None:  # noqa: ANN401 - what JSON holds
    """Write them as JSON, to a file of the section's name in FOLDER unless another one is named."""
    file = file or FOLDER / f"{section}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2))
    print(f"{section}: all figures are in {file}")


def verdict(*, met: bool) -> str:
    """The one word that a target comes to."""
    return "met" if met else "MISSED"
