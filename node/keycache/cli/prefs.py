"""The one value worth taking over from a SEMS `prefs.xml`: `key-lookup-cache-timeout`, in minutes (FACTS 1)."""

from __future__ import annotations

from datetime import timedelta
from xml.parsers import expat

from keycache.domain.errors import InvalidInput, NotFound

ELEMENT = "key-lookup-cache-timeout"

SIZE_LIMIT = 4 * 1024 * 1024
"""The file is some tens of KiB; a hundred times that is no settings file."""


class _Refused(Exception):
    pass


def read_timeout(data: bytes) -> timedelta:
    """The timeout of looked-up keys as the file states it; whether it is in range is for the settings to judge.

    Document types and entities are refused before anything is expanded: they are how a small file becomes a large one or reads
    other files, and this one needs neither. Raises InvalidInput or NotFound.
    """
    if len(data) > SIZE_LIMIT:
        raise InvalidInput(f"The file is over {SIZE_LIMIT // 1024 // 1024} MiB.", hint="Give SEMS's own prefs.xml.")
    found: list[str] = []
    inside = False

    def start(name: str, _attributes: dict[str, str]) -> None:
        nonlocal inside
        inside = name == ELEMENT
        if inside:
            found.append("")

    def end(_name: str) -> None:
        nonlocal inside
        inside = False

    def text(part: str) -> None:
        if inside:
            found[-1] += part

    def refuse(*_arguments: object) -> int:
        raise _Refused

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(data, True)  # noqa: FBT003 -- expat takes it by position only
    except _Refused as error:
        raise InvalidInput(
            "The file declares a document type or entities, which are not read.", hint="Remove the <!DOCTYPE ...> part."
        ) from error
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise InvalidInput(f"The file is not well-formed XML: {error}.", hint="Give SEMS's own prefs.xml.") from error
    return _minutes(found)


def _minutes(found: list[str]) -> timedelta:
    values = {value.strip() for value in found}
    if not values:
        raise NotFound(f"The file holds no <{ELEMENT}>.", hint="It stands in /etc/ovid/prefs.xml, unless it was never changed.")
    if len(values) > 1:
        raise InvalidInput(f"The file holds several different <{ELEMENT}>: {', '.join(sorted(values))[:80]}.")
    (value,) = values
    if not (value.isascii() and value.isdigit() and len(value) <= _DIGITS):
        raise InvalidInput(f"<{ELEMENT}> is {value[:40]!r}, not a number of minutes.")
    return timedelta(minutes=int(value))


_DIGITS = 12
"""As many as `timedelta` surely holds."""
