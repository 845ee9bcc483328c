"""What the API page is put together from, and that its parts know of each other."""

import re
from pathlib import Path
from threading import Event

import pytest
import yaml

from devstack.api_page import FROM_SWAGGER_UI, OURS, ApiPage
from devstack.jars import SWAGGER_UI, read_lock

CHECKOUT = Path(__file__).parents[2]
INDEX = (CHECKOUT / "gateway/docs/index.html").read_text()
REFERENCES = re.findall(r'(?:src|href)="([^"]+)"', INDEX)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, of the jar that the development environment has fetched."""
    page = ApiPage(tmp_path_factory.mktemp("page") / "docs")
    page.assemble(lambda line: None, Event())
    return page.folder


def test_the_folder_holds_the_page_and_nothing_else(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {*FROM_SWAGGER_UI, *(path.name for path in OURS)}


def test_all_that_the_page_refers_to_lies_beside_it(folder: Path) -> None:
    assert len(REFERENCES) == 6
    for reference in REFERENCES:
        assert (folder / reference.partition("?")[0]).stat().st_size > 0


def test_what_browsers_keep_has_its_version_in_its_address() -> None:
    version = SWAGGER_UI.version(read_lock(SWAGGER_UI.lock_file))
    assert {r for r in REFERENCES if r.startswith("swagger-ui")} == {
        f"swagger-ui.css?{version}",
        f"swagger-ui-bundle.js?{version}",
    }
    assert rf"[^?]*\?{re.escape(version)}'" in (CHECKOUT / "envoy.yaml").read_text()


def test_a_second_assembly_replaces_what_is_there(folder: Path) -> None:
    (folder / "page.js").write_text("old")
    ApiPage(folder).assemble(lambda line: None, Event())
    assert (folder / "page.js").read_bytes() == (CHECKOUT / "gateway/docs/page.js").read_bytes()


def test_the_page_calls_the_gateway_that_served_it() -> None:
    document = yaml.safe_load((CHECKOUT / "generated/openapi.yaml").read_text())
    assert [server["url"] for server in document["servers"]] == ["/"]


def test_no_script_or_style_is_in_the_document_itself() -> None:
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\bstyle=|\bon\w+=", INDEX)
