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
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_AH 51
#define PROTOCOL_DESTINATION 60
#define PROTOCOL_SCTP 132
#define PROTOCOL_MOBILITY 135
#define PROTOCOL_UDPLITE 136

#define MAX_VLAN_TAGS 2
#define MAX_EXTENSION_HEADERS 8

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
    u32 length; /* what the IP header says, 0: nothing (a jumbogram, or larger than the field) */
    u16 ip_header; /* bytes, extension headers included */
    u16 transport_header; /* bytes, 0: unknown */
};

/* ::ffff:0:0/96, the bytes before a mapped IPv4 address */
static __always_inline void map_ipv4(u64 to[2], __be32 address)
{
    to[0] = 0;
    to[1] = (u64)bpf_htonl(0x0000ffff) | (u64)address << 32;
}

/* Reads ports and header length at `at`. A header cut short leaves them zero: no error, the packet
 * still counts for its addresses. */
static __always_inline void parse_transport(void *at, void *end, struct packet *packet)
{
    u8 *byte = at;

    packet->source_port = 0;
    packet->destination_port = 0;
    packet->transport_header = 0;
    switch (packet->protocol) {
    case PROTOCOL_TCP:
        if (at + 14 > end)
            return;
        packet->transport_header = (byte[12] >> 4) * 4;
        break;
    case PROTOCOL_UDP:
    case PROTOCOL_UDPLITE:
        if (at + 8 > end)
            return;
        packet->transport_header = 8;
        break;
    case PROTOCOL_SCTP:
        if (at + 12 > end)
            return;
        packet->transport_header = 12;
        break;
    default:
        return;
    }
    packet->source_port = bpf_ntohs(*(__be16 *)at);
    packet->destination_port = bpf_ntohs(*(__be16 *)(at + 2));
}

/* False: not a whole IPv4 header. */
static __always_inline bool parse_ipv4(void *at, void *end, struct packet *packet)
{
    struct ipv4 *ip = at;
    u32 length;

    if (at + sizeof(*ip) > end)
        return false;
    length = (ip->version_length & 0x0f) * 4;
    if (ip->version_length >> 4 != 4 || length < sizeof(*ip))
        return false;
    map_ipv4(packet->source, ip->source);
    map_ipv4(packet->destination, ip->destination);
    packet->protocol = ip->protocol;
    packet->length = bpf_ntohs(ip->total_length);
    packet->ip_header = length;
    packet->fragment = ip->fragment & bpf_htons(0x3fff); /* more fragments, or an offset */
    packet->source_port = 0;
    packet->destination_port = 0;
    packet->transport_header = 0;
    if (!(ip->fragment & bpf_htons(0x1fff)))
        parse_transport(at + length, end, packet);
    return true;
}

/* False: not a whole IPv6 header, or extension headers cut short or too many. */
static __always_inline bool parse_ipv6(void *at, void *end, struct packet *packet)
{
    struct ipv6 *ip = at;
    struct extension *extension;
    u32 length = sizeof(*ip);
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
    packet->length = ip->payload_length ? bpf_ntohs(ip->payload_length) + sizeof(*ip) : 0;
    packet->source_port = 0;
    packet->destination_port = 0;
    packet->transport_header = 0;
    next = ip->next_header;
#pragma unroll
    for (i = 0; i < MAX_EXTENSION_HEADERS; i++) {
        if (next != PROTOCOL_HOP_BY_HOP && next != PROTOCOL_ROUTING && next != PROTOCOL_FRAGMENT &&
            next != PROTOCOL_AH && next != PROTOCOL_DESTINATION && next != PROTOCOL_MOBILITY)
            goto transport;
        extension = at + length;
        if ((void *)(extension + 1) > end)
            return false;
        if (next == PROTOCOL_FRAGMENT) {
            packet->fragment = true;
            first = !(extension->fragment & bpf_htons(0xfff8));
            length += 8;
        } else if (next == PROTOCOL_AH) {
            length += (extension->length + 2) * 4; /* RFC 4302: the odd one out */
        } else {
            length += (extension->length + 1) * 8;
        }
        next = extension->next_header;
        if (!first)
            goto transport; /* what follows is a piece of payload */
    }
    return false;
transport:
    packet->protocol = next;
    packet->ip_header = length;
    if (first)
        parse_transport(at + length, end, packet);
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
