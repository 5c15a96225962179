"""What the end-to-end tests share: the Node programs."""

from __future__ import annotations

from pathlib import Path

import pytest

NODE_PROGRAMS = Path(__file__).resolve().parent / "node"
NEEDS_NODE = [
    pytest.mark.needs_tool("node"),
    pytest.mark.skipif(not (NODE_PROGRAMS / "node_modules").is_dir(), reason="run npm ci in tests/e2e/node"),
]
