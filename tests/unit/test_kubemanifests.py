"""Manifests of a cluster: valid for Kubernetes and the Dask operator, closed, without secrets, from one values file."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import all_versions, schema_contents
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from icemap_xr.config import parse_config
from icemap_xr.errors import ConfigError, InputError, OutputExistsError
from icemap_xr.kubemanifests import check_lock, manifests, write_manifests
from icemap_xr.kubevalues import Values, read_values
from icemap_xr.testing.commands import Result

ROOT = Path(__file__).resolve().parents[2]
VALUES = ROOT / "pipelines" / "creodias" / "values.yaml"
OPERATOR = ROOT / "tests" / "dask_operator"
#: what Kubernetes asks the operator's definitions to be checked with
KUBERNETES = "1.33"
CORE = "python://k8s_crd_resolver/schemata/k8s-1.21.1.json"


@pytest.fixture(scope="module")
def values() -> Values:
    return read_values(VALUES)


@pytest.fixture(scope="module")
def parts(values: Values) -> list[dict[str, Any]]:
    # as Kubernetes reads them
    return json.loads(json.dumps([part for file in manifests(values).values() for part in file]))


def kinds(parts: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in parts if one["kind"] == kind]


def pods(parts: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All specifications of pods."""
    for one in parts:
        match one["kind"]:
            case "DaskCluster":
                yield "scheduler", one["spec"]["scheduler"]["spec"]
                yield "gpu", one["spec"]["worker"]["spec"]
            case "DaskWorkerGroup":
                yield "readers", one["spec"]["worker"]["spec"]
            case "Job":
                yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def core(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What Kubernetes itself knows, and a pod of each specification that the operator takes."""
    own = [one for one in parts if not one["apiVersion"].startswith("kubernetes.dask.org")]
    made = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec} for name, spec in pods(parts)]
    service = kinds(parts, "DaskCluster")[0]["spec"]["scheduler"]["service"]
    return [*own, *made, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "scheduler"}, "spec": service}]


@pytest.mark.parametrize("version", [all_versions()[0], KUBERNETES, all_versions()[-1]])
def test_everything_is_valid_for_kubernetes(parts: list[dict[str, Any]], version: str) -> None:
    for one in core(parts):
        kubernetes_validate.validate(one, version, strict=True)


def test_a_wrong_field_would_be_found(parts: list[dict[str, Any]]) -> None:
    job = json.loads(json.dumps(kinds(parts, "Job")[0]))
    job["spec"]["template"]["spec"]["runAsUser"] = 0
    with pytest.raises(kubernetes_validate.ValidationError, match="runAsUser"):
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


def operator_schema(name: str) -> Draft202012Validator:
    """A definition of the operator, with Kubernetes' own ones that it refers to."""
    # the same definitions have another place in kubernetes-validate
    templates = (OPERATOR / "templates.yaml").read_text().replace(f"{CORE}#/definitions/", f"{CORE}#/$defs/")
    folder = "kubernetes-json-schema/v1.33.0-local-strict"
    core_definitions = schema_contents(f"{folder}/_definitions.json", "1.33.0")
    registry: Registry[Any] = Registry()
    for address, content in (
        ("python://dask_kubernetes/operator/customresources/templates.yaml", yaml.safe_load(templates)),
        (CORE, core_definitions),
        (core_definitions["$id"], core_definitions),
    ):
        registry = registry.with_resource(address, Resource.from_contents(content, default_specification=DRAFT202012))
    definition = yaml.safe_load((OPERATOR / f"{name}.yaml").read_text())
    return Draft202012Validator(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], registry=registry)


@pytest.mark.parametrize("kind", ["DaskCluster", "DaskWorkerGroup", "DaskAutoscaler"])
def test_the_operator_s_resources_are_valid_for_it(parts: list[dict[str, Any]], kind: str) -> None:
    validator = operator_schema(kind.lower())
    (one,) = kinds(parts, kind)
    validator.validate(one)
    broken = json.loads(json.dumps(one))
    target = broken["spec"] if kind == "DaskAutoscaler" else broken["spec"]["worker"]
    target.update(minimum="one", replicas="one")
    assert list(validator.iter_errors(broken))


def test_pods_are_of_no_root_and_have_no_rights(parts: list[dict[str, Any]]) -> None:
    for name, spec in pods(parts):
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_keys_come_from_secrets_and_go_where_they_are_needed(parts: list[dict[str, Any]]) -> None:
    found = {}
    for name, spec in pods(parts):
        for one in spec["containers"][0]["env"]:
            if re.search("ACCESS|SECRET", one["name"]):
                assert set(one) == {"name", "valueFrom"}, "a value in a manifest"
                found.setdefault(one["valueFrom"]["secretKeyRef"]["name"], set()).add(name)
    assert found == {"eodata-keys": {"gpu", "readers", "icemap-run"}, "bucket-keys": {"icemap-publish"}}
    assert not kinds(parts, "Secret")


def test_readers_and_gpus_have_their_nodes_resources_and_bounds(parts: list[dict[str, Any]]) -> None:
    specs = dict(pods(parts))
    gpu, reader = (specs[name]["containers"][0] for name in ("gpu", "readers"))
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in reader["resources"]["limits"]
    assert "GPU=1" in gpu["args"]
    assert "READ=4" in reader["args"]
    assert specs["gpu"]["nodeSelector"] == {"icemap/pool": "gpus"}
    assert specs["gpu"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "tolerations" not in specs["readers"]
    (autoscaler,) = kinds(parts, "DaskAutoscaler")
    assert autoscaler["spec"] == {"cluster": "icemap", "minimum": 1, "maximum": 8}


def test_nothing_is_open(parts: list[dict[str, Any]]) -> None:
    closed, cluster = kinds(parts, "NetworkPolicy")
    assert (closed["spec"]["podSelector"], closed["spec"]["ingress"]) == ({}, [])
    for rule in cluster["spec"]["ingress"]:
        ports = {one["port"] for one in rule["ports"]}
        if 8787 in ports:
            assert rule["from"] == [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "dask-operator"}}}
            ]
    (made,) = kinds(parts, "DaskCluster")
    assert made["spec"]["scheduler"]["service"]["type"] == "ClusterIP"
    text = json.dumps(parts)
    assert "tcp://" not in text
    # all that listens has certificates, and takes no one without
    for name, spec in pods(parts):
        env = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
        assert name == "icemap-publish" or env["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "true"


def test_the_run_is_that_of_the_values_on_this_cluster(parts: list[dict[str, Any]], values: Values) -> None:
    (config,) = kinds(parts, "ConfigMap")
    found = parse_config(yaml.safe_load(config["data"]["run.yaml"]), "test")
    assert found.name == "svalbard"
    assert found.cluster.kind == values.scheduler_address == "tls://icemap-scheduler.icemap.svc.cluster.local:8786"
    assert found.cluster.gpus == 1


def test_the_image_is_pinned_and_not_of_root(tmp_path: Path, values: Values) -> None:
    written = write_manifests(VALUES, tmp_path / "out")
    assert all(path.is_file() for path in written)
    recipe = (tmp_path / "out" / "image" / "Dockerfile").read_text()
    lines = recipe.splitlines()
    assert f"FROM {values.base}" in lines
    assert any("--require-hashes" in line and "requirements.lock" in line for line in lines)
    users = [line for line in lines if line.startswith("USER")]
    assert users == ["USER 1000:1000"]
    assert lines.index("USER 1000:1000") > max(n for n, line in enumerate(lines) if line.startswith("RUN"))
    assert not re.search(r"(ARG|ENV).*(KEY|SECRET|TOKEN|PASS)", recipe)
    ignored = (tmp_path / "out" / "image" / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    with pytest.raises(OutputExistsError, match="not empty"):
        write_manifests(VALUES, tmp_path / "out")


def locked(path: Path) -> dict[str, set[str]]:
    """Versions of each package; several where they depend on Python's."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", path.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_the_image_holds_what_was_tested(tmp_path: Path) -> None:
    image, tested = locked(VALUES.with_name("requirements.lock")), locked(ROOT / "requirements.lock")
    both = set(image) & set(tested)
    assert {"dask", "distributed", "tensorflow", "zarr", "rasterio"} <= both
    assert not {name for name in both if not image[name] <= tested[name]}
    assert all(len(versions) == 1 for versions in image.values())
    # beside it there are the libraries of GPUs alone
    assert all(name.startswith("nvidia-") for name in set(image) - both)
    (tmp_path / "requirements.lock").write_text("dask==2026.8.0\n")
    with pytest.raises(InputError, match=r"'dask==2026\.8\.0' is not pinned with a hash"):
        check_lock(tmp_path / "requirements.lock")


def changed(tmp_path: Path, **changes: Any) -> Path:
    content = yaml.safe_load(VALUES.read_text())
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (content[section] if section else content)[name] = value
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"image": "registry.example.org/icemap-xr:latest"}, "image .* is not pinned"),
        ({"base": "python"}, "base 'python' is not pinned"),
        ({"namespace": "Ice_Map"}, "namespace 'Ice_Map' is not allowed"),
        ({"autoscale": {"minimum": 0, "maximum": 3}}, "autoscaling 0 to 3"),
        ({"autoscale": {"minimum": 4, "maximum": 3}}, "autoscaling 4 to 3"),
        ({"readers": 0}, "readers=0"),
        ({"gpu__memory": "lots"}, "memory='lots'"),
        ({"gpu__secret_key": "hunter2"}, "gpu.secret_key: "),
        ({"archive__variables": ["hunter2/+="]}, "1 of 1 variables .* names of variables here"),
        ({"storage__provisioner": "cinder.csi.openstack.org"}, "one node can write"),
        ({"bucket_url": "https://bucket"}, "begins with s3://"),
        ({"bucket": None}, "belong together"),
        ({"run__cluster": {"kind": "local"}}, "run.cluster is filled in"),
        ({"run__yeers": [2020]}, "unknown key 'yeers'.*did you mean 'years'"),
        ({"run__search": {"provider": "https://me:hunter2@host/stac"}}, "run holds credentials"),
    ],
)
def test_values_that_are_refused(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        read_values(changed(tmp_path, **changes))
    assert "hunter2" not in str(caught.value)


def test_the_command_writes_and_says_what_is_missing(icemap: Callable[..., Result], tmp_path: Path) -> None:
    done = icemap("manifests", VALUES, "--output", tmp_path / "out")
    assert done.code == 0, done.err
    assert "40-cluster.yaml" in done.out
    for text in ("10-namespace.yaml", "60-publish.yaml"):
        list(yaml.safe_load_all((tmp_path / "out" / text).read_text()))
    alone = icemap("manifests", changed(tmp_path), "--output", tmp_path / "other")
    assert alone.code == 1
    assert "requirements.lock is missing" in alone.err
    none = icemap("manifests", tmp_path / "none.yaml", "--output", tmp_path / "other")
    assert "cannot be read" in none.err


def test_certificates_are_made_by_a_script_that_can_be_run() -> None:
    assert VALUES.with_name("certificates.sh").stat().st_mode & stat.S_IXUSR
