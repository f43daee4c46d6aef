"""Builds the RPMs with Debian's rpmbuild, and compares what is in them with the Debian packages.

`make rpm` puts them into build/rpm/noarch, and fails if a file is in one kind of package only. On Fedora the
spec needs nothing but the source, which this makes too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "packaging/rpm/netmond.spec"
BUILD = ROOT / "build/rpm"
DEBS = ROOT / "build/deb"

_NOT_SOURCE = (".git", ".venv", "./build", "__pycache__", ".*_cache", ".hypothesis")

#: What the macro packages of Fedora define. Debian's Python would install below /usr/local by itself.
_MACROS = {
    "_unitdir": "/usr/lib/systemd/system",
    "_sysusersdir": "/usr/lib/sysusers.d",
    "_journalcatalogdir": "/usr/lib/systemd/catalog",
    "python3": "/usr/bin/python3",
    "python3_sitelib": "/usr/lib/python3/dist-packages",
    "pyproject_wheel": "%{python3} -m build --wheel --no-isolation --outdir wheel",
    "pyproject_install": "DEB_PYTHON_INSTALL_LAYOUT=deb %{python3} -m installer -d %{buildroot} wheel/*.whl",
    "systemd_post()": "systemctl preset %1 || :",
    "systemd_preun()": "systemctl --no-reload disable --now %1 || :",
    "systemd_postun_with_restart()": "systemctl try-restart %1 || :",
}

#: Where Debian has what RPM distributions have elsewhere.
_ELSEWHERE = (
    (r"^/lib/", "/usr/lib/"),
    (r"(/man/.*)\.gz$", r"\1"),
    (r"^/usr/share/zsh/vendor-completions/", "/usr/share/zsh/site-functions/"),
)
#: Copyrights and changelogs have a form of their own in each; Debian makes byte code where it is installed.
_OF_THE_DISTRIBUTION = r"^/usr/share/(doc|licenses|lintian)/|/__pycache__/|\.dist-info/LICENSE$"


def main() -> int:
    """The exit status: 0 if RPMs were built with the files that they should have."""
    version = _version()
    shutil.rmtree(BUILD, ignore_errors=True)
    (BUILD / "top").mkdir(parents=True)
    packed = ["tar", "-czf", f"{BUILD}/netmond-{version}.tar.gz", f"--transform=s,^\\.,netmond-{version},"]
    _run(*packed, *(f"--exclude={name}" for name in _NOT_SOURCE), "-C", f"{ROOT}", ".")
    macros = _MACROS | {"_topdir": f"{BUILD}/top", "_sourcedir": f"{BUILD}", "_rpmdir": f"{BUILD}"}
    defines = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
    _run("rpmbuild", "-bb", "--nodeps", *defines, f"{SPEC}")
    shutil.rmtree(BUILD / "top")
    different = [name for name in ("netmond", "netmonctl") if _differ(name, version)]
    return 1 if different else 0


def _version() -> str:
    """That of the source, which the spec must name too."""
    (version,) = re.findall(
        r'^__version__ = "(.*)"', (ROOT / "netmond/__init__.py").read_text(), re.MULTILINE
    )
    (named,) = re.findall(r"^Version: *(.*)", SPEC.read_text(), re.MULTILINE)
    if version != named:
        sys.exit(f"{SPEC.name} has version {named}, the source {version}")
    return str(version)


def _differ(name: str, version: str) -> bool:
    """Says which files only one of the two packages has."""
    (deb,) = DEBS.glob(f"{name}_{version}_all.deb")
    (rpm,) = BUILD.glob(f"noarch/{name}-{version}-*.rpm")
    in_deb = _comparable(
        re.findall(r"^-.* \.(/.*)$", _run("dpkg-deb", "--contents", f"{deb}"), re.MULTILINE)
    )
    listing = _run(
        "rpm", "--query", "--package", "--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]", f"{rpm}"
    )
    in_rpm = _comparable(re.findall(r"^-\S+ (.*)$", listing, re.MULTILINE))
    print(f"{rpm.relative_to(ROOT)}: {len(in_rpm)} files")
    for path in sorted(in_deb ^ in_rpm):
        print(f"only in the {'deb' if path in in_deb else 'rpm'}: {path}", file=sys.stderr)
    return in_deb != in_rpm


def _comparable(paths: list[str]) -> set[str]:
    """Without what is the distribution's own, and all in the same places."""
    found = {path for path in paths if not re.search(_OF_THE_DISTRIBUTION, path)}
    for pattern, replacement in _ELSEWHERE:
        found = {re.sub(pattern, replacement, path) for path in found}
    return found


def _run(*argv: str) -> str:
    """What a command prints; SystemExit with the end of its complaint if it fails."""
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{argv[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
