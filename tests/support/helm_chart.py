"""The Helm chart, rendered by a real Helm."""

import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-helm"
HELM = VENV / "bin" / "helm"
CHART = ROOT / "ops" / "helm" / "lorikeet"
EXAMPLES = ("trial", "gpu", "keda", "pools")
RELEASE = "lorikeet"
NAMESPACE = "llm"

Manifest = dict[str, Any]


class Refused(Exception):
    """Helm refuses to render the chart with these values; the message says why."""


def require_helm() -> None:
    """Skip the test if Helm isn't installed."""
    if not (VENV / ".ready").exists():
        pytest.skip("`make helm` installs Helm and the schemas")


def run(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    require_helm()
    return subprocess.run(
        list(map(str, words)), cwd=VENV, capture_output=True, text=True, timeout=60, check=False
    )


@cache
def rendered_text(example: str, *sets: str, values: Path | None = None) -> str:
    """Render the chart with the values of an example, then `values`, then `--set` arguments.

    Raises:
        Refused: Helm doesn't accept the values.
    """
    files: list[str | Path] = ["-f", CHART / "examples" / f"{example}.yaml"]
    files += ["-f", values] if values else []
    flags = [word for text in sets for word in ("--set", text)]
    done = run(HELM, "template", RELEASE, CHART, "--namespace", NAMESPACE, *files, *flags)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def rendered(example: str, *sets: str, values: Path | None = None) -> list[Manifest]:
    text = rendered_text(example, *sets, values=values)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def of_kind(manifests: Sequence[Manifest], kind: str) -> dict[str, Manifest]:
    """Return the manifests of one kind, by name."""
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == kind}


def pod_specs(manifests: Sequence[Manifest]) -> Iterator[tuple[str, dict[str, Any]]]:
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            template = manifest["spec"]["template"]
            yield (
                template["metadata"]["labels"]["app.kubernetes.io/component"],
                template["spec"],
            )


def container_of(spec: dict[str, Any]) -> dict[str, Any]:
    (container,) = spec["containers"]
    return dict(container)


def plain_env(spec: dict[str, Any]) -> dict[str, str]:
    """Return the variables of a pod whose values are in the manifest."""
    return {e["name"]: e["value"] for e in container_of(spec).get("env", ()) if "value" in e}
