#!/usr/bin/env bash
# Makes the development environment: tools/setup.sh PYTHON VENV LOCK. Called by make, which knows when it is due.
#
# All output goes to stderr, so that "$(make -s token)" is a token from a clean clone too. The stamp is written last: a run
# that was interrupted starts again. Nothing is fetched but what the lock names, by its hash.
set -euo pipefail
exec >&2

python=$1 venv=$2 lock=$3

command -v "$python" >/dev/null || {
	echo "grpc-bearer needs Python 3.11 or newer, and $python is not on PATH; run: make setup PYTHON=/path/to/python3"
	exit 1
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
	echo "grpc-bearer needs Python 3.11 or newer, and $python is $("$python" -V); run: make setup PYTHON=/path/to/python3"
	exit 1
}

# `make run` and `make token` started together from a clean clone: the second waits and then finds the work done.
if command -v flock >/dev/null; then
	exec 8<.
	flock 8
	[ -n "$(find pyproject.toml "$lock" -newer "$venv/.ready" 2>&1)" ] || exit 0
fi

echo "setting up $venv from $lock (once; a minute or so)"
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
# Otherwise pip would complain that the project, as it was installed before, wants other versions.
"$venv/bin/python" -m pip uninstall --quiet --yes grpc-bearer 2>/dev/null || true
"${pip[@]}" --require-hashes -r "$lock"
"${pip[@]}" --no-deps --no-build-isolation --no-index --editable .
touch "$venv/.ready"
