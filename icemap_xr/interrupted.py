"""After Ctrl-C: what Dask and its event loop log while they are taken down is not the user's, and is not shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

#: loggers of callbacks that fail because what they talk to is gone
_LOUD = ("tornado.application", "asyncio", "distributed")
_NEVER = logging.CRITICAL + 1


class Calm:
    """Within it, an interruption silences these loggers until its end.

    ``with Calm() as calm, start() as cluster, calm.interrupted(): ...``: between the interruption and the end the
    cluster is closed.
    """

    def __enter__(self) -> Calm:
        """Remember how loud they are."""
        self._levels = {name: logging.getLogger(name).level for name in _LOUD}
        return self

    def __exit__(self, *_: object) -> None:
        """Let them speak again."""
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """Silence them when what is inside is interrupted."""
        try:
            yield
        except KeyboardInterrupt:
            for name in _LOUD:
                logging.getLogger(name).setLevel(_NEVER)
            raise
