"""Writes generated/ from protos/: message classes, gRPC stubs, their types, Envoy's descriptor set, OpenAPI.

Envoy's configurations for TLS too, from envoy.yaml and gateway/tls.yaml, and the texts of the statements that
server/*/compositions.py compose.

    python protos/generate.py            rewrite generated/
    python protos/generate.py --check    write nothing; name what is stale and exit 1
    python protos/generate.py --release  make the present contract the one that later changes must not break

Everything needed comes from wheels of the lock file, so the output is the same, byte by byte, on every machine.
"""

import argparse
import filecmp
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a run by path finds only what lies beside the file

from protos import contract, envoy_tls, openapi, sql

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"
GENERATED = ROOT / "generated"
RELEASED = PROTOS / "released.binpb"

# Envoy renders the details of an error only if it knows their types, which no proto of ours imports.
ERROR_DETAILS = ("google/rpc/error_details.proto", "google/rpc/status.proto")


class GenerateError(Exception):
    """Nothing could be generated; the message says why."""


def own_protos() -> list[str]:
    """The project's proto files, relative to protos/, in alphabetical order."""
    return sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))


def protoc(*arguments: str) -> None:
    """Runs protoc over protos/, with the plugins and google protos of this environment.

    Raises GenerateError; protoc itself has written to standard error by then.
    """
    google = distribution("googleapis-common-protos").locate_file("")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}", f"--proto_path={google}"]
    if subprocess.run([*command, *arguments], check=False).returncode:
        raise GenerateError("protoc refused the protos")


def plugin(name: str) -> str:
    """The protoc option that finds a plugin beside this interpreter, whatever PATH says."""
    return f"--plugin={name}={Path(sysconfig.get_path('scripts')) / name}"


def write_stubs(folder: Path) -> None:
    """Writes *_pb2.py for every file, *_pb2_grpc.py for those named *_service.proto, and their .pyi files."""
    services = [name for name in own_protos() if name.endswith("_service.proto")]
    mypy, mypy_grpc = plugin("protoc-gen-mypy"), plugin("protoc-gen-mypy_grpc")
    protoc(f"--python_out={folder}", mypy, f"--mypy_out=quiet:{folder}", *own_protos())
    protoc(f"--grpc_python_out={folder}", mypy_grpc, f"--mypy_grpc_out=quiet:{folder}", *services)


def write_descriptor_set(path: Path) -> None:
    """Writes what Envoy transcodes by: all files, their imports and the error details, without comments."""
    protoc(f"--descriptor_set_out={path}", "--include_imports", *own_protos(), *ERROR_DETAILS)


def write_statements(folder: Path) -> None:
    """Writes a module for each service into a package that has no other reason to be imported."""
    folder.mkdir()
    for service, text in sql.modules().items():
        (folder / f"{service}.py").write_text(text, encoding="utf-8")


def image() -> FileDescriptorSet:
    """The present contract with its imports and its comments."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.binpb"
        protoc(f"--descriptor_set_out={path}", "--include_imports", "--include_source_info", *own_protos())
        return FileDescriptorSet.FromString(path.read_bytes())


def write(folder: Path) -> None:
    """Fills an empty folder with everything that is generated."""
    write_stubs(folder)
    write_descriptor_set(folder / "nibble.binpb")
    write_statements(folder / "nibble_sql")
    (folder / "openapi.yaml").write_text(openapi.text(contract.read(image())), encoding="utf-8")
    plain, tls = (ROOT / "envoy.yaml").read_text("utf-8"), (ROOT / "gateway" / "tls.yaml").read_text("utf-8")
    for name, text in envoy_tls.texts(plain, tls).items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def files_in(folder: Path) -> set[str]:
    """The files below folder, relative to it, without what Python caches there."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def stale_files() -> list[str]:
    """The files of generated/ that are missing, superfluous or other than they would be written now."""
    with tempfile.TemporaryDirectory() as fresh:
        write(Path(fresh))
        names = files_in(Path(fresh)) | files_in(GENERATED)
        _, different, absent = filecmp.cmpfiles(fresh, GENERATED, names, shallow=False)
    return sorted(different + absent)


def rewrite() -> None:
    """Replaces generated/ once everything could be generated."""
    with tempfile.TemporaryDirectory() as folder:
        # A folder in it, since the temporary one is closed to other users, and a copy would be too.
        fresh = Path(folder) / "generated"
        fresh.mkdir()
        write(fresh)
        shutil.rmtree(GENERATED, ignore_errors=True)
        shutil.copytree(fresh, GENERATED)


def release() -> None:
    """Makes the present contract the baseline of the check for breaking changes."""
    released = image()
    for file in released.file:
        file.ClearField("source_code_info")  # a comment breaks nobody
    RELEASED.write_bytes(released.SerializeToString(deterministic=True))


def check() -> None:
    """Raises GenerateError naming every stale file."""
    if stale := stale_files():
        names = "\n".join(f"  generated/{name}" for name in stale)
        raise GenerateError(f"generated/ is stale; run `make generate`\n{names}")


def main() -> None:
    """Does what the command line asks; exits 1 with a message when it can't."""
    parser = argparse.ArgumentParser(description="Write generated/ from protos/.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_const", const=check, dest="act", help="only name what is stale")
    mode.add_argument(
        "--release", action="store_const", const=release, dest="act", help="make it the released contract"
    )
    parser.set_defaults(act=rewrite)
    try:
        parser.parse_args().act()
    except GenerateError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
