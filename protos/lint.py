"""Checks the protos with buf: their style, and that nothing breaks callers of the contract as last released.

    python protos/lint.py

The rules stand in buf.yaml. `python protos/generate.py --release` accepts a change that is meant to break callers.
"""

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a run by path finds only what lies beside the file

from protos import generate

RULES = generate.PROTOS / "buf.yaml"


def complaints(contract: FileDescriptorSet) -> str:
    """What buf has against a contract with source info, one complaint a line; empty when all is well."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        image.write_bytes(contract.SerializeToString())
        return _buf("lint", str(image)) + _buf("breaking", str(image), "--against", str(generate.RELEASED))


def _buf(*arguments: str) -> str:
    buf = Path(sysconfig.get_path("scripts")) / "buf"
    run = subprocess.run([buf, *arguments, "--config", RULES], capture_output=True, text=True, check=False)
    if run.returncode and not run.stdout:
        return run.stderr or f"buf {arguments[0]} failed with status {run.returncode}\n"
    return run.stdout


def main() -> None:
    """Prints one line and exits 0, or prints the complaints and exits 1."""
    try:
        found = complaints(generate.image())
    except generate.GenerateError as error:
        sys.exit(str(error))
    if found:
        sys.exit(found.rstrip())
    sys.stdout.write("protos: style is kept and nothing breaks the released contract\n")


if __name__ == "__main__":
    main()
