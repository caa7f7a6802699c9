"""``edgefolio profile``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from edgefolio.commands.terminal import Terminal
from edgefolio.errors import EXIT_OK, UserError

if TYPE_CHECKING:
    from edgefolio.manifest import Manifest
    from edgefolio.node_profile import PublishedProfile
    from edgefolio.repository import Repository


def profile(
    repository: str = typer.Argument(..., help="The repository: a directory, s3://bucket/prefix or https://host/path."),
    model: str | None = typer.Option(None, help="The model. Default: the only one in the repository."),
    revision: int | None = typer.Option(None, min=1, help="The revision. Default: the current one."),
    threads: int | None = typer.Option(
        None, min=1, max=256, help="Threads of the runtime. Default: as in the manifest."
    ),
    samples: int = typer.Option(200, min=20, max=100_000, help="Measurements per variant and batch."),
    rounds: int = typer.Option(5, min=2, max=100, help="Interleaved rounds they are spread over."),
    output: Path | None = typer.Option(
        None, "--output", "-o", help="Write the profile to this file, and nothing to the repository."
    ),
    again: bool = typer.Option(False, "--again", help="Measure even if a profile of this class is there; replace it."),
    allow_busy: bool = typer.Option(
        False, "--allow-busy", help="Measure although others use this machine; the profile says so."
    ),
    sign: Path | None = typer.Option(
        None, metavar="KEY", help="Sign the profile with this secret key file, the one that signs the revisions."
    ),
    verification_key: str | None = typer.Option(
        None, metavar="KEY", help="Read only what this public key has signed (a key, or a .pub file)."
    ),
    work_dir: Path | None = typer.Option(
        None, help="Where fetched variants are kept until the end. Default: ~/.cache/edgefolio/profile/DIGEST."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object to standard output, no table."),
) -> int:
    """Measure the published variants on this machine, and add a profile for its class of processors.

    Variants are made on one machine and served on others. An agent on a machine of the same class (processor and
    instruction sets) then decides with these figures, in place of those in the manifest scaled by one factor: what
    counts most for int8 variants, which are fast only where the processor multiplies 8-bit integers.

    The profile is a file of its own beside the manifest, which stays as it is. Run it on one machine of each class, in
    any order; a profile that is there already is not measured again. A stopped run keeps what it fetched.

    Example: edgefolio profile ./portfolios --model digits

    From a read-only place: edgefolio profile https://host/portfolios --output profile.json

    Exit codes: 0 done, or there already; 2 bad input, a busy machine included.
    """
    from edgefolio.node_profile import PublishedProfile
    from edgefolio.repository import Repository, layout
    from edgefolio.repository.profiles import publish_profile
    from edgefolio.repository.signature import key_from_option, signing_key
    from edgefolio.repository.storage import checked_argument
    from edgefolio_pruner.cli.progress_display import shown_progress
    from edgefolio_pruner.profiling.revision import (
        RevisionToProfile,
        busy_percent,
        profile_revision,
        profile_there,
        require_idle,
        require_publishable,
    )

    console = Terminal(stderr=True, highlight=False)
    place = Repository.open(
        checked_argument(repository, field="REPOSITORY"),
        field="REPOSITORY",
        verification_key=key_from_option(verification_key),
    )
    name = model or _only_model(place, repository)
    wanted = (
        RevisionToProfile.current(place, name)
        if revision is None
        else RevisionToProfile.numbered(place, name, revision)
    )
    key = signing_key(sign, field="--sign")
    count = threads or wanted.threads
    if output is None:
        found, problem = profile_there(place, wanted, threads=count, signing_key=key)
        if problem is not None:
            console.print(f"note: {problem}", markup=False, soft_wrap=True)
        if found is not None and not again:
            path = place.location(layout.profile_path(name, wanted.manifest.revision, found.profile.class_name))
            _show(found, wanted.manifest, where=path, was_there=True, as_json=as_json)
            return EXIT_OK
        require_publishable(place, wanted.manifest, signing_key=key)
    busy = busy_percent()
    if not allow_busy:
        require_idle(busy)
    with shown_progress(console) as progress:
        measured = PublishedProfile.of(
            profile_revision(
                place,
                wanted,
                threads=count,
                samples=samples,
                rounds=rounds,
                work_directory=work_dir or _cache(wanted.manifest_sha256),
                busy=busy,
                progress=progress,
            )
        )
    if output is not None:
        where = _write(output, measured, signed_with=key)
    else:
        publish_profile(place, measured.profile, replace=True, signing_key=key)
        where = place.location(layout.profile_path(name, measured.profile.revision, measured.profile.class_name))
    _show(measured, wanted.manifest, where=where, was_there=False, as_json=as_json)
    return EXIT_OK


def _only_model(repository: Repository, uri: str) -> str:
    known = repository.models()
    if len(known) != 1:
        raise UserError(
            f"the repository holds {len(known)} models, as far as it can be listed.",
            field="--model",
            value=uri,
            remedy=f"Name one: {', '.join(known)}." if known else "Name it, or publish one with `edgefolio make`.",
        )
    return known[0]


def _cache(digest: str) -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("edgefolio") / "profile" / digest[:16]


def _write(path: Path, measured: PublishedProfile, *, signed_with: Any) -> str:
    from edgefolio.files import write_durably
    from edgefolio.repository import layout

    if path.is_dir():
        raise UserError("this is a directory.", field="--output", value=path, remedy="Name a file in it.")
    write_durably(path.absolute(), measured.raw, field="--output")
    if signed_with is not None:
        signature = path.with_name(path.name + layout.SIGNATURE_SUFFIX)
        signed = signed_with.sign(measured.raw, comment=f"edgefolio profile:{measured.profile.class_name}")
        write_durably(signature.absolute(), signed, field="--output")
    return str(path)


def _show(published: PublishedProfile, manifest: Manifest, *, where: str, was_there: bool, as_json: bool) -> None:
    from edgefolio.repository import layout
    from edgefolio_pruner.profiling.revision import was_busy

    found = published.profile
    batch = manifest.request_batch_size
    there, made = found.profiles(), {entry.name: entry.profiles[0] for entry in manifest.variants}
    rows: list[dict[str, Any]] = []
    for variant in reversed(manifest.variants):
        here, before = there[variant.name].latency(batch), made[variant.name].latency(batch)
        rows.append(
            {
                "name": variant.name,
                "p50Milliseconds": None if here is None else here.p50_milliseconds,
                "p95Milliseconds": None if here is None else here.p95_milliseconds,
                "meanMilliseconds": None if here is None else here.mean_milliseconds,
                "ratioToManifest": None
                if here is None or before is None
                else here.mean_milliseconds / before.mean_milliseconds,
                "loadMilliseconds": there[variant.name].load_milliseconds,
                "memorySteadyBytes": there[variant.name].memory_steady_bytes,
                "memoryPeakBytes": there[variant.name].memory_peak_bytes,
            }
        )
    if as_json:
        document = {
            "model": found.model,
            "revision": found.revision,
            "class": found.class_name,
            "cpuModel": found.environment.cpu_model,
            "instructionSets": list(found.environment.instruction_sets),
            "threads": found.environment.threads,
            "sha256": published.sha256,
            "location": where,
            "path": layout.profile_path(found.model, found.revision, found.class_name),
            "wasThere": was_there,
            "wasBusy": was_busy(found),
            "busyPercent": found.busy_percent,
            "spreadPercent": found.spread_percent,
            "requestBatchSize": batch,
            "variants": rows,
        }
        typer.echo(json.dumps(document, indent=2))
        return
    console = Terminal(highlight=False)
    table = Table(title=f"{found.model}, revision {found.revision} on {found.environment.cpu_model} (batch of {batch})")
    table.add_column("variant", no_wrap=True)
    for heading in ("p50", "p95", "x manifest"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            "-" if row["p50Milliseconds"] is None else f"{row['p50Milliseconds']:.2f} ms",
            "-" if row["p95Milliseconds"] is None else f"{row['p95Milliseconds']:.2f} ms",
            "-" if row["ratioToManifest"] is None else f"{row['ratioToManifest']:.2f}",
        )
    console.print(table)
    console.print(f"Class:   {found.class_name}", markup=False, soft_wrap=True)
    shown = f"others used {found.busy_percent:.0f} % before, rounds differ by up to {found.spread_percent:.0f} %"
    console.print(f"Busy:    {'yes' if was_busy(found) else 'no'}: {shown}", markup=False, soft_wrap=True)
    done = "There already" if was_there else "Written"
    console.print(f"{done}: {where}", markup=False, soft_wrap=True)
