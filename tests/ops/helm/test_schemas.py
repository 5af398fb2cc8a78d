"""The chart, linted by Helm and validated by the schemas of Kubernetes, KEDA and Prometheus."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from helm_chart import CHART, EXAMPLES, HELM, VENV, Manifest, rendered, rendered_text, run

TYPES = {
    "ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
    "ServiceMonitor": "@kubernetes-models/prometheus-operator/"
    "monitoring.coreos.com/v1/ServiceMonitor",
}
"""Module that describes each kind of object which isn't part of Kubernetes."""
UNKNOWN = "Couldn't find schema for kind"
VALIDATOR = Path(__file__).with_name("validate.mjs").read_text()


def custom(manifests: list[Manifest]) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in TYPES]


def refusals(manifests: list[Manifest], folder: Path) -> str:
    """Return why the packages' schemas refuse objects; empty if they don't.

    Their validators check values but ignore unknown fields, which TypeScript finds.
    """
    validator = VENV / "validate.mjs"  # Node finds packages beside the script
    validator.write_text(VALIDATOR)
    documents = folder / "manifests.json"
    documents.write_text(json.dumps([[TYPES[m["kind"]], m["kind"], m] for m in manifests]))
    values = run(VENV / "bin" / "node", validator, documents)
    typed = VENV / "manifests.ts"
    typed.write_text(
        "\n".join(
            f"import type {{ I{m['kind']} as T{i} }} from '{TYPES[m['kind']]}';\n"
            f"export const m{i}: T{i} = {json.dumps(m)};"
            for i, m in enumerate(manifests)
        )
    )
    flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    compiler = VENV / "node_modules" / "typescript" / "bin" / "tsc"
    fields = run(VENV / "bin" / "node", compiler, *flags, typed)
    return values.stdout + values.stderr + fields.stdout + fields.stderr


@pytest.mark.parametrize("example", EXAMPLES)
def test_helm_finds_no_fault(example: str) -> None:
    done = run(HELM, "lint", "--strict", CHART, "-f", CHART / "examples" / f"{example}.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("release", ["1.27", "1.37"])  # the chart's oldest one, and the newest
def test_kubernetes_accepts_every_object(release: str, tmp_path: Path) -> None:
    file = tmp_path / "manifests.yaml"
    file.write_text("\n---\n".join(rendered_text(example) for example in EXAMPLES))
    manifests = [m for m in yaml.safe_load_all(file.read_text()) if m]
    done = run(VENV / "bin" / "kubernetes-validate", "--strict", "-k", release, file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(UNKNOWN) == len(custom(manifests))
    assert done.stdout.count("passed for resource") == len(manifests) - len(custom(manifests))


def test_keda_and_prometheus_accept_their_objects(tmp_path: Path) -> None:
    manifests = [m for example in EXAMPLES for m in custom(rendered(example))]
    assert {m["kind"] for m in manifests} == set(TYPES)
    assert refusals(manifests, tmp_path) == ""


def test_a_misspelt_field_and_a_wrong_value_of_an_object_are_found(tmp_path: Path) -> None:
    (manifest, *_) = [m for m in rendered("keda") if m["kind"] == "ScaledObject"]
    manifest["spec"]["coolDownPeriod"] = 300
    manifest["spec"]["pollingInterval"] = 1.5
    found = refusals([manifest], tmp_path)
    assert "coolDownPeriod" in found
    assert "pollingInterval" in found


def test_the_chart_has_the_release_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version("lorikeet-serve"),) * 2


def test_every_example_is_validated() -> None:
    assert {path.stem for path in (CHART / "examples").iterdir()} == set(EXAMPLES)
