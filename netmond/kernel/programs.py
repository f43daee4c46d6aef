"""What is compiled and where it attaches. Light to import: compiling starts before all else is loaded."""

from __future__ import annotations

from netmond.kernel.unit import Extra, Offsets, Program, Unit

#: enum bpf_attach_type
CGROUP_INET_INGRESS = 0
CGROUP_INET_EGRESS = 1
CGROUP_INET_SOCK_CREATE = 2
CGROUP_INET4_CONNECT = 10
CGROUP_INET6_CONNECT = 11
CGROUP_INET_SOCK_RELEASE = 34
XDP = 37
TCX_INGRESS = 46
TCX_EGRESS = 47

#: The iterator over open files that tells who holds a socket.
OWNERS_PROGRAM = "bpf_iter__task_file"

#: The iterator over threads that tells who they are.
TASKS_PROGRAM = "bpf_iter__task"

#: Interfaces monitored at a time, and users times cgroups that may do without slots: table sizes.
MAX_PORTS = 256
OVERFLOWS = 8192

#: Pairs of interfaces between which sockets may change without loss: a table size.
DETOURS = 1024


#: Users whose packets may be logged, and of whom may be told apart what is missing in their logs.
LOGGED_USERS = 16384


#: What sockets.c has beyond where packets can be logged.
PACKET_LOG_MAPS = ("packet_rings", "logged_users", "unlogged")


def possible_cpus(text: str | None = None) -> int:
    """How many CPUs the kernel may ever bring up: the length of its per-CPU arrays.

    text: as /sys/devices/system/cpu/possible, for tests.
    """
    if text is None:
        with open("/sys/devices/system/cpu/possible") as file:
            text = file.read()
    return int(text.strip().split(",")[-1].split("-")[-1]) + 1


#: What the programs of the meter, of interfaces and of captures read from the kernel's structures.
METER_OFFSETS: Offsets = (
    ("users of user namespaces appear under their inner ids", (("SOCK_UID_OFFSET", "sock", "sk_uid"),)),
    (
        "flows name no interface",
        # a struct sock begins with a struct sock_common
        (("SOCK_NET_OFFSET", "sock_common", "skc_net"), ("NET_COOKIE_OFFSET", "net", "net_cookie")),
    ),
    (
        "a fragmented datagram counts as one packet for its user",
        (
            ("SKB_DEV_OFFSET", "sk_buff", "dev"),
            ("SKB_CB_OFFSET", "sk_buff", "cb"),
            ("SKB_ROUTE_OFFSET", "sk_buff", "_skb_refdst"),
            ("DEV_MTU_OFFSET", "net_device", "mtu"),
            ("ROUTE_METRICS_OFFSET", "dst_entry", "_metrics"),
            ("ROUTE_EXPIRES_OFFSET", "dst_entry", "expires"),
            ("ROUTE_LEARNED_MTU_OFFSET", "rtable", "rt_pmtu"),  # a struct rtable begins with a dst_entry
            ("CB4_FRAGMENT_OFFSET", "inet_skb_parm", "frag_max_size"),
            ("CB6_FRAGMENT_OFFSET", "inet6_skb_parm", "frag_max_size"),
        ),
    ),
    (
        "the kernel's own answers are root's",
        (("SOCK_SOCKET_OFFSET", "sock", "sk_socket"), ("SOCKET_FILE_OFFSET", "socket", "file")),
    ),
    (
        "a capture knows no units of incoming frames",
        (
            ("SOCK_CGROUP_OFFSET", "sock", "sk_cgrp_data"),
            ("CGROUP_DATA_OFFSET", "sock_cgroup_data", "cgroup"),
            ("CGROUP_NODE_OFFSET", "cgroup", "kn"),
            ("NODE_ID_OFFSET", "kernfs_node", "id"),
        ),
    ),
    (
        "sockets older than netmond have no process",
        (
            ("TASK_TGID_OFFSET", "task_struct", "tgid"),
            ("TASK_START_OFFSET", "task_struct", "start_boottime"),
            ("TASK_COMM_OFFSET", "task_struct", "comm"),
            ("FILE_INODE_OFFSET", "file", "f_inode"),
            ("FILE_DATA_OFFSET", "file", "private_data"),
            ("INODE_MODE_OFFSET", "inode", "i_mode"),
            ("SOCKET_SK_OFFSET", "socket", "sk"),
            ("SOCK_FAMILY_OFFSET", "sock_common", "skc_family"),
            ("SOCK_COOKIE_OFFSET", "sock_common", "skc_cookie"),
        ),
    ),
)

#: Names of what is below.
UNITS = ("sockets", "interfaces")


def socket_unit(*, slots: int, peers: int, cgroup: str = "") -> Unit:
    """What to compile for SocketTables and the meter's links."""
    return Unit(
        place=cgroup,
        source="sockets.c",
        defines={
            "SLOTS": slots,
            "PEERS": peers,
            "OVERFLOWS": OVERFLOWS,
            "DETOURS": DETOURS,
            "LOGGED_USERS": LOGGED_USERS,
        },
        programs=(
            Program(name="meter_ingress", kind="CGROUP_SKB", attach_type=CGROUP_INET_INGRESS),
            Program(name="meter_egress", kind="CGROUP_SKB", attach_type=CGROUP_INET_EGRESS),
            Program(name="socket_created", kind="CGROUP_SOCK", attach_type=CGROUP_INET_SOCK_CREATE),
            Program(name="socket_released", kind="CGROUP_SOCK", attach_type=CGROUP_INET_SOCK_RELEASE),
            Program(name="socket_connects4", kind="CGROUP_SOCK_ADDR", attach_type=CGROUP_INET4_CONNECT),
            Program(name="socket_connects6", kind="CGROUP_SOCK_ADDR", attach_type=CGROUP_INET6_CONNECT),
            Program(
                name=OWNERS_PROGRAM,
                kind="TRACING",  # BCC finds the attach type by the name
                loss="sockets older than netmond have no process",
            ),
        ),
        maps=(
            "slots",
            "flows",
            "free_slots",
            "peers",
            "overflow",
            "detours",
            "losses",
            "settings",
            "owners",
        ),
        extra=Extra(
            macro="PACKET_LOG",
            maps=PACKET_LOG_MAPS,
            loss="packets cannot be logged",
        ),
        offsets=METER_OFFSETS,
    )


def target_capacity(limit: int) -> int:
    """Room for so many targets, in whole pages of 32-byte counters, since user space maps them by page."""
    return -(-limit // 128) * 128


def interface_unit(*, targets: int, forwarded: int) -> Unit:
    """What to compile for InterfaceTables and the interfaces' links."""
    return Unit(
        source="interfaces.c",
        defines={
            "CPUS": possible_cpus(),
            "PORTS": MAX_PORTS,
            "TARGETS": target_capacity(targets),
            "FORWARDED": forwarded,
        },
        programs=(
            Program(name="interface_ingress", kind="SCHED_CLS"),
            Program(name="interface_egress", kind="SCHED_CLS"),
            Program(name="interface_xdp", kind="XDP"),
        ),
        maps=(
            "ports",
            "port_counters",
            "target_filter",
            "targets4",
            "targets6",
            "target_counters",
            "forwarded",
            "roce",
            "losses",
            "settings",
        ),
        offsets=METER_OFFSETS,
    )


#: What tasks.c reads from the kernel's structures.
_TASK_OFFSETS: Offsets = (
    (
        "nobody knows whose processes are",
        (
            ("TASK_PID_OFFSET", "task_struct", "thread_pid"),
            ("TASK_TGID_OFFSET", "task_struct", "tgid"),
            ("TASK_LEADER_OFFSET", "task_struct", "group_leader"),
            ("TASK_COMM_OFFSET", "task_struct", "comm"),
            ("TASK_CRED_OFFSET", "task_struct", "real_cred"),
            ("TASK_CGROUPS_OFFSET", "task_struct", "cgroups"),
            ("PID_LEVEL_OFFSET", "pid", "level"),
            ("PID_NUMBERS_OFFSET", "pid", "numbers"),
            ("CRED_UID_OFFSET", "cred", "fsuid"),
            ("CSS_SET_CGROUP_OFFSET", "css_set", "dfl_cgrp"),
            ("CGROUP_NODE_OFFSET", "cgroup", "kn"),
            ("NODE_ID_OFFSET", "kernfs_node", "id"),
        ),
    ),
)


def task_unit() -> Unit:
    """What to compile for kernel.tasks. Loaded when it is needed, which on most machines it never is."""
    return Unit(
        source="tasks.c",
        defines={},
        programs=(Program(name=TASKS_PROGRAM, kind="TRACING"),),
        maps=(),
        offsets=_TASK_OFFSETS,
    )
