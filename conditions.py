"""Conditional requests (RFC 9110, section 13): the versions that their entity tags name."""

import re

from content_encoding import SUFFIX
from lean_flask import current_request

# An entity tag (RFC 9110, section 8.8.3), read without the suffix of a compressed response.
ENTITY_TAG = re.compile(rf'"([^"]*?){SUFFIX}?"')
VERSION_PATTERN = re.compile(r"[1-9][0-9]{0,17}")


def tags_in(header: str) -> list[str]:
    """Find the entity tags of a list.

    A bare version is a tag that lost its quotes: after a 412, its client would retry for ever.
    """
    return [header] if VERSION_PATTERN.fullmatch(header) else ENTITY_TAG.findall(header)


def versions_of(header: str) -> list[str]:
    """Find the versions that a list of entity tags names.

    Weak tags count for If-Match too, against RFC 9110: a proxy that compresses may make tags weak,
    and would lock its clients out of writing. A version is exact all the same.
    """
    return [tag for tag in tags_in(header) if VERSION_PATTERN.fullmatch(tag)]


def expected_versions() -> list[str] | None:
    """Read the versions of If-Match (RFC 9110, section 13.1.1); None: any version."""
    header: str = current_request().environ.get("HTTP_IF_MATCH", "*").strip()
    return None if header == "*" else versions_of(header)


def is_fresh(tag: str) -> bool:
    """Tell whether If-None-Match (RFC 9110, section 13.1.2) names what the client has already."""
    header: str = current_request().environ.get("HTTP_IF_NONE_MATCH", "").strip()
    return header == "*" or tag in tags_in(header)
