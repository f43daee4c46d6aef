"""An output of somebody else: installed, found through its entry point, checked and run."""

from __future__ import annotations

import asyncio
import re
import sys
import textwrap
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from netmond.config import Config, OutputConfig, defaults
from netmond.errors import ConfigError
from netmond.model import Snapshot, Table
from netmond.outputs import protocol
from netmond.outputs.csv import CsvOutput
from netmond.outputs.journal import JournalOutput
from netmond.outputs.runner import Outputs

ROOT = Path(__file__).resolve().parents[2]


def example() -> str:
    """The class in the documentation."""
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"^```python\n(# my_output\.py\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(block)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the documented example as package metadata and a module on sys.path."""
    metadata = tmp_path / "my_output-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-output\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[netmond.outputs]\nmine = my_output:MyOutput\n"
        "broken = my_output:Missing\ncsv = my_output:MyOutput\n"
    )
    (tmp_path / "my_output.py").write_text(example())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_output", raising=False)


def config(**outputs: OutputConfig) -> Config:
    off = {name: replace(defaults().output(name), enabled=False) for name in protocol.BUILT_IN}
    return replace(defaults(), outputs={**off, **outputs})


@pytest.mark.usefixtures("install")
def test_the_documented_example_runs(tmp_path: Path) -> None:
    """Ten lines, an entry point and a section: it receives the snapshots."""
    empty = Table.empty()
    snapshot = Snapshot(
        tick=1, time=23.0, interval=1.0, since=0.0, users=empty, units=empty, processes=empty, flows=empty,
        interfaces=empty, targets=empty,
    )  # fmt: skip
    mine = replace(defaults().output("mine"), options={"path": str(tmp_path / "out")})
    outputs = Outputs(config(mine=mine))
    outputs.start()
    outputs.publish(snapshot)
    asyncio.run(outputs.close())

    assert (tmp_path / "out").read_text() == "23.0 0 0 0 0 0 0 0 0\n"
    assert not any(loss.count for loss in outputs.losses())


def test_docstring_and_documentation_agree() -> None:
    """The example in the module's docstring is the one that is tested."""
    shown = (protocol.__doc__ or "").partition("::\n\n")[2].partition("\n    # pyproject.toml")[0]

    assert textwrap.dedent(shown) == example()


@pytest.mark.usefixtures("install")
def test_built_in_outputs_cannot_be_replaced() -> None:
    """The built-in ones are found without package metadata, and nobody takes their names."""
    assert protocol.find("csv") is CsvOutput
    assert protocol.find("journal") is JournalOutput


@pytest.mark.usefixtures("install")
def test_what_cannot_be_found_or_loaded() -> None:
    """An unknown name gets a hint, an entry point that leads nowhere a reason."""
    with pytest.raises(ConfigError, match=r'^unknown output \[output.mime\], did you mean "mine"\?$'):
        protocol.find("mime")
    with pytest.raises(
        ConfigError, match=r"^unknown output \[output.x\], there are: broken, csv, [a-z, ]*, mine, [a-z, ]*$"
    ):
        protocol.find("x")
    with pytest.raises(
        ConfigError, match=r"^output broken \(my_output:Missing\) cannot be loaded: AttributeError"
    ):
        protocol.find("broken")


def test_check_before_anything_starts() -> None:
    """Bad values of an output's keys are errors, unknown keys and unknown outputs warnings."""
    bad = replace(defaults().output("csv"), options={"interval": 0}, origins={"interval": "f.toml"})
    with pytest.raises(ConfigError) as caught:
        protocol.check(config(csv=bad))
    assert (
        str(caught.value) == "f.toml: output.csv.interval = 0: must be a number of seconds from 1 to 86400"
    )

    odd = replace(defaults().output("csv"), options={"intervall": 9}, origins={"intervall": "f.toml"})
    assert protocol.check(config(csv=odd, jornal=defaults().output("jornal"))) == [
        'f.toml: unknown key output.csv.intervall ignored, did you mean "interval"?',
        'unknown output [output.jornal], did you mean "journal"?; ignored',
    ]
    assert protocol.check(defaults()) == []


def test_built_in_entry_points_are_declared() -> None:
    """The package metadata names the same built-in outputs as the code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["entry-points"][protocol.GROUP] == protocol.BUILT_IN


def test_a_built_in_output_lacks_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package costs the output that needs it, with a reason, not the daemon."""
    monkeypatch.setattr(protocol, "BUILT_IN", {"csv": "no_such_package:CsvOutput"})

    reason = "output csv cannot be loaded: No module named 'no_such_package'"
    with pytest.raises(ConfigError, match=f"^{reason}$"):
        protocol.find("csv")
    assert protocol.check(defaults()) == [f"{reason}; ignored"]
