"""A pytest plugin: a property that fails has said all that is asked of it. Looking for its smallest example takes a minute."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile("no_shrinking", phases=[Phase.explicit, Phase.generate])
settings.load_profile("no_shrinking")
