"""Other libraries' logs without credentials: rasterio, odc-stac, urllib3 and others log addresses as they are."""

from __future__ import annotations

import logging
import re

from icemap_xr.urls import scrub

_LIBRARIES = ("rasterio", "odc", "stackstac", "urllib3", "pystac_client", "fiona", "pyogrio")
_QUERY = re.compile(r"\?[^\s\"']+")


class _Scrub(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _QUERY.sub("?...", scrub(record.getMessage())), ()
        # a traceback holds the same addresses
        record.exc_info = record.exc_text = None
        return True


_FILTER = _Scrub()


def scrub_logs() -> None:
    """Strip credentials from what is logged by libraries that handle addresses; may be called any number of times."""
    # a filter works only on the logger that was called, not on its children
    for name in [*_LIBRARIES, *logging.root.manager.loggerDict]:
        if name.split(".")[0] in _LIBRARIES:
            logging.getLogger(name).addFilter(_FILTER)
