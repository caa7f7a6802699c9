"""Coverage-guided fuzzer of untrusted inputs (atheris, libFuzzer): ``scripts/fuzz.py --minutes 60 [TARGET ...]``.

Targets: manifest, pointer, model file, a network of one, an agent's state, decision trace, ModelPortfolio,
ModelEndpoint (its orders and its status), a Job's report, Triton's metrics, ``.npz`` data and pictures.

Each target gets an equal share of the time in a process of its own, and its corpus in ``build/fuzz/TARGET`` grows from
run to run. A target may refuse its bytes with the error that its callers expect; any other exception is a finding, kept
beside the corpus, and ends that target. Exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import warnings
from pathlib import Path

from fuzz_targets import LONGEST_BYTES, TARGETS, seeds

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "fuzz"
#: Values that documents do not expect, besides the words of what is valid.
ODD = (
    *(b"null", b"true", b"-1", b"0.5", b"-0", b"1e308", b"1e999", b"NaN", b"Infinity", b"9" * 64, b"[]", b"{}"),
    *(b'""', b'"\\ud800"', b'"0000-01-01T00:00:00Z"', b'"9999-12-31T23:59:59-23:59"', b'"1.5"', b'"-0"', b"\x1b[2J"),
)
_WORD = re.compile(rb'"[^"\\\n]{1,40}"|[A-Za-z][A-Za-z0-9]{2,40}:?')


def write_dictionary(path: Path, raws: list[bytes]) -> None:
    """A dictionary of libFuzzer: what it puts together out of ``raws`` is then more often a document than noise."""
    words = sorted({*ODD, *(word for raw in raws for word in _WORD.findall(raw[:LONGEST_BYTES]))})
    escaped = ("".join(f"\\x{byte:02x}" for byte in word[:64]) for word in words[:2000])
    path.write_text("".join(f'"{word}"\n' for word in escaped))


def run_target(name: str, seconds: int) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    # Pillow warns of odd pictures; here as in a making it is the reader that judges.
    warnings.simplefilter("ignore")
    # Before anything else imports it: modules are instrumented when they are loaded.
    with atheris.instrument_imports(include=["edgefolio", "edgefolio_edge", "edgefolio_pruner"]):
        TARGETS[name](b"")
    corpus = BUILD / name
    corpus.mkdir(parents=True, exist_ok=True)
    begin = seeds()[name]
    for number, raw in enumerate(begin):
        (corpus / f"seed-{number}").write_bytes(raw)
    dictionary = BUILD / f"{name}.dictionary"
    write_dictionary(dictionary, begin)

    def one(raw: bytes) -> None:
        TARGETS[name](raw)

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_BYTES}",
        f"-artifact_prefix={corpus}-",
        "-timeout=20",
        f"-dict={dictionary}",
    ]
    atheris.Setup(
        [sys.argv[0], *options, "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1", str(corpus)],
        one,
    )
    atheris.Fuzz()


def main() -> int:
    """Run the targets one after the other; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--only", choices=TARGETS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds = max(1, round(options.minutes * 60 / len(options.targets)))
    if options.only is not None:
        run_target(options.only, round(options.minutes * 60))
        return 0
    found = []
    for name in options.targets:
        print(f"fuzz: {name} for {seconds} s", flush=True)
        command = [sys.executable, __file__, "--only", name, "--minutes", str(seconds / 60)]
        if subprocess.run(command).returncode:
            found.append(name)
    print("fuzz: nothing found" if not found else f"fuzz: findings in {', '.join(found)}, beside {BUILD}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
