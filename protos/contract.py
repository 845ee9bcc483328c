"""The contract as its image tells it: services, messages and enums with their comments, by full name."""

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.message import Message

PACKAGES = "nibble."
CALLED = ("nibble.order.", "nibble.user.")
"""The packages of other teams: of their services there is here what we call, and we answer none of it."""

Place = tuple[int, ...]
Element = tuple[str, Place, Message]


@dataclass(frozen=True)
class Contract:
    """What the files of the nibble packages declare.

    Names are full, without a leading dot, as in `nibble.support.v1.Ticket.Status`. The name of an enum value begins
    with that of its enum (not of the scope around it, as protobuf has it), so that it is unique.
    """

    elements: dict[str, Message]
    comments: dict[str, str]

    def services(self) -> dict[str, ServiceDescriptorProto]:
        """The services by full name, in the order of their files' names."""
        return {name: it for name, it in self.elements.items() if isinstance(it, ServiceDescriptorProto)}

    def methods(self) -> dict[str, MethodDescriptorProto]:
        """The calls of all services by full name."""
        return {name: it for name, it in self.elements.items() if isinstance(it, MethodDescriptorProto)}

    def offered(self) -> dict[str, MethodDescriptorProto]:
        """The calls that we answer."""
        return {name: it for name, it in self.methods().items() if not name.startswith(CALLED)}

    def messages(self) -> dict[str, DescriptorProto]:
        """The messages, nested ones too."""
        return {name: it for name, it in self.elements.items() if isinstance(it, DescriptorProto)}

    def fields(self) -> dict[str, FieldDescriptorProto]:
        """The fields of all messages by full name."""
        return {name: it for name, it in self.elements.items() if isinstance(it, FieldDescriptorProto)}

    def enums(self) -> dict[str, EnumDescriptorProto]:
        """The enums, nested ones too."""
        return {name: it for name, it in self.elements.items() if isinstance(it, EnumDescriptorProto)}


def read(image: FileDescriptorSet) -> Contract:
    """Reads an image that has source info; one without gives a contract without comments."""
    elements: dict[str, Message] = {}
    comments: dict[str, str] = {}
    for file in image.file:
        if file.package.startswith(PACKAGES):
            texts = {tuple(it.path): it.leading_comments for it in file.source_code_info.location}
            for name, place, element in _in_file(file):
                elements[name] = element
                comments[name] = _unindented(texts.get(place, ""))
    return Contract(elements, comments)


def _unindented(text: str) -> str:
    # protoc leaves the blank that follows each `//`.
    return "\n".join(line.removeprefix(" ").rstrip() for line in text.splitlines()).strip()


# A place is the path that descriptor.proto defines for SourceCodeInfo.Location: field numbers and indexes in turn.


def _in_file(file: FileDescriptorProto) -> Iterator[Element]:
    for index, message in enumerate(file.message_type):
        yield from _in_message(file.package, (FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, index), message)
    for index, enum in enumerate(file.enum_type):
        yield from _in_enum(file.package, (FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER, index), enum)
    for index, service in enumerate(file.service):
        yield from _in_service(file.package, (FileDescriptorProto.SERVICE_FIELD_NUMBER, index), service)


def _in_message(scope: str, place: Place, message: DescriptorProto) -> Iterator[Element]:
    name = f"{scope}.{message.name}"
    yield name, place, message
    for index, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*place, DescriptorProto.FIELD_FIELD_NUMBER, index), field
    for index, nested in enumerate(message.nested_type):
        yield from _in_message(name, (*place, DescriptorProto.NESTED_TYPE_FIELD_NUMBER, index), nested)
    for index, enum in enumerate(message.enum_type):
        yield from _in_enum(name, (*place, DescriptorProto.ENUM_TYPE_FIELD_NUMBER, index), enum)


def _in_enum(scope: str, place: Place, enum: EnumDescriptorProto) -> Iterator[Element]:
    name = f"{scope}.{enum.name}"
    yield name, place, enum
    for index, value in enumerate(enum.value):
        yield f"{name}.{value.name}", (*place, EnumDescriptorProto.VALUE_FIELD_NUMBER, index), value


def _in_service(scope: str, place: Place, service: ServiceDescriptorProto) -> Iterator[Element]:
    name = f"{scope}.{service.name}"
    yield name, place, service
    for index, method in enumerate(service.method):
        yield f"{name}.{method.name}", (*place, ServiceDescriptorProto.METHOD_FIELD_NUMBER, index), method
