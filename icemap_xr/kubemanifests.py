"""Manifests of a cluster on Kubernetes with the Dask operator, and the recipe of its image, from one values file.

The scheduler and all workers speak TLS with certificates of a Secret; the network policies close the rest. Nothing here
holds a credential: pods get keys from Secrets by name. Workers with a GPU are the default group, which the operator
scales; those that read are a group of a fixed size (`icemap_xr.placing`).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from icemap_xr.errors import InputError, OutputExistsError
from icemap_xr.folders import write_text
from icemap_xr.kubevalues import Keys, Pods, Values, read_values
from icemap_xr.placing import AT_WORK, GPU, READ
from icemap_xr.types import StrPath

Manifest = dict[str, Any]

#: user and group of all processes in all pods
USER = 1000
COMM, DASHBOARD, WORKER_PORT, WORKER_DASHBOARD, NANNY_PORT = 8786, 8787, 8788, 8789, 8790
DATA, CERTIFICATES, CONFIG = "/data", "/certificates", "/config"
_RUN = "run.yaml"
_LOCK = "requirements.lock"
_DASK = "kubernetes.dask.org/v1"

DOCKERFILE = f"""\
# Written by "icemap manifests": change the values, not this file.
FROM {{base}}
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib
RUN groupadd --gid {USER} icemap && useradd --uid {USER} --gid {USER} --no-create-home --shell /usr/sbin/nologin icemap
COPY {_LOCK} /tmp/{_LOCK}
RUN python -m pip install --require-hashes --no-deps --requirement /tmp/{_LOCK} && rm /tmp/{_LOCK}
COPY icemap_xr-*.whl /tmp/
RUN python -m pip install --no-deps /tmp/icemap_xr-*.whl && rm /tmp/icemap_xr-*.whl
USER {USER}:{USER}
WORKDIR {DATA}
CMD ["icemap", "--help"]
"""


def write_manifests(values: StrPath, output: StrPath) -> list[Path]:
    """Write the recipe of the image and all manifests into a new folder.

    Parameters
    ----------
    values
        Values file; `requirements.lock` of the image lies beside it.
    output
        New or empty folder.

    Returns
    -------
    list of Path
        What was written, in the order to be applied.

    Raises
    ------
    ConfigError, InputError
        The values cannot be used, or the lock file is missing or has requirements without hashes.
    OutputExistsError
        The folder is not empty.
    """
    found, folder = read_values(values), Path(output)
    lock = Path(values).parent / _LOCK
    check_lock(lock)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputExistsError(f"{folder} exists and is not empty: choose a new folder")
    image = folder / "image"
    image.mkdir(parents=True)
    write_text(image / "Dockerfile", DOCKERFILE.format(base=found.base))
    # nothing else of the folder can get into the image, whatever comes to lie there
    write_text(image / ".dockerignore", f"*\n!{_LOCK}\n!icemap_xr-*.whl\n")
    shutil.copyfile(lock, image / _LOCK)
    written = [image / "Dockerfile", image / ".dockerignore", image / _LOCK]
    for name, parts in manifests(found).items():
        # from plain text, so that nothing is shared: YAML would write references
        text = "---\n".join(yaml.safe_dump(json.loads(json.dumps(part)), sort_keys=False) for part in parts)
        write_text(folder / name, f"# Written by icemap manifests: change the values, not this file.\n{text}")
        written.append(folder / name)
    return written


def check_lock(path: Path) -> None:
    """Refuse a lock file whose packages are not all pinned with hashes."""
    if not path.is_file():
        raise InputError(f"{path} is missing: it pins what the image holds; make lock writes it")
    text = path.read_text().replace("\\\n", " ")
    loose = [one for one in text.splitlines() if one.strip() and not re.match(r"[\w.-]+==\S+ .*--hash=sha256:", one)]
    if loose:
        raise InputError(f"{path}: {loose[0][:60]!r} is not pinned with a hash: make lock writes it")


def manifests(values: Values) -> dict[str, list[Manifest]]:
    """Return the manifests by file, whose names are in the order to be applied."""
    files = {
        "10-namespace.yaml": [_namespace(values)],
        "20-storage.yaml": _storage(values),
        "30-network.yaml": _policies(values),
        "40-cluster.yaml": [_cluster(values), _readers(values), _autoscaler(values)],
        "50-run.yaml": [
            _config(values),
            _job(values, "run", ["icemap", "run", f"{CONFIG}/{_RUN}", "--output", _out(values)]),
        ],
    }
    if values.bucket is not None:
        files["60-publish.yaml"] = [_publish(values)]
    return files


def _out(values: Values) -> str:
    return f"{DATA}/{values.config().name}"


def _meta(values: Values, name: str = "", **labels: str) -> Manifest:
    own = {"app.kubernetes.io/part-of": values.name, **labels}
    return {"name": name or values.name, "namespace": values.namespace, "labels": own}


def _namespace(values: Values) -> Manifest:
    # Kubernetes itself then refuses pods of root or with privileges
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": values.namespace, "labels": labels}}


def _storage(values: Values) -> list[Manifest]:
    storage = values.storage
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _meta(values, f"{values.name}-data"),
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": storage.storage_class,
            "resources": {"requests": {"storage": storage.size.removesuffix("B")}},
        },
    }
    if storage.provisioner is None:
        return [claim]
    made = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": storage.storage_class, "labels": {"app.kubernetes.io/part-of": values.name}},
        "provisioner": storage.provisioner,
        "parameters": dict(storage.parameters),
        # results outlive the claim, and so a teardown by mistake
        "reclaimPolicy": "Retain",
        "volumeBindingMode": "Immediate",
    }
    return [made, claim]


def _policies(values: Values) -> list[Manifest]:
    """Close everything that comes in but what the parts of the cluster need of each other."""
    own = {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": values.name}}}
    operator = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": values.operator}}}
    dask = [_port(COMM), _port(WORKER_PORT), _port(NANNY_PORT)]
    rules: list[Manifest] = [{"from": [own], "ports": dask}, {"from": [operator], "ports": [_port(DASHBOARD)]}]
    if values.monitoring is not None:
        reader = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": values.monitoring}}}
        rules.append({"from": [reader], "ports": [_port(DASHBOARD), _port(WORKER_DASHBOARD)]})
    return [
        _policy(values, f"{values.name}-closed", {}, []),
        _policy(values, f"{values.name}-cluster", own["podSelector"], rules),
    ]


def _policy(values: Values, name: str, pods: Manifest, rules: list[Manifest]) -> Manifest:
    spec = {"podSelector": pods, "policyTypes": ["Ingress"], "ingress": rules}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _meta(values, name),
        "spec": spec,
    }


def _port(number: int) -> Manifest:
    return {"protocol": "TCP", "port": number}


def _cluster(values: Values) -> Manifest:
    """Scheduler, service and the default group of workers, which is that of the GPUs."""
    selector = {"dask.org/cluster-name": values.name, "dask.org/component": "scheduler"}
    ports = [{"name": "tcp-comm", "port": COMM}, {"name": "http-dashboard", "port": DASHBOARD}]
    ports = [one | {"protocol": "TCP", "targetPort": one["name"]} for one in ports]
    labels = {"app.kubernetes.io/part-of": values.name}
    scheduler = {
        "metadata": {"labels": labels},
        "spec": _pod(values, values.scheduler, [_scheduler(values)]),
        "service": {"type": "ClusterIP", "selector": selector, "ports": ports},
    }
    worker = {"replicas": values.autoscale.minimum, "metadata": {"labels": labels}, "spec": _gpu(values)}
    spec = {"idleTimeout": 0, "scheduler": scheduler, "worker": worker}
    return {"apiVersion": _DASK, "kind": "DaskCluster", "metadata": _meta(values), "spec": spec}


def _scheduler(values: Values) -> Manifest:
    routes = ["distributed.http.health", "distributed.http.scheduler.prometheus", "distributed.http.scheduler.info"]
    routes += ["distributed.http.statics", "icemap_xr.schedulerapi"]
    command = ["dask", "scheduler", "--protocol", "tls", "--port", str(COMM), "--dashboard-address", f":{DASHBOARD}"]
    probe = {"httpGet": {"path": "/health", "port": "http-dashboard"}, "periodSeconds": 10}
    ports = [{"name": "tcp-comm", "containerPort": COMM}, {"name": "http-dashboard", "containerPort": DASHBOARD}]
    return _container(values, values.scheduler, "scheduler", command) | {
        "env": [*_tls("scheduler"), _variable("DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES", json.dumps(routes))],
        "ports": [one | {"protocol": "TCP"} for one in ports],
        "readinessProbe": probe,
        "livenessProbe": probe | {"initialDelaySeconds": 30, "failureThreshold": 6},
    }


def _gpu(values: Values) -> Manifest:
    made = _worker(values, values.gpu, {GPU: 1})
    made["resources"]["limits"]["nvidia.com/gpu"] = made["resources"]["requests"]["nvidia.com/gpu"] = "1"
    # TensorFlow takes a whole GPU unless told otherwise
    made["env"].append(_variable("TF_FORCE_GPU_ALLOW_GROWTH", "true"))
    return _pod(values, values.gpu, [made])


def _readers(values: Values) -> Manifest:
    pod = _pod(values, values.reader, [_worker(values, values.reader, {READ: values.reader.threads})])
    worker = {
        "replicas": values.readers,
        "metadata": {"labels": {"app.kubernetes.io/part-of": values.name}},
        "spec": pod,
    }
    spec = {"cluster": values.name, "worker": worker}
    return {
        "apiVersion": _DASK,
        "kind": "DaskWorkerGroup",
        "metadata": _meta(values, f"{values.name}-readers"),
        "spec": spec,
    }


def _worker(values: Values, pods: Pods, resources: Mapping[str, int]) -> Manifest:
    threads = max(AT_WORK, pods.threads) if GPU in resources else pods.threads
    # the operator names the workers, and its own address of the scheduler has no TLS
    command = ["dask", "worker", values.scheduler_address, "--name", "$(DASK_WORKER_NAME)"]
    command += ["--nthreads", str(threads), "--memory-limit", str(pods.bytes)]
    command += ["--resources", " ".join(f"{name}={amount}" for name, amount in resources.items())]
    command += ["--worker-port", str(WORKER_PORT), "--nanny-port", str(NANNY_PORT)]
    command += ["--dashboard-address", f":{WORKER_DASHBOARD}"]
    command += ["--local-directory", "/tmp", "--death-timeout", "300", "--preload", "icemap_xr.worker"]
    return _container(values, pods, "worker", command) | {
        "env": [*_tls("worker"), *_secrets(values.archive)],
        "ports": [{"name": "metrics", "containerPort": WORKER_DASHBOARD, "protocol": "TCP"}],
    }


def _autoscaler(values: Values) -> Manifest:
    spec = {"cluster": values.name, "minimum": values.autoscale.minimum, "maximum": values.autoscale.maximum}
    return {"apiVersion": _DASK, "kind": "DaskAutoscaler", "metadata": _meta(values), "spec": spec}


def _config(values: Values) -> Manifest:
    content = yaml.safe_dump(values.config().to_dict(), sort_keys=False)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(values, f"{values.name}-run"),
        "data": {_RUN: content},
    }


def _job(values: Values, name: str, command: list[str]) -> Manifest:
    """Return a client of the cluster; started again where it fails, as a run goes on where it stopped."""
    container = _container(values, values.runner, name, command)
    container["env"] = [*_tls("client"), *_secrets(values.archive)]
    container["volumeMounts"].append({"name": "config", "mountPath": CONFIG, "readOnly": True})
    pod = _pod(values, values.runner, [container]) | {"restartPolicy": "Never"}
    pod["volumes"].append({"name": "config", "configMap": {"name": f"{values.name}-run"}})
    template = {"metadata": {"labels": {"app.kubernetes.io/part-of": values.name}}, "spec": pod}
    spec = {"backoffLimit": 3, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": _meta(values, f"{values.name}-{name}"), "spec": spec}


def _publish(values: Values) -> Manifest:
    """Return the copy of the archive to a bucket; the only pod that has the bucket's keys."""
    assert values.bucket is not None
    name = values.config().name
    command = ["icemap", "publish", f"{_out(values)}/{name}.zarr", f"{values.bucket_url}/{name}.zarr"]
    job = _job(values, "publish", command)
    job["spec"]["template"]["spec"]["containers"][0]["env"] = _secrets(values.bucket)
    return job


def _pod(values: Values, pods: Pods, containers: list[Manifest]) -> Manifest:
    certificates = {"secretName": values.tls, "defaultMode": 0o440}
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": f"{values.name}-data"}},
            {"name": "certificates", "secret": certificates},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    if pods.nodes:
        spec["nodeSelector"] = dict(pods.nodes)
    if pods.tolerations:
        given = ({k: v for k, v in vars(one).items() if v is not None} for one in pods.tolerations)
        spec["tolerations"] = list(given)
    if values.registry is not None:
        spec["imagePullSecrets"] = [{"name": values.registry}]
    return spec


def _container(values: Values, pods: Pods, name: str, command: list[str]) -> Manifest:
    size = {"memory": str(pods.bytes)}
    closed = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    return {
        "name": name,
        "image": values.image,
        "args": command,
        "resources": {"requests": size | {"cpu": str(pods.cpu)}, "limits": dict(size)},
        "securityContext": closed,
        "volumeMounts": [
            {"name": "data", "mountPath": DATA},
            {"name": "certificates", "mountPath": CERTIFICATES, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def _tls(*roles: str) -> list[Manifest]:
    """Return Dask's configuration of TLS; each process has the same certificate, of the cluster's own authority."""
    start = "DASK_DISTRIBUTED__COMM"
    found = [_variable(f"{start}__REQUIRE_ENCRYPTION", "true")]
    found.append(_variable(f"{start}__TLS__CA_FILE", f"{CERTIFICATES}/ca.crt"))
    for role in (*roles, *({"client"} - set(roles))):
        found.append(_variable(f"{start}__TLS__{role.upper()}__CERT", f"{CERTIFICATES}/tls.crt"))
        found.append(_variable(f"{start}__TLS__{role.upper()}__KEY", f"{CERTIFICATES}/tls.key"))
    return found


def _secrets(keys: Keys) -> list[Manifest]:
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": keys.secret, "key": name}}} for name in keys.variables
    ]


def _variable(name: str, value: str) -> Manifest:
    return {"name": name, "value": value}
