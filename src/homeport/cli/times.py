"""Moments as people write them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from homeport.cli.errors import usage

EXAMPLES = '"2026-11-20T14:05:07.5Z", "2026-11-20 14:05", "14:05", "yesterday 14:05", "10m" for ten minutes ago, or "latest"'
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_UNITS = {"s": "s", "sec": "s", "second": "s", "m": "m", "min": "m", "minute": "m", "h": "h", "hr": "h", "hour": "h", "d": "d", "day": "d"}
_WORDS = re.compile(r"(an?|\d+(?:\.\d+)?)\s*([a-z]+?)s?")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?\s*(am|pm)?", re.IGNORECASE)
_ZONE = re.compile(r"\s*(Z|UTC|GMT|[+-]\d{2}:?\d{2}|[A-Z][A-Za-z]+/[A-Za-z_/+-]+)$")


def moment(text: str, now: datetime) -> datetime:
    """A time as people write it, in UTC. Without a zone it is this machine's. Raises ValueError.

    ISO 8601; a clock time (`14:05`, `2:05pm`: the last such time); `today`, `yesterday` or the name of a day before a clock time; `now`; a
    duration ago (`10m`, `1h30m ago`, `2 hours ago`); seconds since 1970 behind an `@`.
    """
    text = " ".join(text.split())
    if text.lower() == "now":
        return now
    if re.fullmatch(r"@\d{1,11}(\.\d+)?", text):
        return datetime.fromtimestamp(float(text[1:]), UTC)
    found = _by_day(text, now) or _iso(text)
    return found.astimezone(UTC) if found is not None else now - _ago(text)


def given(name: str, text: str) -> dict[str, str]:
    """A moment as a field of a request; nothing for `latest` and for no text. Raises CliError."""
    if text in ("", "latest"):
        return {}
    try:
        return {name: moment(text, datetime.now(UTC)).isoformat()}
    except (ValueError, OverflowError) as error:
        raise usage(f"{text!r} is not a time: {error}.", f"Write {EXAMPLES}.") from error


def _iso(text: str) -> datetime | None:
    zone, rest = _zone(text)
    try:
        found = datetime.fromisoformat(rest)
    except ValueError:
        if re.match(r"\d{4}-\d", rest):
            raise ValueError("it looks like a date and cannot be read as one") from None
        return None
    if found.tzinfo is None and len(rest) <= len("2026-11-20"):
        raise ValueError("it is a day without a time of day")
    if zone is not None:
        return found.replace(tzinfo=zone)
    return found if found.tzinfo is not None else found.astimezone()


def _by_day(text: str, now: datetime) -> datetime | None:
    """`[today|yesterday|DAY] [at] CLOCK [ZONE]`; None when it is none of that."""
    zone, rest = _zone(text)
    words = rest.lower().split()
    named = words[0] if words and words[0] in ("today", "yesterday", *_DAYS) else ""
    clock = " ".join(word for word in words[1 if named else 0 :] if word != "at")
    if named and not clock:
        raise ValueError(f"it says no time of day: write {named} 14:05")
    parts = _CLOCK.fullmatch(clock)
    if parts is None:
        if named:
            raise ValueError(f"{clock!r} is no time of day")
        return None
    at, local = _clock(parts), now.astimezone(zone)
    if not named:
        found = _on(local.date(), at, zone)
        return found if found <= now else _on(local.date() - timedelta(days=1), at, zone)
    back = {"today": 0, "yesterday": 1}.get(named)
    if back is None:
        back = (local.weekday() - _DAYS.index(named)) % 7
        back += 7 if back == 0 and _on(local.date(), at, zone) > now else 0
    return _on(local.date() - timedelta(days=back), at, zone)


def _clock(parts: re.Match[str]) -> time:
    hour, minute, seconds = int(parts[1]), int(parts[2]), float(parts[3] or 0)
    if parts[4]:
        if not 1 <= hour <= 12:
            raise ValueError(f"{hour} {parts[4]} is no hour")
        hour = hour % 12 + (12 if parts[4].lower() == "pm" else 0)
    micro = round(seconds % 1 * 1_000_000)
    return time(hour, minute, int(seconds), min(micro, 999_999))


def _on(day: date, at: time, zone: tzinfo | None) -> datetime:
    """A clock time on a day; the machine's own zone finds its offset for that day by itself."""
    naive = datetime.combine(day, at)
    return naive.replace(tzinfo=zone) if zone is not None else naive.astimezone()


def _zone(text: str) -> tuple[tzinfo | None, str]:
    """The zone at the end of a text that `fromisoformat` would not read there, and the rest."""
    found = _ZONE.search(text)
    if found is None or (found[1][0] in "+-" and ":" not in text[: found.start()]):
        return None, text
    name, rest = found[1], text[: found.start()]
    if name in ("Z", "UTC", "GMT"):
        return UTC, rest
    if name[0] in "+-":
        return datetime.strptime(name.replace(":", ""), "%z").tzinfo, rest
    try:
        return ZoneInfo(name), rest
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"{name} is no time zone") from error


def _ago(text: str) -> timedelta:
    from homeport.model.base import parse_duration

    plain = text.lower().removesuffix("ago").strip()
    words = _WORDS.fullmatch(plain)
    if words is not None and (unit := _UNITS.get(words[2])) is not None:
        plain = ("1" if words[1].startswith("a") else words[1]) + unit
    if words is not None and words[2] in ("week", "w"):
        plain = f"{7 * float('1' if words[1].startswith('a') else words[1]):g}d"
    try:
        found: timedelta = parse_duration(plain)
    except ValueError:
        raise ValueError("it is no date, no time of day and no duration") from None
    return found
