"""What an operator's alarms stand on: the numbers move when the thing that they name happens."""

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from prometheus_client import REGISTRY

from server.tls import TlsFiles, server_credentials
from tests.unit.signing import key_set
from tests.unit.test_boundary import Gate, boundary, called, refused
from tests.unit.test_key_set import NEW, OLD, Source, loaded
from tests.unit.test_tls_files import NOW, issue, replace


def value(name: str) -> float:
    """Of a metric without labels."""
    found = REGISTRY.get_sample_value(name)
    assert found is not None, name
    return found


async def test_a_call_that_is_turned_away_is_counted() -> None:
    before, around, gate = value("nibble_calls_turned_away_total"), boundary(limit=1), Gate()
    first = asyncio.create_task(called(gate.method, around=around))
    await gate.entered.wait()
    await refused(around=around)
    assert value("nibble_calls_turned_away_total") == before + 1
    gate.opened.set()
    await first


async def test_the_keys_are_counted_and_a_source_that_fails_is_too() -> None:
    source = Source(key_set(OLD))
    keys = loaded(source)
    read, failures = (
        value("nibble_signing_keys_read_timestamp_seconds"),
        value("nibble_signing_keys_read_failures_total"),
    )
    source.failure = OSError("down")
    await keys.refresh()
    assert value("nibble_signing_keys") == 1
    assert value("nibble_signing_keys_read_failures_total") == failures + 1
    assert value("nibble_signing_keys_read_timestamp_seconds") == read

    source.failure, source.document = None, key_set(OLD, NEW)
    await keys.refresh()
    assert value("nibble_signing_keys") == 2
    assert value("nibble_signing_keys_read_timestamp_seconds") > read


def test_the_end_of_the_certificate_in_use_is_told(tmp_path: Path) -> None:
    leaf = issue(not_before=NOW, not_after=NOW + timedelta(days=7))
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "key.pem", None)
    replace(files.certificate, leaf.cert_chain_pems[0].bytes())
    replace(files.key, leaf.private_key_pem.bytes())
    server_credentials(files, lambda: NOW)
    assert value("nibble_tls_certificate_expiry_timestamp_seconds") == (NOW + timedelta(days=7)).timestamp()


def test_a_process_without_keys_and_certificate_has_no_number_that_sets_off_an_alarm() -> None:
    show = "import server.telemetry, prometheus_client as p; print(p.generate_latest().decode())"
    text = subprocess.run([sys.executable, "-c", show], check=True, capture_output=True, text=True).stdout
    for name in ("signing_keys", "signing_keys_read_timestamp_seconds", "tls_certificate_expiry_timestamp_seconds"):
        assert f"\nnibble_{name} NaN\n" in text
