/*
 * RDMA over Ethernet (RoCE): InfiniBand's base transport header (BTH) behind its global route header
 * (version 1) or behind UDP (version 2). InfiniBand Architecture Specification 1, chapters 8.3 and 9.2, annexes
 * A16 and A17.
 */
#ifndef NETMOND_ROCE_H
#define NETMOND_ROCE_H

#include "parse.h"

#define ETHERTYPE_ROCE 0x8915
#define ROCE_PORT 4791
#define GLOBAL_ROUTE_NEXT_HEADER 0x1b /* a BTH follows */
#define INVARIANT_CRC 4 /* bytes, at the end of each packet */

struct udp {
    __be16 source;
    __be16 destination;
    __be16 length;
    __be16 checksum;
};

struct bth {
    u8 opcode;
    u8 flags; /* solicited event, migration state, padding, and in the lower half the version */
    __be16 partition_key;
    __be32 queue_pair; /* the lower 24 bits */
    __be32 sequence; /* the lower 24 bits */
};

#define BTH_VERSION 0x0f
#define LOWER_24 0x00ffffff

/* What a packet's BTH says. */
struct roce {
    u32 queue_pair;
    u32 sequence;
    u16 partition_key;
    u8 opcode;
    u8 version; /* ROCE_V*, 0: it is no RoCE */
};

/* Whether a UDP datagram that was parsed may have a BTH: it has the port, is whole and has the room. Ports are
 * looked at first: other traffic has no more to do with it. */
static __always_inline bool may_be_roce(struct packet *packet)
{
    u32 least = packet->ip_header + sizeof(struct udp) + sizeof(struct bth) + INVARIANT_CRC;

    return packet->destination_port == ROCE_PORT && packet->protocol == PROTOCOL_UDP && !packet->fragment &&
           packet->length >= least;
}

/* Reads a global route header, laid out as that of IPv6: GIDs as addresses. False: none with a BTH. */
static __always_inline bool parse_global_route(void *at, void *end, struct packet *packet)
{
    struct ipv6 *header = at;
    u32 payload;

    if (at + sizeof(*header) > end || (*(u8 *)at) >> 4 != 6)
        return false;
    payload = bpf_ntohs(header->payload_length);
    if (header->next_header != GLOBAL_ROUTE_NEXT_HEADER || payload < sizeof(struct bth) + INVARIANT_CRC)
        return false;
    packet->source[0] = header->source[0];
    packet->source[1] = header->source[1];
    packet->destination[0] = header->destination[0];
    packet->destination[1] = header->destination[1];
    packet->length = payload + sizeof(*header);
    return true;
}

/* The operations that a transport service has, as bits; the service is the upper three bits of an opcode (table
 * 38; FLUSH and ATOMIC WRITE are of annex A19), the rest is the operation. Reserved ones and manufacturers' own
 * (from 0xc0 on) are not known. */
static __always_inline u32 operations(u8 service)
{
    switch (service) {
    case 0: /* reliable connection */
        return 0x30dfffff;
    case 1: /* unreliable connection */
        return 0x00000fff;
    case 2: /* reliable datagram */
        return 0x303fffff;
    case 3: /* unreliable datagram: SEND only */
        return 0x00000030;
    case 4: /* congestion notification */
        return 0x00000002;
    case 5: /* extended reliable connection */
        return 0x00dfffff;
    }
    return 0;
}

/* Fills *roce in if the BTH is one that a receiver would take. */
static __always_inline void read_bth(struct bth *bth, u8 version, struct roce *roce)
{
    if (bth->flags & BTH_VERSION || !(operations(bth->opcode >> 5) >> (bth->opcode & 31) & 1))
        return;
    roce->queue_pair = bpf_ntohl(bth->queue_pair) & LOWER_24;
    roce->sequence = bpf_ntohl(bth->sequence) & LOWER_24;
    roce->partition_key = bpf_ntohs(bth->partition_key);
    roce->opcode = bth->opcode;
    roce->version = version;
}

#endif
