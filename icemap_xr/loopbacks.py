"""Who can reach an address, and whether certificates are configured."""

from __future__ import annotations

import ipaddress

import dask


def is_loopback(host: str | None) -> bool:
    """Return whether a host is this machine's own loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def tls_files(*roles: str) -> bool:
    """Return whether Dask is configured with certificates for these roles."""
    names = ("ca-file", *(f"{role}.cert" for role in roles))
    return all(dask.config.get(f"distributed.comm.tls.{name}", None) for name in names)
