"""Pipeline from specification to published portfolio: data, methods, candidates, profile, test, publish.

Every stage caches its results in the work directory by a digest of their inputs. A run that is killed at any
instant and restarted reuses them, and ends with the same variants, manifest and revision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from edgefolio.contract.making_key import making_specification
from edgefolio.errors import EXIT_OBJECTIVE_NOT_MET, EXIT_OK
from edgefolio.manifest import Manifest, Profile
from edgefolio.repository import Publication, Published
from edgefolio.repository.signature import publisher_key
from edgefolio.specification import ModelPortfolio
from edgefolio.uris import redacted
from edgefolio_pruner.data.class_table import class_table
from edgefolio_pruner.inputs import MakingSource, load_source, naming_the_model_file
from edgefolio_pruner.methods import METHODS, Method, Workbench, asked_for, make_all
from edgefolio_pruner.profiling.environment import cpu_quota, describe_environment
from edgefolio_pruner.profiling.measure import profile_variants
from edgefolio_pruner.progress import Progress, no_progress
from edgefolio_pruner.scoring import Judge, Measured
from edgefolio_pruner.stages.candidates import CandidateMaker, CandidateRecord
from edgefolio_pruner.stages.checks.first_look import look_first
from edgefolio_pruner.stages.graph_cache import GraphCache
from edgefolio_pruner.stages.manifest_draft import chance_notes, choose, draft_manifest
from edgefolio_pruner.stages.quantized_candidates import TwinMaker, quantization_of, slower_twins
from edgefolio_pruner.stages.splits.stage import SplitsOfRun, SplitStage
from edgefolio_pruner.work.directory import WorkDirectory, default_work_directory, no_space_left
from edgefolio_pruner.work.draft_store import DraftStore


@dataclass(frozen=True, kw_only=True)
class MakeResult:
    """Outcome of a pruning run: the manifest, its place, and the work directory."""

    manifest: Manifest
    published: Published
    repository_uri: str
    work_directory: Path
    work_names: frozenset[str] | None
    """Names in the work directory that this run rests on; ``None`` if it published a kept draft and looked at none."""

    @property
    def exit_code(self) -> int:
        """0, or 3 if no candidate meets the accuracy floor and the dense model alone was published."""
        return EXIT_OK if self.manifest.accuracy_floor_met else EXIT_OBJECTIVE_NOT_MET


@naming_the_model_file
def make_portfolio(
    portfolio: ModelPortfolio,
    *,
    repository_uri: str | None = None,
    work_directory: Path | None = None,
    signing_key_file: Path | None = None,
    threads: int | None = None,
    progress: Progress = no_progress,
    making: str = "",
    before_publishing: Callable[[], None] = lambda: None,
    known_methods: Sequence[type[Method]] = METHODS,
) -> MakeResult:
    """Make the variants of ``portfolio`` and publish them.

    ``repository_uri`` and ``work_directory`` replace what the specification and the user's cache say; ``threads`` (of
    training and pruning; profiles have their own in the specification) are all that this process may use. The manifest
    is signed with the key in ``signing_key_file`` or the environment, see
    :func:`~edgefolio.repository.signature.signing_key`. ``making``
    names one pruning run over all its attempts: the draft that one of them has kept, the next one publishes, also on a
    machine that measures otherwise. ``before_publishing`` is called when the draft is kept. Raises
    :class:`~edgefolio.errors.UserError` for bad input, before anything is written.
    """
    spec = portfolio.spec
    uri = repository_uri if repository_uri is not None else spec.repository.uri
    work = WorkDirectory(work_directory if work_directory is not None else default_work_directory(portfolio))
    source = load_source(portfolio, progress=progress, scratch=work.path)
    progress(stage="data", fraction=1.0, message=_described(source))
    progress(stage="classes", fraction=1.0, message=class_table(source.data))
    # Fail on an unwritable repository before hours of training.
    field = "--repository" if repository_uri is not None else "spec.repository.uri"
    Publication.check(uri, field=field)
    key = publisher_key(signing_key_file, verification_key=spec.repository.verification_key)
    with work.occupied(), no_space_left(work.path):
        drafts = DraftStore(work, making=making, model=spec.serving.model_name) if making else None
        kept = drafts.kept() if drafts is not None else None
        if kept is None:
            threads = threads if threads is not None else available_threads()
            methods = asked_for(portfolio, known_methods)
            run = _PruningRun(portfolio, source, methods, work, threads, progress, making=making)
            draft, files = run.run()
            if drafts is not None:
                drafts.keep(draft, files)
        else:
            draft, files = kept
        before_publishing()
        published = Publication.open(uri, field=field).publish(
            draft,
            files,
            history_limit=spec.revision_history_limit,
            in_use={spec.pinned_revision} if spec.pinned_revision else (),
            signing_key=key,
            on_step=lambda step: progress(stage="publish", fraction=0.5, message=step),
        )
    what = "already published" if published.already_published else "published"
    progress(stage="publish", fraction=1.0, message=f"{what} as revision {published.manifest.revision}")
    return MakeResult(
        manifest=published.manifest,
        published=published,
        repository_uri=redacted(uri),
        work_directory=work.path,
        work_names=work.used if kept is None else None,
    )


def available_threads() -> int:
    """Torch's thread count, bounded by the cgroup quota."""
    quota = cpu_quota()
    return max(1, min(torch.get_num_threads(), math.ceil(quota) if quota is not None else 1 << 16))


class _PruningRun:
    """One call of :func:`make_portfolio`, up to the draft."""

    def __init__(
        self,
        portfolio: ModelPortfolio,
        source: MakingSource,
        methods: Sequence[Method],
        work: WorkDirectory,
        threads: int,
        progress: Progress,
        *,
        making: str = "",
    ) -> None:
        self._portfolio, self._source, self._work = portfolio, source, work
        self._methods, self._threads, self._progress, self._making = methods, threads, progress, making

    def run(self) -> tuple[Manifest, dict[str, Path]]:
        """The draft of the manifest, and the file of each variant."""
        graphs = GraphCache(self._source)
        # Fail before hours of training; once per source.
        first = look_first(
            self._source,
            graphs,
            self._methods,
            work=self._work,
            batches=self._portfolio.spec.profiling.batch_sizes,
            threads=self._threads,
        )
        for note in first.notes:
            self._progress(stage="note", fraction=1.0, message=note)
        self._first = first
        stage = SplitStage(
            self._portfolio,
            self._source,
            graphs,
            work=self._work,
            threads=self._threads,
            batch=first.batch,
            making=self._making,
            progress=self._progress,
        )
        stage.require_possible()
        quantization = quantization_of(self._portfolio)
        twin_maker = (
            None
            if quantization is None
            else TwinMaker(self._source, quantization, work=self._work, threads=self._threads)
        )
        maker = CandidateMaker(self._source, graphs, work=self._work, threads=self._threads, batch=first.batch)
        bench = Workbench(source=self._source, work=self._work, threads=self._threads, progress=self._progress)
        weights = make_all(self._methods, bench)
        made = maker.make(weights, progress=self._progress)
        self._progress(stage="candidates", fraction=1.0, message=f"{len(made)} candidates, proven and exported")
        refused: dict[str, str] = {}
        if twin_maker is not None:
            # Of candidates with the same file one is enough.
            different = {record.sha256: (record, path) for record, path in reversed(made)}
            parents = list(reversed(different.values()))
            twins = twin_maker.make(parents, judge=maker.judge, progress=self._progress)
            made, refused = [*made, *twins.made], twins.refused
            self._progress(stage="quantization", fraction=1.0, message=f"{len(twins.made)} quantized twins")
        entries = stage.make(weights[0], made, judge=maker.judge)
        first_with: dict[str, str] = {}
        duplicates: dict[str, str] = {}
        for record, _ in made:
            holder = first_with.setdefault(record.sha256, record.name)
            if holder != record.name:
                duplicates[record.name] = holder
        files = {record.name: path for record, path in made if record.name not in duplicates}
        profiles = self._profiles(files, {record.name: record.sha256 for record, _ in made})
        splits = stage.choose(entries, [(record, path) for record, path in made if record.name in files])
        draft = self._draft([record for record, _ in made], profiles, duplicates, refused, files, maker.judge, splits)
        files |= {split.name: split.made.path for split in splits.members}
        return draft, {variant.name: files[variant.name] for variant in draft.variants}

    def _profiles(self, files: Mapping[str, Path], digests: Mapping[str, str]) -> dict[str, Profile]:
        settings = self._portfolio.spec.profiling
        environment = describe_environment(threads=settings.threads, onnxruntime_version=str(onnxruntime.__version__))
        key: dict[str, Any] = {
            "files": {name: digests[name] for name in files},
            "settings": settings.model_dump(mode="json", exclude={"node_selectors"}),
            "environment": environment.model_dump(mode="json"),
        }
        if self._making:
            # Training is resumed; profiles are measured anew for each requested pruning run.
            key["making"] = self._making

        def measure() -> dict[str, Any]:
            profiles = profile_variants(
                files,
                input_shapes=self._source.data.input_shapes,
                batch_sizes=settings.batch_sizes,
                threads=settings.threads,
                samples=settings.samples,
                rounds=settings.rounds,
                progress=self._progress,
            )
            return {name: profile.model_dump(mode="json", by_alias=True) for name, profile in profiles.items()}

        value = self._work.result("profile", key, measure)
        self._progress(stage="profile", fraction=1.0, message=f"{len(value)} variants on {environment.cpu_model}")
        return {name: Profile.model_validate(profile) for name, profile in value.items()}

    def _draft(
        self,
        candidates: Sequence[CandidateRecord],
        profiles: Mapping[str, Profile],
        duplicates: Mapping[str, str],
        refused: Mapping[str, str],
        files: Mapping[str, Path],
        judge: Judge,
        splits: SplitsOfRun,
    ) -> Manifest:
        key: dict[str, Any] = {
            "candidates": {candidate.name: candidate.sha256 for candidate in candidates},
            "profiles": {name: profile.model_dump(mode="json") for name, profile in profiles.items()},
            "specification": making_specification(self._portfolio.spec),
            "model": self._portfolio.spec.serving.model_name,
            "source": self._source.record,
            **judge.key,
            **splits.key,
        }

        def draft() -> dict[str, Any]:
            measured = [candidate for candidate in candidates if candidate.name not in duplicates]
            slower = slower_twins(measured, profiles, batch=self._portfolio.spec.profiling.batch_sizes[-1])
            measured = [candidate for candidate in measured if candidate.name not in slower]
            described = self._source.scoring.description()
            choice = choose(
                measured,
                profiles,
                self._portfolio,
                class_names=self._source.data.class_names,
                score="accuracy" if described is None else described.word,
            )
            manifest = draft_manifest(
                portfolio=self._portfolio,
                source=self._source,
                candidates=candidates,
                profiles=profiles,
                choice=choice,
                duplicates=duplicates,
                left_out={**refused, **slower},
                tested=self._tested(choice.chosen, files, judge)
                | {split.name: split.measured(judge, "test") for split in splits.members},
                splits=splits.members,
                splits_rejected=splits.rejected,
                notes=[*self._first.notes, *chance_notes(candidates), *splits.notes],
            )
            return manifest.model_dump(mode="json", by_alias=True)

        manifest = Manifest.model_validate(self._work.result("draft", key, draft))
        self._progress(
            stage="test",
            fraction=1.0,
            message=f"{len(manifest.single_node)} of {len(candidates)} chosen{_and_splits(manifest)}",
        )
        return manifest

    def _tested(self, names: Sequence[str], files: Mapping[str, Path], judge: Judge) -> dict[str, Measured]:
        tested = {}
        for position, name in enumerate(names):
            self._progress(stage="test", fraction=position / len(names), message=name)
            tested[name] = judge.measure(files[name], "test")
        return tested


def _and_splits(manifest: Manifest) -> str:
    return f", and {len(manifest.splits)} splits" if manifest.splits else ""


def _described(source: MakingSource) -> str:
    data = source.data
    return (
        f"{source.description} on {data.name}: {data.train.samples} training, {data.validation.samples} validation, "
        f"{data.test.samples} test samples of {data.shown_shape}"
    )


__all__ = ["MakeResult", "available_threads", "make_portfolio"]
