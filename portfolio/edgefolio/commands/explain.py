"""Command ``edgefolio explain``: the variant chosen under stated conditions, and why not the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from edgefolio.commands.explained_variants import figures, headings, variant_document
from edgefolio.commands.splits import StatedSet, parse_link, parse_worker_set, split_documents, split_lines
from edgefolio.commands.terminal import Terminal
from edgefolio.decision.choice import latency_budget
from edgefolio.decision.estimates.memory import mebibytes, needed_bytes
from edgefolio.decision.explain import Explanation, explain_choice
from edgefolio.decision.profiles import (
    Measured,
    choose_profile,
    int8_variants,
    objectives_from_specification,
    profiles_from_manifest,
    stated,
)
from edgefolio.decision.types import Objectives, VariantProfile, WorkerSet
from edgefolio.errors import UserError
from edgefolio.manifest import Manifest, Variant
from edgefolio.processor import this_processor
from edgefolio.repository import Repository
from edgefolio.repository.profiles import FittingProfile, fitting_profile, profile_classes, published_profile
from edgefolio.repository.storage import checked_argument
from edgefolio.specification.loading import load_portfolio
from edgefolio.specification.validation.validation_errors import bytes_option

#: Bounds of factors, rates and times, so that figures computed from them stay finite.
_LEAST, _MOST = 1e-6, 1e9
_OF_MANIFEST = "manifest"


def explain(
    file: Path = typer.Option(
        ..., "-f", "--file", help="The ModelPortfolio: objectives and switching are read from it."
    ),
    repository: str | None = typer.Option(None, "--repository", help="Repository URI; default: spec.repository.uri."),
    cpu_factor: float = typer.Option(
        1.0, "--cpu-factor", help="How many times slower than in its profile a variant computes on this node now."
    ),
    rate: float = typer.Option(0.0, "--rate", help="Requests per second that arrive (0: one at a time)."),
    memory: str | None = typer.Option(
        None, "--memory", help="Memory that variants may use together, as 64Mi or 2Gi; default: unbounded."
    ),
    transport: float = typer.Option(
        0.0, "--transport", help="Milliseconds that a request spends in the server outside queue and compute."
    ),
    profile: str | None = typer.Option(
        None,
        "--profile",
        help="A class of processors, as `edgefolio profile` names it, or `manifest`; default: as an agent on this "
        "machine would decide.",
    ),
    link: str | None = typer.Option(
        None,
        "--link",
        help="The network between nodes, as 1G,0.3ms, that splits are predicted over; default: the one declared.",
    ),
    worker_set: str | None = typer.Option(
        None,
        "--worker-set",
        help="The nodes that splits could be served by: how many, as 2 or 2,factor=1.5,rate=80 (times slower than "
        "profiled, requests per second of all of them), or a JSON file; default: none, so no split is chosen.",
    ),
    active: str | None = typer.Option(None, "--active", help="The variant that serves now; default: nothing does."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Say which variant would be chosen under stated conditions, and why not the others. Needs no server.

    The profiles come from the current revision in the repository, the objectives from the file; the choice is what the
    agent would settle on once nothing has to be waited for. Which profile is used, and where it was measured, is said.
    Each split has a line of its own, with the figures behind "split" or "not split".

      edgefolio explain -f examples/digits.yaml --cpu-factor 2.5 --rate 40 --memory 64Mi
    """
    portfolio = load_portfolio(file)
    for option, value in (("--cpu-factor", cpu_factor), ("--rate", rate), ("--transport", transport)):
        # NaN is in no range.
        if not (_LEAST if option == "--cpu-factor" else 0) <= value <= _MOST:
            remedy = f"Give a positive number up to {_MOST:g}."
            raise UserError("the number is out of range.", field=option, value=value, remedy=remedy)
    memory_bytes = None if memory is None else bytes_option(memory, field="--memory")
    uri = checked_argument(repository, field="--repository") if repository else portfolio.spec.repository.uri
    field = "--repository" if repository else "spec.repository.uri"
    opened = Repository.open(uri, field=field)
    pointer, manifest = opened.current_manifest(portfolio.spec.serving.model_name)
    trusted = _trusted(opened, portfolio.spec.repository.verification_key)
    over = None if link is None else parse_link(link)
    workers = None if worker_set is None else parse_worker_set(worker_set)
    _require_active(manifest, active, workers)
    objectives = objectives_from_specification(portfolio.spec.objectives)
    fitting = _fitting(trusted, manifest, profile, manifest_sha256=pointer.manifest_sha256)
    measured = None if fitting.published is None else fitting.published.profile

    def explained(with_set: WorkerSet | None) -> Explanation:
        return explain_choice(
            profiles=profiles_from_manifest(manifest, measured=measured, with_splits=True),
            objectives=objectives,
            switching=portfolio.spec.switching,
            compute_factor=cpu_factor,
            arrival_rate=rate,
            transport_milliseconds=transport,
            memory_bytes=memory_bytes,
            active=active,
            worker_set=with_set,
        )

    # A set serves one split; where none is stated, the one that each was made for shows what it would take.
    made_up = {variant.name: StatedSet(workers=_workers(variant)) for variant in manifest.splits}
    sets = {
        variant.name: (workers or made_up[variant.name]).of(variant, link=over, cpu_factor=cpu_factor, rate=rate)
        for variant in manifest.splits
    }
    if workers is None:
        sets = {name: replace(found, is_ready=False) for name, found in sets.items()}
    explanations = {name: explained(found) for name, found in sets.items()}
    splitting = [found for name, found in explanations.items() if found.chosen == name]
    # By rank, so the last is the most accurate.
    explanation = splitting[-1] if splitting else explained(None)
    if as_json:
        splits = split_documents(manifest, explanations, stated=workers, link=over, cpu_factor=cpu_factor)
        typer.echo(json.dumps(_document(explanation, manifest, fitting) | {"splits": splits}, indent=2))
        return
    console = Terminal(highlight=False)
    conditions = f"compute {cpu_factor:g}x slower than profiled, {rate:g} requests/s"
    if memory is not None:
        conditions += f", {memory} for variants"
    if active is not None:
        conditions += f", {active} serves now"
    console.print(Text(f"{manifest.model}, revision {manifest.revision}: {conditions}."))
    console.print(Text(f"Asked: {_asked(objectives, manifest)}."))
    console.print(Text(fitting.choice.evidence))
    for problem in fitting.refused:
        console.print(Text(f"Refused: {problem}"))
    console.print(_table(explanation, manifest))
    console.print(Text(_conclusion(explanation), style="bold"))
    if explanation.standby is not None:
        console.print(Text(f"Standby: {explanation.standby.message}"))
    for line in split_lines(manifest, explanations, stated=workers, link=over):
        console.print(Text(line), soft_wrap=True)


def _require_active(manifest: Manifest, active: str | None, workers: StatedSet | None) -> None:
    names = [variant.name for variant in (manifest.single_node if workers is None else manifest.variants)]
    if active is None or active in names:
        return
    is_split = active in {variant.name for variant in manifest.splits}
    raise UserError(
        "it is a split, and no --worker-set says which nodes serve it."
        if is_split
        else "the current revision has no such variant.",
        field="--active",
        value=active,
        remedy=f"Name one of: {', '.join(names)}.",
    )


def _workers(variant: Variant) -> int:
    assert variant.split is not None
    return variant.split.workers


def _trusted(repository: Repository, verification_key: str | None) -> Repository | None:
    """The repository as profiles are read from it; ``None`` where their signatures cannot be verified."""
    if verification_key is None:
        return repository
    try:
        from edgefolio.repository.signature import parsed_key
    except ModuleNotFoundError:
        return None
    key = parsed_key(verification_key, field="spec.repository.verificationKey")
    return Repository(repository.storage, verification_key=key)


def _fitting(
    repository: Repository | None, manifest: Manifest, wanted: str | None, *, manifest_sha256: str
) -> FittingProfile:
    """The profile that was asked for; by default that of this machine."""
    if repository is None:
        remedy = "Run: pip install 'edgefolio[edge]'"
        if wanted not in (None, _OF_MANIFEST):
            raise UserError(
                "the package that verifies signed profiles is not installed.",
                field="--profile",
                value=wanted,
                remedy=remedy,
            )
        choice = choose_profile(this_processor(), (Measured.of_manifest(manifest),), int8=int8_variants(manifest))
        return FittingProfile(choice=choice, refused=(f"signed profiles are not read. {remedy}",))
    if wanted is None:
        return fitting_profile(repository, manifest, this_processor(), manifest_sha256=manifest_sha256)
    of_manifest = FittingProfile(choice=stated(Measured.of_manifest(manifest)))
    if wanted == _OF_MANIFEST:
        return of_manifest
    found = published_profile(repository, manifest, wanted, manifest_sha256=manifest_sha256)
    if found is None:
        known = ", ".join((_OF_MANIFEST, *profile_classes(repository, manifest.model, manifest.revision)))
        raise UserError(
            "the current revision has no profile of this class.",
            field="--profile",
            value=wanted,
            remedy=f"Name one of: {known}; or add it with `edgefolio profile` on such a machine.",
        )
    return FittingProfile(choice=stated(Measured.of(found.profile)), published=found)


def _asked(objectives: Objectives, manifest: Manifest) -> str:
    parts = []
    budget = latency_budget(objectives)
    if budget is not None:
        parts.append(f"p95 at most {budget:g} ms on the server")
    if objectives.min_accuracy_percent is not None:
        parts.append(f"{manifest.score_word} at least {objectives.min_accuracy_percent:g} {manifest.score_unit}")
    if objectives.max_memory_bytes is not None:
        parts.append(f"memory at most {mebibytes(objectives.max_memory_bytes)}")
    return (
        ", ".join(parts)
        or f"nothing, so the {'most accurate' if manifest.score is None else 'best'} variant that keeps up"
    )


def _table(explanation: Explanation, manifest: Manifest) -> Table:
    table = Table()
    table.add_column("variant", overflow="fold")
    for heading in (*headings(manifest.score_word), "memory MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for entry in explanation.variants:
        if entry.split is not None:
            continue
        table.add_row(
            Text(entry.profile.name),
            *figures(entry),
            f"{needed_bytes(entry.profile) / 2**20:.1f}",
            Text(entry.why),
            style="bold green" if entry.chosen else None,
        )
    return table


def _conclusion(explanation: Explanation) -> str:
    if explanation.chosen is None:
        return "Chosen: none. Nothing fits the memory, so nothing new can be loaded."
    if explanation.objectives_met:
        return f"Chosen: {explanation.chosen}."
    return f"Chosen: {explanation.chosen}, though no variant meets all objectives (ObjectivesNotMet)."


def _document(explanation: Explanation, manifest: Manifest, fitting: FittingProfile) -> dict[str, object]:
    choice = fitting.choice
    return {
        "model": manifest.model,
        "revision": manifest.revision,
        "profile": {
            "class": choice.measured.class_name,
            "ofManifest": choice.measured.name is None,
            "isOfThisNode": choice.is_own,
            "evidence": choice.evidence,
            "refused": list(fitting.refused),
        },
        "chosen": explanation.chosen,
        "objectivesMet": explanation.objectives_met,
        "standby": None
        if explanation.standby is None
        else {"variant": explanation.standby.variant, "why": explanation.standby.message},
        "variants": [
            {
                **variant_document(entry),
                "profile": _profile_document(entry.profile),
            }
            for entry in explanation.variants
            if entry.split is None
        ],
    }


def _profile_document(profile: VariantProfile) -> dict[str, float]:
    return {"meanMilliseconds": profile.mean_milliseconds, "p95Milliseconds": profile.p95_milliseconds}
