"""`python -m fuzz [HARNESS]... [--seconds 60]`: run the harnesses under atheris, one after the other.

What they find goes to `.fuzz/`: inputs that reach further, for the next run to start from, and `crash-*` files. Exit status 1:
something was found.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

HARNESSES: Final = ("tokens", "key_sets")
ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / ".fuzz"
LONGEST_INPUT: Final = 4096


def main() -> int:
    """Run what the command line asks for. The exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz what reads callers' and issuers' octets.")
    parser.add_argument("harness", nargs="*", choices=[*HARNESSES, []], help="which; by default all, one after the other")
    parser.add_argument("--seconds", type=int, default=60, help="for each harness")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument("--replay", type=Path, help="run one input and say what became of it, without atheris")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    names = asked.harness or HARNESSES
    if asked.replay:
        for name in names:
            print(f"{name}: {import_module(f'fuzz.{name}').one_input(asked.replay.read_bytes())}")
        return 0
    if asked.in_this_process:
        fuzz(names[0], asked.seconds, asked.seed)
    # A process for each: libFuzzer ends the one that it runs in.
    options = ["--seconds", str(asked.seconds), "--seed", str(asked.seed), "--in-this-process"]
    found = []
    for name in names:
        print(f"== {name}, {asked.seconds} s", flush=True)
        if subprocess.run([sys.executable, "-m", "fuzz", name, *options], cwd=ROOT, check=False).returncode:
            found.append(name)
    if found:
        print(f"fuzz: {', '.join(found)}: see .fuzz/*/crash-*; copy a fixed one to fuzz/corpus/, where the suite replays it")
    return 1 if found else 0


def fuzz(name: str, seconds: int, seed: int) -> None:
    """Never returns."""
    import atheris  # only here: the rest of the package runs without it

    with atheris.instrument_imports(include=["grpc_bearer"]):
        one_input = import_module(f"fuzz.{name}").one_input

    def without_a_word(data: bytes) -> None:
        one_input(data)

    folder = FOLDER / name
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={LONGEST_INPUT}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        f"-dict={ROOT / 'fuzz' / 'words.dict'}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus"), str(ROOT / "fuzz" / "corpus" / name)], without_a_word)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
