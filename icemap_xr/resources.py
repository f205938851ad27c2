"""Where the data files that come with icemap-xr lie: provider profiles, the model registry, demonstration models."""

from __future__ import annotations

from pathlib import Path

from icemap_xr.errors import IcemapError

_PACKAGE = Path(__file__).resolve().parent


def catalog_path(*parts: str) -> Path:
    """Return the path of a file or folder of the catalogs.

    Parameters
    ----------
    *parts
        Path below the catalogs' folder, for example ``"models.yaml"``. It need not exist.

    Returns
    -------
    pathlib.Path
        In an installed package below ``icemap_xr/_catalogs``, in a checkout below ``catalogs``.

    Raises
    ------
    IcemapError
        The catalogs are in neither place: the installation is incomplete.
    """
    for root in (_PACKAGE / "_catalogs", _PACKAGE.parent / "catalogs"):
        if root.is_dir():
            return root.joinpath(*parts)
    raise IcemapError(
        f"no catalogs folder beside or inside {_PACKAGE}: the installation is incomplete; install icemap-xr again"
    )
