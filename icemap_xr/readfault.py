"""What a raster that could not be read leaves behind: the fault in one line, and the record of the hole."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from icemap_xr.scenes import Scene
from icemap_xr.urls import scrub

_STATUS = re.compile(r"(?:response code|HTTP(?: error)?(?: code)?)\D{0,12}?:? ?([1-5]\d\d)\b")


@dataclass(frozen=True)
class ReadFault:
    """What could not be read; nothing of it is secret.

    Parameters
    ----------
    item, asset, url
        What was read, and from where.
    status
        HTTP status where there was one, else None.
    cause
        The fault in one line.
    tries
        How often it was tried.
    when
        Time of the last try (ISO, UTC).
    """

    item: str
    asset: str
    url: str
    status: int | None
    cause: str
    tries: int
    when: str

    def __str__(self) -> str:
        """Name item, asset, address and cause."""
        what = f"item {self.item!r}, asset {self.asset!r} at {self.url}"
        return f"{what} could not be read ({self.cause}; tried {self.tries}x)"


def diagnose(error: BaseException) -> tuple[int | None, str]:
    """Return the HTTP status, if one is told, and the fault in one line without credentials."""
    texts: list[str] = []
    one: BaseException | None = error
    while one is not None and len(texts) < 5:
        texts.append(str(one))
        one = one.__cause__ or one.__context__
    match = next((m for text in texts if (m := _STATUS.search(text))), None)
    told = next((text for text in texts if "previous exception" not in text and text.strip()), "no message")
    status = int(match.group(1)) if match else None
    return status, f"{type(error).__name__}: {scrub(told.strip().splitlines()[0])}"


def record(fault: ReadFault, scene: Scene, path: str) -> None:
    """Write the record of a hole; it is there before the empty block is."""
    content = asdict(fault) | {"feature": scene.feature, "time": str(scene.time)}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.partial"
    Path(temporary).write_text(json.dumps(content))
    os.replace(temporary, path)
