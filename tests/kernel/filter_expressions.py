"""Filters in tcpdump's syntax: the primitives of pcap-filter(7) that Ethernet has, and mixtures of them."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.kernel.filter_frames import HOSTS4, HOSTS6, MACS, PORTS

_TEXT = """
host 10.0.0.1
src host 10.0.0.1
dst host 10.0.0.2
src or dst host 192.0.2.7
src and dst host 10.0.0.1
src 10.0.0.1 and dst 10.0.0.2
ip host 10.1.2.3
arp host 10.0.0.1
arp dst host 10.0.0.2
host 2001:db8::1
src host 2001:db8::2
ip6 dst host fe80::1
dst ff02::1
host 10.0.0.1 or 10.0.0.2
net 10.0.0.0/8
src net 10.0.0.0/24
dst net 192.0.2.0 mask 255.255.255.0
net 10
net 10.0.0
net 224.0.0.0/4
net 2001:db8::/32
src net 2001:db8:1::/48
dst net fe80::/10
not net 10.0.0.0/8
port 80
src port 443
dst port 53
tcp port 22
udp port 53
sctp port 80
tcp dst port 443
udp src port 5353
port 80 or 443
port http or port domain
portrange 20-100
tcp portrange 1000-9000
src portrange 0-1023
dst portrange 8080-65535
udp dst portrange 53-53
tcp
udp
sctp
icmp
icmp6
igmp
ip
ip6
arp
rarp or tcp
stp
ah
esp
pim
ip proto 2
ip proto \\\\tcp
ip6 proto 17
proto 6
proto \\\\udp
ether proto 0x0800
ether proto \\\\ip
ether proto \\\\ip6
ether proto \\\\arp
ether proto 0x8863 or ether proto 0x8864
ether host 02:00:00:00:00:01
ether src 02:00:00:00:00:02
ether dst ff:ff:ff:ff:ff:ff
ether src or dst 02:00:00:00:00:01
ether src and dst 02:00:00:00:00:01
broadcast
ether broadcast
multicast
ether multicast
ip multicast
ip6 multicast
not broadcast and not multicast
vlan
vlan 5
vlan 5 and tcp
vlan and ip6
vlan and host 10.0.0.1
vlan and vlan
vlan 5 and vlan 6
vlan and vlan and udp
vlan 1 or tcp
not vlan
tcp or vlan 6
not vlan and port 80
vlan and not tcp
mpls
mpls 3
mpls 100 and ip
mpls and host 10.0.0.1
pppoes
pppoes 7
pppoes and tcp
pppoed
llc
llc s
llc u
ether proto \\\\stp
less 60
greater 100
less 13
len > 500
len <= 64
len = 0
len & 1 = 1
len - 14 > ip[2:2]
greater 128 and ip
tcp[tcpflags] & tcp-syn != 0
tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn
tcp[tcpflags] == tcp-rst
tcp[13] & 7 != 0
tcp[0:2] = 80
tcp[2:2] > 1023
tcp[12] >> 4 > 5
tcp[((tcp[12] & 0xf0) >> 2):1] != 0
tcp[20:4] = 0x02040009
tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)
udp[4:2] > 100
udp[8] < 128
udp[0:2] + udp[2:2] = 106
icmp[icmptype] = icmp-echo
icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply
icmp[0] == 3 or icmp[0] == 11
icmp6[icmp6type] = icmp6-echo
icmp6[0] = 135
igmp[0] = 0x11
ip[8] < 5
ip[0] & 0xf != 5
ip[0] = 0x46
ip[6:2] & 0x1fff != 0
ip[6:2] & 0x3fff != 0
ip[6] & 0x40 != 0
ip[9] = 17
ip[12:4] = 0x0a000001
ip[1] & 0xfc = 0xb8
ip[2:2] > 576
ip[2:2] = 20
ip[100:4] > 0x7fffffff
ip[200] & 1 = 0
ip[600] & 1 = 0
ip6[6] = 6
ip6[7] < 2
ip6[4:2] > 100
ip6[8:4] = 0x20010db8
ip6[0] & 0x0f != 0
ip6[40:2] = 80
ip6[200:4] & 1 = 1
ether[0] & 1 = 0 and ip[16] >= 224
ether[12:2] = 0x8100
ether[12:2] > 1500
ether[14:2] & 0xfff = 5
ether[0:4] = 0x02000000
ether[6:4] = 0x02000000 and ether[10:2] = 1
ether[126:2] > 0
ether[125:4] > 0x80000000
ether[124:4] > 0x80000000
ether[127] > 100
ether[128] > 100
ether[300:4] > 0x40000000
ether[len - 1] & 1 = 1
ether[len] = 0
ether[len - 4:4] > 100
ether[ether[0]] = 0
ether[ether[20]:2] > 256
ether[ip[2:2]] = 0
ip[ip[2:2] - 1] != 0
ip[0] + ip[1] = 0x45
ip[0] - ip[1] = 0x45
ip[0] * ip[8] > 1000
ip[2:2] / ip[1] > 2
ip[2:2] % ip[1] = 3
ip[2:2] / 7 = 20
ip[2:2] % 8 = 0
ip[2:2] ^ ip[4:2] > 40
ip[2:2] | 1 = ip[2:2]
ip[2:2] << ip[0] > 100
ip[2:2] << ip[1] > 100
ip[2:2] >> ip[8] = 0
ip[2:2] << 3 > 4000
-ip[2:2] > 0xffffff00
ip[2:2] = ip[2:2]
ip[4:4] > tcp[4:4]
tcp[4:4] / tcp[8:4] = 0
1 = 1
not tcp
not (tcp or udp)
! ip
tcp and not port 22
not host 10.0.0.1 and not arp
tcp && port 80 || udp && port 53
host 10.0.0.1 and (tcp port 80 or udp port 53)
ip and not (src net 10.0.0.0/8 and dst net 10.0.0.0/8)
(tcp[tcpflags] & tcp-rst != 0 or icmp) and not ip6
ip host 10.0.0.1 and 10.0.0.2
not not tcp
ip6 and not icmp6 and not port 53
src 10.0.0.1 and tcp port (80 or 443)
tcp port 80 and ether host 02:00:00:00:00:01 and less 200
"""

#: The longest of them are lists.
EXPRESSIONS = [
    *(line.replace("\\\\", "\\") for line in _TEXT.strip().splitlines()),
    " or ".join(f"host 10.0.0.{host}" for host in range(1, 41)),
    " or ".join(f"dst host 2001:db8::{host:x}" for host in range(1, 21)),
    "tcp port " + " or ".join(map(str, range(75, 95))),
]

_SIDES = st.sampled_from(["", "src ", "dst ", "src or dst ", "src and dst "])


def _bytes() -> st.SearchStrategy[str]:
    """A comparison of two sums of bytes."""
    protocol = st.sampled_from(["ether", "ip", "ip6", "tcp", "udp", "icmp"])
    load = st.builds(
        "{}[{}:{}]".format, protocol, st.sampled_from([0, 1, 2, 4, 9, 12, 16, 20, 40, 110, 126, 260]),
        st.sampled_from([1, 2, 4]),
    )  # fmt: skip
    number = st.one_of(load, st.integers(0, 0xFFFFFFFF).map(str), st.integers(0, 40).map(str))
    operator = st.sampled_from(["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"])
    # the right side of these is never a plain 0: libpcap refuses that
    safe = st.one_of(load, st.integers(1, 31).map(str))
    arithmetic = st.one_of(load, st.builds("({} {} {})".format, number, operator, safe))
    return st.builds(
        "{} {} {}".format, arithmetic, st.sampled_from(["=", "!=", ">", "<", ">=", "<="]), number
    )


def expressions() -> st.SearchStrategy[str]:
    """Any that libpcap may or may not take: primitives, put together with and, or, not and parentheses."""
    primitives = st.one_of(
        st.sampled_from([
            "tcp", "udp", "icmp", "icmp6", "ip", "ip6", "arp", "igmp", "sctp", "broadcast", "multicast",
            "vlan", "vlan 5", "mpls", "less 100", "greater 130",
        ]),
        st.builds("{}host {}".format, _SIDES, st.sampled_from(HOSTS4 + HOSTS6)),
        st.builds("{}net {}".format, _SIDES, st.sampled_from(["10.0.0.0/8", "2001:db8::/32"])),
        st.builds("{}port {}".format, _SIDES, st.sampled_from(PORTS)),
        st.builds("{}portrange {}-{}".format, _SIDES, st.integers(0, 100), st.integers(400, 9000)),
        st.builds("ether {}host {}".format, _SIDES, st.sampled_from(MACS)),
        _bytes(),
    )  # fmt: skip
    return st.recursive(
        primitives,
        lambda inner: st.one_of(
            st.builds("({} and {})".format, inner, inner),
            st.builds("({} or {})".format, inner, inner),
            st.builds("not ({})".format, inner),
        ),
        max_leaves=6,
    )
