/*
 * Packet headers, read with direct packet access: the same code serves XDP, tc and cgroup programs.
 *
 * Ethernet II (IEEE 802.3), 802.1Q and 802.1ad tags, IPv4 (RFC 791), IPv6 with extension headers
 * (RFC 8200), TCP (RFC 9293), UDP (RFC 768). Of a tunnel the outer header is read.
 */
#ifndef NETMOND_PARSE_H
#define NETMOND_PARSE_H

#include "types.h"

#define AF_INET 2
#define AF_INET6 10

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_8021Q 0x8100
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_8021AD 0x88a8

#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_DCCP 33
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_AH 51
#define PROTOCOL_DESTINATION 60
#define PROTOCOL_SCTP 132
#define PROTOCOL_UDPLITE 136

#define FRAGMENT_HEADER 8 /* of IPv6, RFC 8200 4.5 */
#define MAX_VLAN_TAGS 2
#define MAX_EXTENSION_HEADERS 8
/* Those that may be followed by more (RFC 8200 4.1), as bits: their numbers are below 64. */
#define EXTENSION_HEADERS                                                                                  \
    (1ULL << PROTOCOL_HOP_BY_HOP | 1ULL << PROTOCOL_ROUTING | 1ULL << PROTOCOL_FRAGMENT |                  \
     1ULL << PROTOCOL_AH | 1ULL << PROTOCOL_DESTINATION)
#define LENGTH_BITS 0x7fff /* of IPv6 and that many extension headers at their longest */
#define UNLIMITED 0xffffffffU
#define JUMBO_HEADER 8 /* the option and nothing else: how the kernel marks its own super-packets (BIG TCP) */

struct ethernet {
    u8 destination[6];
    u8 source[6];
    __be16 type;
} __attribute__((packed));

struct vlan_tag {
    __be16 control;
    __be16 type;
};

struct ipv4 {
    u8 version_length;
    u8 service;
    __be16 total_length;
    __be16 identification;
    __be16 fragment;
    u8 ttl;
    u8 protocol;
    __be16 checksum;
    __be32 source;
    __be32 destination;
};

struct ipv6 {
    __be32 version_class_label;
    __be16 payload_length;
    u8 next_header;
    u8 hop_limit;
    u64 source[2];
    u64 destination[2];
};

/* The start that all IPv6 extension headers share; a fragment header has its offset at byte 2. */
struct extension {
    u8 next_header;
    u8 length;
    __be16 fragment;
};

/* A packet's addresses and the length of its headers. */
struct packet {
    u64 source[2];
    u64 destination[2];
    u16 source_port; /* host order; 0 where there is none, as in a fragment after the first */
    u16 destination_port;
    u8 protocol;
    bool fragment;
    bool later; /* a fragment after the first */
    u8 jumbo; /* bytes of the hop-by-hop header in front of a jumbogram (RFC 2675) */
    u32 length; /* what the IP header says, 0: nothing (a jumbogram, or larger than the field) */
    u16 ip_header; /* bytes, extension headers included */
    u16 transport_header; /* bytes, 0: unknown */
};

/* Protocols whose packets come in for sockets; the others are the kernel's, which may hand out copies. */
static __always_inline bool is_transport(u32 protocol)
{
    switch (protocol) {
    case PROTOCOL_TCP:
    case PROTOCOL_UDP:
    case PROTOCOL_DCCP:
    case PROTOCOL_SCTP:
    case PROTOCOL_UDPLITE:
        return true;
    }
    return false;
}

/* ::ffff:0:0/96, the bytes before a mapped IPv4 address */
static __always_inline void map_ipv4(u64 to[2], __be32 address)
{
    to[0] = 0;
    to[1] = (u64)bpf_htonl(0x0000ffff) | (u64)address << 32;
}

/* Reads ports and header length at `at`, where so many bytes are the packet's: behind them is padding. A
 * header cut short leaves them zero: no error, the packet still counts for its addresses. */
static __always_inline void parse_transport(void *at, void *end, u32 room, struct packet *packet)
{
    u8 *byte = at;

    packet->source_port = 0;
    packet->destination_port = 0;
    packet->transport_header = 0;
    switch (packet->protocol) {
    case PROTOCOL_TCP:
        if (at + 14 > end || room < 14)
            return;
        packet->transport_header = (byte[12] >> 4) * 4;
        break;
    case PROTOCOL_UDP:
    case PROTOCOL_UDPLITE:
        if (at + 8 > end || room < 8)
            return;
        packet->transport_header = 8;
        break;
    case PROTOCOL_SCTP:
        if (at + 12 > end || room < 12)
            return;
        packet->transport_header = 12;
        break;
    default:
        return;
    }
    packet->source_port = bpf_ntohs(*(__be16 *)at);
    packet->destination_port = bpf_ntohs(*(__be16 *)(at + 2));
}

/* False: not a whole IPv4 header, options included, or one longer than its packet. */
static __always_inline bool parse_ipv4(void *at, void *end, struct packet *packet)
{
    struct ipv4 *ip = at;
    void *transport;
    u32 length, total;

    if (at + sizeof(*ip) > end)
        return false;
    length = (ip->version_length & 0x0f) * 4;
    transport = at + length;
    asm volatile("" : "+r"(transport)); /* or the compiler adds once more, unknown to the verifier */
    if (ip->version_length >> 4 != 4 || length < sizeof(*ip) || transport > end)
        return false;
    total = bpf_ntohs(ip->total_length);
    if (total && total < length)
        return false;
    map_ipv4(packet->source, ip->source);
    map_ipv4(packet->destination, ip->destination);
    packet->protocol = ip->protocol;
    packet->length = total;
    packet->ip_header = length;
    packet->fragment = ip->fragment & bpf_htons(0x3fff); /* more fragments, or an offset */
    packet->later = ip->fragment & bpf_htons(0x1fff);
    packet->source_port = 0;
    packet->destination_port = 0;
    packet->transport_header = 0;
    if (!packet->later)
        parse_transport(transport, end, total ? total - length : UNLIMITED, packet);
    return true;
}

/* 1 if equal, else 0; by arithmetic, so that the verifier has one way to follow and not two. */
static __always_inline u64 equal(u64 a, u64 b)
{
    u64 difference = a ^ b;

    asm volatile("" : "+r"(difference)); /* or the compiler makes a branch of it */
    return (difference - 1) >> 63;
}

/* False: not a whole IPv6 header, or extension headers cut short, longer than their packet or too many. */
static __always_inline bool parse_ipv6(void *at, void *end, struct packet *packet)
{
    struct ipv6 *ip = at;
    struct extension *extension;
    u32 length = sizeof(*ip), payload;
    u64 fragment, authentication;
    bool first = true;
    u8 next;
    int i;

    if (at + sizeof(*ip) > end)
        return false;
    if ((*(u8 *)at) >> 4 != 6)
        return false;
    packet->source[0] = ip->source[0];
    packet->source[1] = ip->source[1];
    packet->destination[0] = ip->destination[0];
    packet->destination[1] = ip->destination[1];
    packet->fragment = false;
    packet->source_port = 0;
    packet->destination_port = 0;
    packet->transport_header = 0;
    payload = bpf_ntohs(ip->payload_length);
    next = ip->next_header;
    packet->jumbo = JUMBO_HEADER * equal(payload << 8 | next, PROTOCOL_HOP_BY_HOP);
    for (i = 0; i <= MAX_EXTENSION_HEADERS; i++) {
        if (next > 63 || !(EXTENSION_HEADERS >> next & 1))
            goto transport;
        extension = at + length;
        if (i == MAX_EXTENSION_HEADERS || (void *)(extension + 1) > end)
            return false;
        fragment = equal(next, PROTOCOL_FRAGMENT);
        authentication = equal(next, PROTOCOL_AH);
        if (authentication & equal(extension->length, 0)) /* less than its own fixed part */
            return false;
        /* A fragment header has no length; that of AH is in units of 4 bytes, and one more (RFC 4302). */
        length += (((extension->length & (fragment - 1)) + 1) * 8 >> authentication) + 4 * authentication;
        length &= LENGTH_BITS; /* always true, but news to the verifier */
        if (at + length > end || payload - 1 < length - sizeof(*ip) - 1) /* 0: it does not say */
            return false;
        packet->fragment |= fragment;
        next = extension->next_header;
        if (fragment * (extension->fragment & bpf_htons(0xfff8))) {
            first = false; /* what follows is a piece of payload */
            goto transport;
        }
    }
    return false;
transport:
    packet->protocol = next;
    packet->ip_header = length;
    packet->later = !first;
    packet->length = payload ? payload + sizeof(*ip) : 0;
    if (first)
        parse_transport(at + length, end, payload ? packet->length - length : UNLIMITED, packet);
    return true;
}

/* Steps over an Ethernet header and at most so many VLAN tags. Returns the length, 0: cut short. */
static __always_inline u32 parse_ethernet(void *at, void *end, __be16 *type, int tags)
{
    struct ethernet *ethernet = at;
    struct vlan_tag *tag;
    u32 length = sizeof(*ethernet);
    int i;

    if (at + sizeof(*ethernet) > end)
        return 0;
    *type = ethernet->type;
#pragma unroll
    for (i = 0; i < MAX_VLAN_TAGS; i++) {
        if (i >= tags || (*type != bpf_htons(ETHERTYPE_8021Q) && *type != bpf_htons(ETHERTYPE_8021AD)))
            break;
        tag = at + length;
        if ((void *)(tag + 1) > end)
            return 0;
        *type = tag->type;
        length += sizeof(*tag);
    }
    return length;
}

#endif
