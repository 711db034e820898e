"""What in a resource, or in a client's words about it, is nobody's business.

Envoy's API marks keys and passwords (:func:`xds.rules.sensitive`); it leaves out the credentials of Google's gRPC
client and of cloud filters, headers that are added to requests, and everything in structs and maps. These are
known here by their names.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from xds import rules
from xds.types import PREFIX

#: What stands where something secret was, as in Envoy's own dumps.
REDACTED = "[redacted]"

HEADER = PREFIX + "envoy.config.core.v3.HeaderValue"
#: Fields of a header that hold what its ``key`` may make secret.
HEADER_VALUES = frozenset({"value", "raw_value"})

#: Fields that hold credentials in whatever message they stand.
_FIELDS = frozenset(
    {
        *("access_token", "google_refresh_token", "authorization_token", "json_key", "secret_data"),
        *("secret_access_key", "session_token", "private_key", "password", "auth_password", "pkcs12"),
    }
)
_TOKENS = re.compile(r"envoy\.extensions\.grpc_service\.call_credentials\.\w+\.v3\.\w+")

#: Names that say that what they name is a credential.
_TELLING = re.compile(
    r"authorization|cookie|passw|passphrase|secret|(^|[-_.])(api[-_]?key|private[-_]?key|access[-_]?key)|"
    r"(^|[-_.])(token|credentials?|jwt)($|[-_.])|(access|auth|bearer|refresh|session|id)[-_]?token",
    re.IGNORECASE,
)

_INLINE = re.compile(
    r"(?P<field>\b(?:inline_(?:string|bytes)|access_token|google_refresh_token|authorization_token|json_key|token|"
    r'secret_access_key|session_token|password): )"(?:[^"\\]|\\.)*"?'
)
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_LONGEST_WORDS = 8192


@cache
def fields(type_url: str) -> frozenset[str]:
    """Fields of a message that are secret whatever they hold."""
    name = type_url.removeprefix(PREFIX)
    tokens = {"token"} if _TOKENS.fullmatch(name) else set()
    return rules.sensitive(type_url) | _FIELDS | tokens


def telling(name: str) -> bool:
    """Whether what has this name (a header, a key of a struct or a map) is probably a credential."""
    return _TELLING.search(name) is not None


def holds_text(value: Any) -> bool:
    """Whether a google.protobuf.Value may hold a credential: numbers, such as limits of a cluster, do not."""
    return value.number_value is None and value.bool_value is None


def scrubbed(words: str) -> str:
    """A client's words without keys and passwords, and of bounded length: Envoy dumps what it cannot accept."""
    words = words if len(words) <= _LONGEST_WORDS else words[:_LONGEST_WORDS] + "..."
    return _PEM.sub(REDACTED, _INLINE.sub(rf'\g<field>"{REDACTED}"', words))
