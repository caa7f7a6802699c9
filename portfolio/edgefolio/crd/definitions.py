"""Writes the custom resource definitions: ``python -m edgefolio.crd.definitions [--check] FOLDER``.

The committed files under ``manifests/crds`` are what users install; a test fails when they are stale.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from edgefolio.contract.order_reason import REASON_ANNOTATION
from edgefolio.crd.schema import Schema, structural_schema
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus, ModelEndpoint
from edgefolio.specification.portfolio_status import PortfolioStatus
from edgefolio.specification.resource import API_VERSION, ModelPortfolio, PortfolioSpecification

GROUP, VERSION = API_VERSION.split("/")

_NOTE = "# Generated from the specification by `make manifests`; do not edit.\n"


def _condition(kind: str, part: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{part}'


def _annotation(key: str) -> str:
    escaped = key.replace(".", "\\.")
    return f".metadata.annotations.{escaped}"


def _column(name: str, path: str, *, kind: str = "string", wide: bool = False, description: str = "") -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path}
    if description:
        column["description"] = description
    if wide:
        column["priority"] = 1
    return column


def model_portfolio() -> Schema:
    """The definition of ``ModelPortfolio``."""
    definition = _definition(
        kind=ModelPortfolio.__name__,
        short_name="mpf",
        description="A portfolio of pruned variants of one model, and which of them serves on every edge node.",
        spec=structural_schema(PortfolioSpecification),
        # kstatus, and with it Flux, takes an object without any status for one that is done.
        status={**structural_schema(PortfolioStatus), "default": {"observedGeneration": 0}},
        columns=[
            _column("Ready", _condition("Ready", "status")),
            _column("Revision", ".status.currentRevision", kind="integer"),
            _column("Variants", ".status.variantCount", kind="integer"),
            _column(
                "Available",
                ".status.endpoints.available",
                kind="integer",
                description="Endpoints that serve a verified variant.",
            ),
            _column("Meeting", ".status.endpoints.summary", description="Endpoints that meet objectives / all."),
            _column("Policy", ".spec.switching.policy", wide=True),
            _column("Last switch", ".status.lastSwitchTime", kind="date", wide=True),
            _column("Reason", _condition("Ready", "reason"), wide=True),
            _column("Stage", ".status.job.stage", wide=True, description="What the Job that makes a revision does."),
            _column("Progress", ".status.job.progressPercent", kind="integer", wide=True, description="In percent."),
            _column("Age", ".metadata.creationTimestamp", kind="date"),
        ],
    )
    root = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    root["x-kubernetes-validations"] = [
        {
            # The name is part of the names of its Jobs, Services and labels.
            "rule": "self.metadata.name.matches('^[a-z]([a-z0-9-]{0,46}[a-z0-9])?$')",
            "message": "metadata.name must begin with a letter and hold at most 48 letters, digits and hyphens",
        }
    ]
    return definition


def model_endpoint() -> Schema:
    """The definition of ``ModelEndpoint``."""
    return _definition(
        kind=ModelEndpoint.__name__,
        short_name="mep",
        description="One Triton pod that serves a model: spec is the operator's decision, status the agent's report.",
        spec=structural_schema(EndpointSpecification),
        status=structural_schema(EndpointStatus),
        columns=[
            _column("Node", ".spec.nodeName"),
            _column("Active", ".status.activeVariant"),
            _column("Target", ".spec.targetVariant"),
            _column("P95", ".status.observation.traffic.p95Milliseconds", description="In milliseconds."),
            _column("Objective", ".spec.objectives.latencyP95Milliseconds", kind="integer"),
            # To the agent every order is a pin; the operator gives the reason.
            _column("Reason", _annotation(REASON_ANNOTATION), description="Why this variant, or why no other."),
            _column(
                "Agent",
                _condition("Autonomous", "reason"),
                wide=True,
                description="Connected: the agent follows orders. CutOff, DescendedAsOrdered: it decides alone.",
            ),
            _column("Age", ".metadata.creationTimestamp", kind="date"),
        ],
    )


def _definition(
    *, kind: str, short_name: str, description: str, spec: Schema, status: Schema, columns: list[Schema]
) -> Schema:
    singular = kind.lower()
    plural = f"{singular}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": singular,
                "shortNames": [short_name],
                "categories": ["edgefolio"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {
                        "openAPIV3Schema": {
                            "description": description,
                            "type": "object",
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status,
                            },
                        }
                    },
                }
            ],
        },
    }


def files() -> dict[str, str]:
    """Name and content of every generated file."""
    return {
        f"{definition['metadata']['name']}.yaml": _NOTE + _yaml(definition)
        for definition in (model_portfolio(), model_endpoint())
    }


def stale(folder: Path) -> list[str]:
    """Names of the files in ``folder`` that differ from what would be written."""
    return [
        name
        for name, content in files().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != content
    ]


class _Dumper(yaml.SafeDumper):
    """Without anchors: the same list object at two places is written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _yaml(document: Schema) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def main(arguments: list[str]) -> int:
    """Write the definitions into a folder, or with ``--check`` report stale ones."""
    check = "--check" in arguments
    folders = [Path(argument) for argument in arguments if argument != "--check"]
    if len(folders) != 1:
        print("usage: python -m edgefolio.crd.definitions [--check] FOLDER", file=sys.stderr)
        return 2
    if check:
        found = stale(folders[0])
        for name in found:
            print(f"stale: {folders[0] / name}; run: make manifests", file=sys.stderr)
        return 1 if found else 0
    folders[0].mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (folders[0] / name).write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
