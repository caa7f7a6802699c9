"""The three loads that are compared: the agent choosing, and the slowest and the fastest variant fixed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from demo.clients import ClientPlan
from demo.corruption import publish_corrupted
from demo.hog import processors
from demo.load import Load, run_load
from demo.portfolio import objective_milliseconds, slowest_and_fastest, write_portfolio, write_requests
from demo.servers import Edgefolio, Ports
from demo.story import COMPARED, TRIALS, Event, PlacedPhase, placed
from demo.summary import Switch, summarize
from edgefolio.manifest import Manifest
from edgefolio_pruner.html_report.timeline import LoadFigures

#: Requests per second of each fixed-rate client, and the pause of each closed-loop client.
FIXED_RATE = 5.0
THINK_SECONDS = 0.2
#: An agent that was killed must be back at work within this time.
RECOVERY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """One load with its figures. ``failures`` are sentences about what had to hold and did not."""

    name: str
    figures: LoadFigures
    load: Load
    switches: tuple[Switch, ...] = ()
    objective_at: tuple[tuple[float, float], ...] = ()
    decisions: tuple[tuple[float, dict[str, object]], ...] = ()
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What all loads share: repository, manifest, processors, requests."""

    output: Path
    repository: Path
    example: Path
    manifest: Manifest
    progress: Callable[[str], None]

    @property
    def objective(self) -> int:
        """The latency objective of this machine in milliseconds."""
        return objective_milliseconds(self.manifest)

    def adaptive(self) -> LoadResult:
        """The agent chooses; then a corrupt revision is published, and the agent is killed and restarted."""
        phases = placed(COMPARED + TRIALS)
        compared_until = placed(COMPARED)[-1].end
        portfolio = self.output / "portfolio.yaml"
        write_portfolio(self.example, portfolio, repository=self.repository, latency_milliseconds=self.objective)
        ports = Ports.free()
        server_cpus, _ = processors()
        command = ["run", "-f", str(portfolio), "--json", "--state-dir", str(self.output / "state"), *ports.options()]
        failures: list[str] = []
        instants: dict[str, float] = {}

        def change_objective() -> None:
            halved = max(1, self.objective // 2)
            write_portfolio(self.example, portfolio, repository=self.repository, latency_milliseconds=halved)

        with Edgefolio(command, cpus=server_cpus, log=self.output / "adaptive.log") as server:
            server.wait_for("serving")

            def publish_corrupt() -> None:
                instants["corrupt"] = time.monotonic()
                publish_corrupted(self.repository, self.manifest)

            def kill_agent() -> None:
                if not server.events("refused", since=instants["corrupt"]):
                    failures.append("the agent did not say that it refused the corrupt revision")
                server.kill()
                instants["restart"] = time.monotonic()
                server.start()

            load = self._load(
                name="adaptive",
                ports=ports,
                phases=phases,
                actions={
                    Event.OBJECTIVE_CHANGED: change_objective,
                    Event.CORRUPT_PUBLISHED: publish_corrupt,
                    Event.AGENT_KILLED: kill_agent,
                },
            )
            try:
                server.wait_for("serving", since=instants["restart"], seconds=RECOVERY_SECONDS)
            except TimeoutError as error:
                failures.append(f"the agent did not recover: {error}")
            lines = [(at - load.start, line) for at, line in server.lines]
        halved_from = next(phase.start for phase in phases if phase.event is Event.OBJECTIVE_CHANGED)
        objective_at = ((0.0, float(self.objective)), (halved_from, float(max(1, self.objective // 2))))
        switches = tuple(
            Switch(
                at=at,
                variant=str(line["variant"]),
                reason=str(line["reason"]),
                milliseconds=float(str(line["milliseconds"])),
            )
            for at, line in lines
            if line.get("event") == "switch" and at >= 0
        )
        return self._result(
            name="Edgefolio",
            load=load,
            until=compared_until,
            switches=switches,
            objective_at=objective_at,
            decisions=tuple((at, line) for at, line in lines if line.get("event") == "decision"),
            failures=failures,
        )

    def fixed_slowest(self) -> LoadResult:
        """The most accurate variant, whatever happens."""
        slowest, _ = slowest_and_fastest(self.manifest)
        return self._fixed(slowest.name)

    def fixed_fastest(self) -> LoadResult:
        """The fastest variant, whatever happens."""
        _, fastest = slowest_and_fastest(self.manifest)
        return self._fixed(fastest.name)

    def _fixed(self, variant: str) -> LoadResult:
        ports = Ports.free()
        server_cpus, _ = processors()
        command = ["serve", "--repository", str(self.repository), "--model", self.manifest.model]
        options = ["--revision", str(self.manifest.revision), "--variant", variant, "--json", *ports.options()]
        with Edgefolio([*command, *options], cpus=server_cpus, log=self.output / f"{variant}.log") as server:
            server.wait_for("serving")
            load = self._load(name=variant, ports=ports, phases=placed(COMPARED), actions={})
        halved_from = next(phase.start for phase in load.phases if phase.event is Event.OBJECTIVE_CHANGED)
        return self._result(
            name=f"{variant} fixed",
            load=load,
            until=load.phases[-1].end,
            objective_at=((0.0, float(self.objective)), (halved_from, float(max(1, self.objective // 2)))),
        )

    def _load(
        self,
        *,
        name: str,
        ports: Ports,
        phases: tuple[PlacedPhase, ...],
        actions: dict[Event, Callable[[], None]],
    ) -> Load:
        inputs = self.output / "requests.npz"
        tolerance = write_requests(self.repository, self.manifest, inputs)
        server_cpus, client_cpus = processors()
        plan = ClientPlan(
            grpc_address=f"127.0.0.1:{ports.grpc}",
            http_address=f"127.0.0.1:{ports.http}",
            model=self.manifest.model,
            input_name=self.manifest.signature.inputs[0].name,
            output_name=self.manifest.signature.outputs[0].name,
            seconds=phases[-1].end,
            fixed_rate=FIXED_RATE,
            think_seconds=THINK_SECONDS,
            tolerance=tolerance,
            cpus=tuple(sorted(client_cpus)),
        )
        return run_load(
            name=name,
            plan=plan,
            inputs=inputs,
            phases=phases,
            actions=actions,
            server_cpus=server_cpus,
            directory=self.output,
            progress=self.progress,
        )

    def _result(
        self,
        *,
        name: str,
        load: Load,
        until: float,
        switches: tuple[Switch, ...] = (),
        objective_at: tuple[tuple[float, float], ...] = (),
        decisions: tuple[tuple[float, dict[str, object]], ...] = (),
        failures: list[str] | None = None,
    ) -> LoadResult:
        accuracy = {
            self.manifest.version_of(variant): variant.test_accuracy.percent for variant in self.manifest.variants
        }
        figures = summarize(
            records=load.records,
            switches=switches,
            accuracy=accuracy,
            objective_at=objective_at,
            until=until,
        )
        return LoadResult(
            name=name,
            figures=figures,
            load=load,
            switches=switches,
            objective_at=objective_at,
            decisions=decisions,
            failures=tuple(failures or ()),
        )
