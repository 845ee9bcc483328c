"""The API page that Envoy serves at /docs: gateway/docs, Swagger UI and the OpenAPI document in one folder."""

import shutil
from pathlib import Path
from threading import Event
from zipfile import ZipFile

from devstack.jars import SWAGGER_UI, Jars
from devstack.part import CHECKOUT, Say

OURS = (
    *(CHECKOUT / "gateway" / "docs" / name for name in ("index.html", "page.css", "page.js")),
    CHECKOUT / "generated" / "openapi.yaml",
)
FROM_SWAGGER_UI = (
    "swagger-ui-bundle.js",
    # The licences of what the bundle holds; it asks for them to stay beside it.
    "swagger-ui-bundle.js.LICENSE.txt",
    "swagger-ui.css",
    "favicon-32x32.png",
)


class ApiPage:
    """The page's files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._swagger_ui = Jars(SWAGGER_UI)

    def assemble(self, say: Say, stopping: Event) -> None:
        """Writes every file of the page anew, downloading Swagger UI where this machine has none; see Jars.provide."""
        self._swagger_ui.provide(say, stopping)
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in OURS:
            shutil.copyfile(path, self.folder / path.name)
        with ZipFile(self._swagger_ui.main) as jar:
            for name in FROM_SWAGGER_UI:
                inside = f"META-INF/resources/webjars/swagger-ui/{self._swagger_ui.version}/{name}"
                (self.folder / name).write_bytes(jar.read(inside))
