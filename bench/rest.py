"""REST as a client of a benchmark speaks it: requests that are ready bytes, on connections that are kept."""

import asyncio
import json
import re
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import urlencode

from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

LONGEST_ANSWER = 1 << 20
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class NotOk(OSError):
    """A request was answered with another status than 200, or with what is no HTTP answer."""


def http_request(method: MethodDescriptor, request: Message, token: str) -> bytes:
    """The request of a call in HTTP/1.1, by the binding that its proto gives it."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    fields = MessageToDict(request, preserving_proto_field_name=True)
    path = getattr(rule, verb)
    for name in re.findall(r"{(\w+)}", path):
        path = path.replace(f"{{{name}}}", fields.pop(name))
    if verb == "get":
        return _written(f"GET {path}?{urlencode(fields, doseq=True)}", token, b"")
    return _written(f"{verb.upper()} {path}", token, json.dumps(fields).encode())


def _written(line: str, token: str, body: bytes) -> bytes:
    head = f"{line} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class Connection:
    """A connection that carries one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, target: str) -> Self:
        """A connection to HOST:PORT."""
        host, _, port = target.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port), limit=LONGEST_ANSWER))

    def close(self) -> None:
        """Close it."""
        self._writer.close()

    async def answer_to(self, request: bytes) -> Any:  # noqa: ANN401 - JSON's members as attributes
        """The members of the JSON object that the request is answered with.

        Raises:
            NotOk: by its status, or since it has no length that one can read.
        """
        self._writer.write(request)
        head = await self._reader.readuntil(_HEAD_END)
        body = await self._body(head)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise NotOk((head + body).decode(errors="replace"))
        return json.loads(body, object_hook=lambda members: SimpleNamespace(**members))

    async def _body(self, head: bytes) -> bytes:
        length = _LENGTH.search(head)
        if length is not None:
            return await self._reader.readexactly(int(length[1]))
        if b"transfer-encoding: chunked" not in head.lower():
            raise NotOk(head.decode(errors="replace"))
        body = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return body
