"""The environment variables that tell XTrace-Catch to push metrics, as keys of ``[output.push]``."""

from __future__ import annotations

from collections.abc import Mapping

from netmond.settings import BOOLEAN, Given, plain

ENABLED, URL = "VICTORIAMETRICS_ENABLED", "VICTORIAMETRICS_REMOTE_WRITE"

#: Where XTrace-Catch's documentation has its VictoriaMetrics.
DEFAULT_URL = "http://localhost:8428/api/v1/import/prometheus"


def apply(environ: Mapping[str, str], outputs: dict[str, dict[str, Given]]) -> list[str]:
    """Adds to the keys of outputs, by name, what the environment says of ``push``; returns warnings.

    Switched on, the output sends flows under the names of XTrace-Catch as well. ConfigError.
    """
    written = environ.get(ENABLED, "")
    if not written:
        return [f"{URL} is ignored without {ENABLED}=true"] if environ.get(URL) else []
    value = {"true": True, "false": False}.get(written.lower(), written)
    enabled = Given(value, "", f"{ENABLED}={plain(written)}")
    if enabled.read(BOOLEAN):
        keys = outputs.setdefault("push", {})
        keys.setdefault("url", Given(DEFAULT_URL, ENABLED, ""))
        if environ.get(URL):
            keys["url"] = Given(environ[URL], URL, "")
        keys["xtrace_names"] = Given(True, ENABLED, "")
    if "push" in outputs:
        outputs["push"]["enabled"] = enabled
    return []
