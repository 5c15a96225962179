"""Mutation testing with cosmic-ray: break the code in every small way, one at a time, and count what the tests miss.

`python tools/mutation.py [verifier|policy|key_cache]... [--minutes N]`: each is a configuration in fuzz/mutation/. It works on
a copy in `.mutation/`, never on the sources; one that was stopped goes on where it was, unless the sources have changed. The
survivors, as diffs, are in `.mutation/survivors.txt`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / ".mutation"
TREE: Final = FOLDER / "tree"
COPIED: Final = ("interceptors", "server", "tests", "fuzz", "docs", "protos", "pyproject.toml")
CONFIGURATIONS: Final = ("verifier", "policy", "key_cache")


def main() -> int:
    """Run what the command line asks for. Exit status 1: not all mutants were tried."""
    parser = argparse.ArgumentParser(description="Mutation testing of the security core (docs/mutation.md).")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CONFIGURATIONS)}; by default all")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop then; what was not tried is tried the next time")
    asked = parser.parse_args()
    names = asked.names or CONFIGURATIONS
    deadline = time.monotonic() + asked.minutes * 60
    _copy()
    done = [_run(name, deadline) for name in names]
    rows = [row for name in names for row in _results(name)]
    _report(rows)
    return 0 if all(done) else 1


def _copy() -> None:
    """A copy of the sources. A session that was begun on others is thrown away."""
    digest = hashlib.sha256()
    for path in sorted(path for name in COPIED for path in [ROOT / name, *(ROOT / name).rglob("*.*")] if path.is_file()):
        if "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    stamp = FOLDER / "of"
    if not stamp.exists() or stamp.read_text() != digest.hexdigest():
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
    # Also when nothing has changed: a run that was killed leaves its last mutant in the copy.
    shutil.rmtree(TREE, ignore_errors=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, TREE / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, TREE / name)
    stamp.write_text(digest.hexdigest())


def _environment() -> Mapping[str, str]:
    paths = [str(TREE / "interceptors"), str(TREE / "server"), str(TREE)]
    programs = str(Path(sys.executable).parent)
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PATH": programs + os.pathsep + os.environ["PATH"]}


def _tool(*command: str, timeout_s: float | None = None) -> None:
    subprocess.run(command, cwd=TREE, env=_environment(), check=True, timeout=timeout_s)


def _run(name: str, deadline: float) -> bool:
    """Whether all its mutants have been tried."""
    config, session = str(ROOT / "fuzz" / "mutation" / f"{name}.toml"), FOLDER / f"{name}.sqlite"
    settings: dict[str, Any] = tomllib.loads(Path(config).read_text())["cosmic-ray"]
    print(f"== {name}: the tests, unbroken", flush=True)
    _tool(*shlex.split(settings["test-command"]))  # and compiled, which the runs below leave as it is
    for module in settings["module-path"]:
        for compiled in (TREE / module).parent.glob(f"__pycache__/{Path(module).stem}.*"):
            compiled.unlink()
    if not session.exists():
        _tool("cosmic-ray", "init", config, str(session))
        _tool("cr-filter-operators", str(session), config)
    print(f"== {name}: the mutants", flush=True)
    try:
        _tool("cosmic-ray", "exec", config, str(session), timeout_s=max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _results(name: str) -> Iterator[tuple[str, str, int, str]]:
    """Module, what became of the mutant (`killed`, `survived`, `not tried`), line, diff."""
    with sqlite3.connect(FOLDER / f"{name}.sqlite") as session:
        yield from session.execute(
            "select module_path, case when test_outcome is null then 'not tried' else lower(test_outcome) end, start_pos_row,"
            " coalesce(diff, '') from mutation_specs left join work_results using (job_id)"
            " where coalesce(worker_outcome, '') != 'SKIPPED' order by module_path, start_pos_row"
        )


def _report(rows: list[tuple[str, str, int, str]]) -> None:
    count = Counter((module, outcome) for module, outcome, _line, _diff in rows)
    print("| module | mutants | killed | survived | not tried | score |\n|---|---|---|---|---|---|")
    for module in sorted({module for module, *_ in rows}):
        killed, survived = count[module, "killed"], count[module, "survived"]
        left = sum(number for (of, outcome), number in count.items() if of == module) - killed - survived
        score = f"{100 * killed / (killed + survived):.1f} %" if killed + survived else "-"
        name = module.removeprefix("interceptors/grpc_bearer/")
        print(f"| `{name}` | {killed + survived + left} | {killed} | {survived} | {left} | {score} |")
    survivors = [f"{module}:{line}\n{diff}\n" for module, outcome, line, diff in rows if outcome == "survived"]
    (FOLDER / "survivors.txt").write_text("\n".join(survivors))


if __name__ == "__main__":
    sys.exit(main())
