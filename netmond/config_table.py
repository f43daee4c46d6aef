"""Every key of the configuration: section, reader, default, help, flag, variable, if it needs a restart.

`SETTINGS` is the only place that knows a key: reading, flags and the manual follow it.
"""

from __future__ import annotations

from netmond.settings import BOOLEAN, DIRECTORY, NETWORK, Setting, choice, number, several, size, text, whole

#: As systemd and LogControl1 name them, most severe first.
LOG_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
ATTACH_MODES = ("auto", "tc", "xdp", "xdp-generic")

ATTACH = choice(*ATTACH_MODES)
INTERFACE = text(
    '"auto" or an interface name (1 to 15 characters, no space, slash or colon)',
    r"(?!\.{1,2}\Z)[^\s/:\x00-\x1f\x7f]{1,15}",
)
CGROUP = text(
    'empty, or a path like "user.slice" or "/sys/fs/cgroup/user.slice"', r"(?!(.*/)?\.\.(/|\Z))[^\x00-\x1f]*"
)
GROUP = text("empty, or a group name", r"([A-Za-z_][A-Za-z0-9_.-]{0,30}\$?)?")
LEVEL = choice(*LOG_LEVELS, aliases={"error": "err", "critical": "crit", "warn": "warning"})

SETTINGS: tuple[Setting, ...] = (
    Setting(
        section="daemon", key="interval", kind=number(0.1, 60, "number of seconds"), default=1.0,
        help="least seconds between two readings of the counters", flags=("--interval",), metavar="SECONDS",
    ),
    Setting(
        section="daemon", key="idle_interval", kind=number(0.1, 60, "number of seconds"), default=5.0,
        help="seconds between two readings while nobody asks, no output needs one and no table fills",
    ),
    Setting(
        section="daemon", key="log_level", kind=LEVEL, default="info",
        help="least severe messages to log",
        flags=("--log-level",), metavar="LEVEL", env="NETMOND_LOG_LEVEL",
    ),
    Setting(
        section="daemon", key="state_dir", kind=DIRECTORY, default="/var/lib/netmond",
        in_file=False, restart=True,
        help="directory for what must survive a restart",
        flags=("--state-dir",), metavar="DIR", env="STATE_DIRECTORY",
    ),
    Setting(
        section="daemon", key="log_dir", kind=DIRECTORY, default="/var/log/netmond",
        in_file=False, restart=True, help="directory of the CSV files",
        flags=("--log-dir",), metavar="DIR", env="LOGS_DIRECTORY",
    ),
    Setting(
        section="daemon", key="run_dir", kind=DIRECTORY, default="/run/netmond",
        in_file=False, restart=True,
        help="directory of what lives until the next boot; with a BPF file system on bpf in it counting"
        " outlasts the daemon",
        flags=("--run-dir",), metavar="DIR", env="RUNTIME_DIRECTORY",
    ),
    Setting(
        section="daemon", key="keep_counting", kind=choice("never", "restart", "always"), default="restart",
        restart=True,
        help="when counting goes on without the daemon: never; over a restart, crash or upgrade; or always,"
        " even after a stop",
    ),
    Setting(
        section="meter", key="enabled", kind=BOOLEAN, default=True, restart=True,
        help="count per socket, process, unit and user",
    ),
    Setting(
        section="meter", key="cgroup", kind=CGROUP, default="", restart=True,
        help="count only below this cgroup; empty means the whole machine",
        flags=("--cgroup",), metavar="PATH",
    ),
    Setting(
        section="meter", key="slots", kind=whole(1, 1 << 22), default=65536, restart=True,
        help="sockets counted one by one at the same time, 128 bytes each; the rest counts per user",
    ),
    Setting(
        section="meter", key="peers", kind=whole(1, 1 << 22), default=16384, restart=True,
        help="peers of unconnected sockets (UDP servers) shown at the same time",
    ),
    Setting(
        section="meter", key="idle", kind=number(1, 604800, "number of seconds"), default=600.0,
        help="seconds of silence after which a socket's slot may be reused",
    ),
    Setting(
        section="interfaces", key="monitor", kind=several(INTERFACE), default=("auto",),
        help="interfaces to monitor; auto means physical ones and those with a default route",
        flags=("-i", "--interface"), metavar="IF", env="NETWORK_INTERFACE",
    ),
    Setting(
        section="interfaces", key="attach", kind=ATTACH, default="auto",
        help="how to attach to an interface", flags=("--attach",), metavar="MODE",
    ),
    Setting(
        section="interfaces", key="forwarded", kind=whole(1, 1 << 22), default=16384, restart=True,
        help="forwarded flows (no socket on this machine) shown at the same time, and as many of RoCE",
    ),
    Setting(
        section="targets", key="addresses", kind=several(NETWORK), default=(),
        help="addresses and prefixes to count traffic with",
        flags=("-t", "--target"), metavar="ADDR", env="TARGET_IP",
    ),
    Setting(
        section="targets", key="limit", kind=whole(1, 1 << 20), default=16384, restart=True,
        help="how many targets there may be",
    ),
    Setting(
        section="access", key="group", kind=GROUP, default="netmond",
        help="members of this group see everything and may change targets; empty means root only",
    ),
    Setting(
        section="rdma", key="enabled", kind=BOOLEAN, default=True, restart=True,
        help="read the counters of RDMA devices, and count RDMA per user",
    ),
    Setting(
        section="sessions", key="limit", kind=whole(0, 256), default=8,
        help="how many captures and paths there may be at the same time; 0 switches both off",
    ),
    Setting(
        section="sessions", key="user_limit", kind=whole(1, 256), default=4,
        help="how many of them one user may have",
    ),
    Setting(
        section="sessions", key="duration", kind=number(0, 31536000, "number of seconds"), default=3600.0,
        help="seconds after which a capture or path ends by itself; 0 for no limit",
    ),
    Setting(
        section="sessions", key="buffer", kind=size(1 << 16, 1 << 30), default="64M",
        help="largest buffer in the kernel that one may ask for",
    ),
)  # fmt: skip

SECTIONS = tuple(dict.fromkeys(setting.section for setting in SETTINGS))
