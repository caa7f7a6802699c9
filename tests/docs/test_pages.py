"""The pages say what is there: links and paths exist, every reason is explained, fields are the resources' own."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml
from kstatus import compute

from edgefolio.contract.order_reason import MESSAGE_ANNOTATION, REASON_ANNOTATION
from edgefolio.decision.types import Reason
from edgefolio.specification import annotations
from edgefolio.specification.endpoint import EndpointSpecification, EndpointStatus
from edgefolio.specification.portfolio_status import PortfolioStatus
from edgefolio.specification.resource import ModelPortfolio, PortfolioSpecification
from edgefolio_edge import reasons as edge_reasons
from edgefolio_edge.peers.set_document import SetDocument
from edgefolio_kubectl.main import build_app
from edgefolio_operator import labels
from edgefolio_operator import reasons as operator_reasons
from edgefolio_operator.endpoints import objectives

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
CLUSTER = ROOT / "docs" / "cluster"
CODE = ("portfolio", "pruner_job", "edge", "operator", "kubectl")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code_blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(path), flags=re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text_of(page))):
        if "://" in target:
            continue
        name, _, fragment = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} links {target}"
        if fragment and path.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", text_of(path), flags=re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, f"{page.name} links {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_that_are_named_exist(page: Path) -> None:
    folders = (
        "docs|helm|manifests|examples|scripts|tests|benchmarks|images|demo|portfolio|pruner_job|edge|operator|kubectl"
    )
    for path in re.findall(rf"(?<![\w/.-])((?:{folders})/[\w./-]*\w)", text_of(page)):
        if (ROOT / path).exists() or any((ROOT / folder / path).exists() for folder in CODE):
            continue
        # Built or written by a command that the page names.
        assert path.startswith(("images/wheels",)), f"{page.name} names {path}"


#: Every reason of events, conditions and failures, besides those of the decision.
REASONS = {"operator": operator_reasons, "edge": edge_reasons}


def words(node: ast.AST) -> Iterator[str]:
    """Every CamelCase word that the code of ``node`` holds as a whole string."""
    for inner in ast.walk(node):
        word = inner.value if isinstance(inner, ast.Constant) else None
        if isinstance(word, str) and re.fullmatch(r"[A-Z][a-z]+(?:[A-Z][A-Za-z0-9]+)*", word):
            yield word


def code_of(folder: str) -> dict[Path, ast.Module]:
    """The modules of a room."""
    return {path: ast.parse(text_of(path)) for path in sorted((ROOT / folder).rglob("*.py"))}


def reasons_of(module: ModuleType) -> set[str]:
    """The words that a module of reasons defines."""
    values = [value for name, value in vars(module).items() if name.isupper()]
    return {word for value in values for word in ([value] if isinstance(value, str) else value.values())}


def test_every_reason_is_explained() -> None:
    explained = set(re.findall(r"`([A-Z]\w+)`", text_of(CLUSTER / "troubleshooting.md")))
    given = {reason.value for reason in Reason}.union(*map(reasons_of, REASONS.values()))
    assert given <= explained, "explain them in docs/cluster/troubleshooting.md"
    # A reason that the code does not give any more misleads.
    everything = {word for folder in CODE for module in code_of(folder).values() for word in words(module)}
    kubernetes = {"OOMKilled", "Pending", "ImagePullBackOff", "CreateContainerConfigError", "Init"}
    assert explained <= given | everything | kubernetes, "no code says this"


@pytest.mark.parametrize("room", REASONS)
def test_reasons_stand_in_one_file(room: str) -> None:
    words_file = text_of(Path(__file__).parent / "no-reasons.txt")
    other = {word for line in words_file.splitlines() if not line.startswith("#") for word in line.split()}
    # What the rest of the edge room says reaches no status.
    told = {"operator": ("operator",), "edge": ("edge/edgefolio_edge/cluster", "edge/edgefolio_edge/agent")}[room]
    for folder in told:
        for path, module in code_of(folder).items():
            if str(path) == REASONS[room].__file__:
                continue
            assert set(words(module)) <= other, f"{path}: to reasons.py, or say in no-reasons.txt what they are"
            given = [node.value for node in ast.walk(module) if isinstance(node, ast.keyword) and node.arg == "reason"]
            assert not [word for value in given for word in words(value)], f"{path}: to reasons.py"


def fields(schema: dict[str, Any]) -> Iterator[str]:
    """Dotted paths of all fields of a JSON schema."""
    definitions = schema.get("$defs", {})

    def walk(part: dict[str, Any], path: str, seen: tuple[str, ...]) -> Iterator[str]:
        for reference in re.findall(r"#/\$defs/(\w+)", str({key: part[key] for key in part if key != "properties"})):
            if reference not in seen:
                yield from walk(definitions[reference], path, (*seen, reference))
        for name, inner in part.get("properties", {}).items():
            inside = f"{path}.{name}".lstrip(".")
            yield inside
            yield from walk(inner, inside, seen)

    yield from walk({key: value for key, value in schema.items() if key != "$defs"}, "", ())


def known_fields() -> set[str]:
    models = {
        "spec": (PortfolioSpecification, EndpointSpecification),
        "status": (PortfolioStatus, EndpointStatus),
    }
    return {
        f"{part}.{path}"
        for part, found in models.items()
        for model in found
        for path in fields(model.model_json_schema(by_alias=True))
    }


@pytest.mark.parametrize("page", sorted(CLUSTER.glob("*.md")), ids=lambda page: page.name)
def test_fields_that_are_named_are_the_resources(page: Path) -> None:
    known = known_fields()
    values = yaml.safe_load(text_of(ROOT / "helm/edgefolio/values.yaml"))

    def in_chart(path: str) -> bool:
        found: Any = values
        for step in path.split("."):
            if not isinstance(found, dict) or step not in found:
                return False
            found = found[step]
        return True

    assert "spec.switching.policy" in known
    for word in re.findall(r"`([a-z]\w*(?:\[\])?(?:\.[a-z]\w*)+)(?::[^`]*)?`", text_of(page)):
        word = word.replace("[]", "")
        if word.endswith((".yaml", ".py", ".md", ".json", ".tgz")) or word.startswith(
            ("edgefolio.", "metrics.k8s.", "slo.")
        ):
            continue
        if "." in word and word.split(".")[0] in ("install", "upgrade"):
            continue  # of Flux' HelmRelease
        ends = {word, *(f"spec.{part}.{word}" for part in ("serving", "serving.managed", "switching")), f"spec.{word}"}
        is_field = bool(ends & known) or any(path.endswith(f".{word}") for path in known)
        is_pod_field = word.startswith(("app.kubernetes", "emptyDir.", "limits.", "resources."))
        assert is_field or in_chart(word) or is_pod_field, f"{page.name}: {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_annotations_that_are_named_are_read(page: Path) -> None:
    read = {annotations.MAKE_REQUESTED, annotations.PIN_VARIANT, annotations.PAUSED, "edgefolio.dev/adopt"}
    read |= {annotations.ROLLOUT_REQUESTED, annotations.APPROVE_REVISION}
    read |= {REASON_ANNOTATION, MESSAGE_ANNOTATION}
    read |= {annotations.OBJECTIVE_PREFIX + key for key in objectives.ANNOTATIONS}
    versions = {"edgefolio.dev/v1alpha1", labels.FINALIZER}
    policy = (ROOT / "manifests" / "base" / "operator-policy.yaml").read_text()
    read |= set(re.findall(r"'(edgefolio\.dev/protected)' in namespaceObject\.metadata\.labels", policy))
    for word in re.findall(r"(?<![\w./])(?:slo\.)?edgefolio\.dev/[\w-]*\w", text_of(page)):
        assert word in read | versions, f"{page.name}: {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_are_accepted(page: Path) -> None:
    base: dict[str, Any] = {"repository": {"uri": "s3://bucket/portfolios"}, "serving": {"modelName": "digits"}}
    made = {"data": {"trainingURI": "builtin:digits"}, "methods": {"sparseTraining": {}}}
    for block in code_blocks(page, "yaml"):
        for document in yaml.safe_load_all(block):
            if "workers" in document:
                SetDocument.model_validate(document)
                continue
            whole = document.get("kind") == "ModelPortfolio"
            head = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "part"}}
            spec = document.get("spec", document)
            if not whole:
                spec = {
                    **base,
                    **(made if "source" in spec else {}),
                    **spec,
                    "serving": {**base["serving"], **spec.get("serving", {})},
                }
            ModelPortfolio.model_validate(document if whole else {**head, "spec": spec})


def test_commands_of_the_plugin_exist() -> None:
    group: Any = typer.main.get_command(build_app())
    for page in PAGES:
        for line in re.findall(r"kubectl edgefolio ([^\n`|#]+)", text_of(page)):
            command, *arguments = line.split()
            if command.startswith("-"):
                continue
            assert command.strip(".,;:") in group.commands, f"{page.name}: kubectl edgefolio {line}"
            options = {name for parameter in group.commands[command.strip(".,;:")].params for name in parameter.opts}
            for word in arguments:
                if word.startswith("-"):
                    assert word.strip(".,;:") in options, f"{page.name}: kubectl edgefolio {line}"


def test_the_table_of_states_is_that_of_the_tested_objects() -> None:
    folder = ROOT / "manifests/gitops/argocd/resource_customizations/edgefolio.dev/ModelPortfolio"
    cases = yaml.safe_load(text_of(folder / "health_test.yaml"))["tests"]
    health = {Path(case["inputPath"]).name: case["healthStatus"]["status"] for case in cases}
    rows = re.findall(
        r"^\| \[.+?\]\(\S+/testdata/(\S+?)\).*? \| (\w+) \| (\w+) \|$", text_of(CLUSTER / "gitops.md"), re.MULTILINE
    )
    assert {name for name, _, _ in rows} == set(health)
    for name, flux, argo in rows:
        assert health[name] == argo, name
        assert compute(yaml.safe_load(text_of(folder / "testdata" / name))) == flux, name


def test_the_readme_is_short() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= 80


def test_the_extras_that_are_named_exist() -> None:
    extras = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    for page in PAGES:
        for found in re.findall(r"\.\[([a-z,]+)\]'?|edgefolio\[([a-z,]+)\]", text_of(page)):
            for name in "".join(found).split(","):
                assert name in extras, f"{page.name}: {name}"


ROOMS = {
    "portfolio/edgefolio",
    "pruner_job/edgefolio_pruner",
    "operator/edgefolio_operator",
    "edge/edgefolio_edge",
    "edge/edgefolio_worker",
    "kubectl/edgefolio_kubectl",
}


def test_the_architecture_names_every_folder() -> None:
    page = text_of(ROOT / "docs" / "architecture.md")
    assert len(page.splitlines()) <= 100
    named = set()
    for room, table in re.findall(r"^\| in `(\S+)/` \|.*\n((?:\|.*\n)*)", page, flags=re.MULTILINE):
        for folders_of_row in re.findall(r"^\| (`[^|]+/`) \|", table, flags=re.MULTILINE):
            named |= {f"{room}/{folder}" for folder in re.findall(r"`(\S+)/`", folders_of_row)}
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    folders = {str(path.parent.relative_to(ROOT)) for path in files} - ROOMS
    assert named == folders


def test_paths_of_the_architecture_exist() -> None:
    page = text_of(ROOT / "docs" / "architecture.md")
    named = re.findall(r"`([\w./]+(?:/|\.py|\.md|\.yaml))`", page)
    assert len(named) > 50
    for path in named:
        assert any((ROOT / place / path).exists() for place in (".", *ROOMS)), path
