"""The one values file that a cluster on Kubernetes is made from (`icemap manifests`), checked before anything is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from dask.utils import parse_bytes
from pydantic import ConfigDict, TypeAdapter, ValidationError

from icemap_xr.config import RunConfig, parse_config
from icemap_xr.errors import ConfigError, InputError
from icemap_xr.lineage import scrub
from icemap_xr.types import StrPath

_STRICT = ConfigDict(extra="forbid")
#: names of Kubernetes objects, short enough for what the operator adds to them
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclass(frozen=True)
class Keys:
    """A Secret that is there already: its name, and the variables that its keys are called.

    Values are never in this file, nor in an image or a manifest.
    """

    __pydantic_config__ = _STRICT

    secret: str
    variables: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what is no name of a variable: it may be the key itself."""
        wrong = sum(_VARIABLE.fullmatch(one) is None for one in self.variables)
        if wrong or not self.variables:
            raise InputError(
                f"{wrong} of {len(self.variables)} variables of secret {self.secret!r} are no names in capitals: give "
                "names of variables here, and their values to kubectl create secret"
            )


@dataclass(frozen=True)
class Toleration:
    """A taint of nodes that is accepted; see Kubernetes."""

    __pydantic_config__ = _STRICT

    key: str
    operator: str = "Exists"
    value: str | None = None
    effect: str | None = "NoSchedule"


@dataclass(frozen=True)
class Pods:
    """What a kind of pod gets.

    Parameters
    ----------
    cpu
        Cores.
    memory
        Such as ``"16GiB"``.
    threads
        Threads of a worker.
    nodes
        Labels of the nodes that it may run on.
    tolerations
        Taints of those nodes.
    """

    __pydantic_config__ = _STRICT

    cpu: int
    memory: str
    threads: int = 2
    nodes: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()

    def __post_init__(self) -> None:
        """Check ranges."""
        try:
            size = parse_bytes(self.memory)
        except ValueError:
            size = 0
        if self.cpu < 1 or self.threads < 1 or size < 2**30:
            raise InputError(
                f"cpu={self.cpu}, threads={self.threads}, memory={self.memory!r} are not allowed: give at least 1, 1 "
                "and 1GiB"
            )

    @property
    def bytes(self) -> int:
        """Memory in bytes."""
        return int(parse_bytes(self.memory))


@dataclass(frozen=True)
class Storage:
    """A volume that all pods write: cubes, maps, the elevation model.

    Parameters
    ----------
    size
        Such as ``"2TiB"``.
    storage_class
        Of volumes that many nodes can write (ReadWriteMany).
    provisioner, parameters
        Make a class of that name; without a provisioner it must be there.
    """

    __pydantic_config__ = _STRICT

    size: str
    storage_class: str
    provisioner: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse volumes that only one node can write."""
        if self.provisioner is not None and "cinder" in self.provisioner:
            raise InputError(
                f"storage.provisioner {self.provisioner!r} makes volumes that one node can write, and workers on "
                "several nodes write to this one: use NFS, CephFS or Manila"
            )


@dataclass(frozen=True)
class Bounds:
    """Between how many workers with a GPU the cluster grows and shrinks."""

    __pydantic_config__ = _STRICT

    minimum: int
    maximum: int

    def __post_init__(self) -> None:
        """Check ranges: without one worker nothing is ever computed."""
        if not 1 <= self.minimum <= self.maximum:
            raise InputError(
                f"autoscaling {self.minimum} to {self.maximum} is not allowed: give 1 or more, and a maximum of at "
                "least the minimum"
            )


@dataclass(frozen=True)
class Values:
    """All of a cluster.

    Parameters
    ----------
    name, namespace
        Of the cluster, and of all its objects.
    image
        Where the image is pushed and pulled from, with a tag or digest that never moves.
    base
        The image it is built on, with such a tag or digest.
    registry
        Name of a Secret with the registry's credentials, if it needs some.
    tls
        Name of the Secret with `ca.crt`, `tls.crt` and `tls.key`.
    archive
        Keys of the provider of scenes: for workers and runs.
    bucket
        Keys, endpoint and region for the bucket that results are published to: for that pod alone.
    bucket_url
        Where, such as ``"s3://glaciers/svalbard"``.
    storage, autoscale
        See `Storage`, `Bounds`.
    readers
        How many workers read.
    scheduler, reader, gpu, runner
        What the pods get.
    operator
        Namespace of the Dask operator.
    monitoring
        Namespace of a Prometheus that may read metrics, if there is one.
    run
        The run's configuration, with paths as the pods see them (the volume is ``/data``); `cluster` is filled in.
    """

    __pydantic_config__ = _STRICT

    name: str
    namespace: str
    image: str
    base: str
    tls: str
    archive: Keys
    storage: Storage
    autoscale: Bounds
    readers: int
    scheduler: Pods
    reader: Pods
    gpu: Pods
    runner: Pods
    run: Mapping[str, Any]
    bucket: Keys | None = None
    bucket_url: str | None = None
    registry: str | None = None
    operator: str = "dask-operator"
    monitoring: str | None = None

    def __post_init__(self) -> None:
        """Check what belongs together."""
        for what in ("name", "namespace", "tls", "operator"):
            if not _NAME.fullmatch(getattr(self, what)):
                raise InputError(
                    f"{what} {getattr(self, what)!r} is not allowed: use at most 32 small letters, digits and '-'"
                )
        for what in ("image", "base"):
            _check_pinned(what, getattr(self, what))
        if self.readers < 1:
            raise InputError(f"readers={self.readers} is not allowed: give at least 1, nothing is read otherwise")
        if (self.bucket is None) != (self.bucket_url is None) or (
            self.bucket_url is not None and not self.bucket_url.startswith("s3://")
        ):
            raise InputError("bucket and bucket_url belong together, and the address begins with s3://")
        if "cluster" in self.run:
            raise InputError("run.cluster is filled in from the other values: leave it out")
        if scrub(self.config().to_dict()) != self.config().to_dict():
            raise InputError("run holds credentials, which a manifest would show: use variables of a Secret (archive)")

    @property
    def scheduler_address(self) -> str:
        """Where scheduler and clients meet."""
        return f"tls://{self.name}-scheduler.{self.namespace}.svc.cluster.local:8786"

    def config(self) -> RunConfig:
        """Return the run's configuration on this cluster."""
        cluster = {"kind": self.scheduler_address, "gpus": 1, "wait": 1800.0}
        return parse_config(dict(self.run) | {"cluster": cluster}, "run")


def read_values(path: StrPath) -> Values:
    """Read and check a values file.

    Raises
    ------
    ConfigError
        It is missing or no YAML, a key is unknown or missing, or a value is not allowed; values are not repeated.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}): give the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no valid YAML ({type(error).__name__}): check its indentation") from None
    try:
        return TypeAdapter(Values).validate_python(content)
    except ValidationError as error:
        first = min(error.errors(), key=lambda one: one["type"] != "unexpected_keyword_argument")
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def _check_pinned(what: str, image: str) -> None:
    name, _, tag = image.rpartition(":")
    if not name or "/" in tag or tag == "latest":
        raise InputError(f"{what} {image!r} is not pinned: give a version or a digest, and not latest")
