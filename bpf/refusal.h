/*
 * Whether a packet is not wanted, told by as little as can be: while a filter matches nothing that is all that a
 * program does. True is the last word, false says only that it has to be looked at more closely. All of it is about
 * IPv4, and about ports where they usually are.
 *
 * Compile-time settings: those of headers.h, and the filter's PORT_MATCHES and ADDRESS_MATCHES.
 */
#ifndef NETMOND_REFUSAL_H
#define NETMOND_REFUSAL_H

#include "headers.h"

/* By addresses and ports. */
static __always_inline bool refuses_ends(__be32 one, __be32 other, u16 port, u16 other_port)
{
    u64 ends[2], other_ends[2];

    if (!PORT_MATCHES(port) && !PORT_MATCHES(other_port))
        return true;
    map_ipv4(ends, one);
    map_ipv4(other_ends, other);
    return !ADDRESS_MATCHES(ends) && !ADDRESS_MATCHES(other_ends);
}

/* By a socket, if it is connected. It is at hand where it is used, while the headers of a packet may be in another
 * CPU's cache. */
static __always_inline bool refuses_connection(u64 sock)
{
    __be16 remote_port = TYPED(__be16, sock, SOCK_REMOTE_PORT_OFFSET);

    return TYPED(u16, sock, SOCK_FAMILY_OFFSET) == AF_INET && remote_port &&
           refuses_ends(TYPED(__be32, sock, SOCK_LOCAL4_OFFSET), TYPED(__be32, sock, SOCK_REMOTE4_OFFSET),
                      TYPED(u16, sock, SOCK_LOCAL_PORT_OFFSET), bpf_ntohs(remote_port));
}

/* What most packets begin with. */
struct beginning {
    struct ipv4 ip;
    __be16 ports[2];
};

static __always_inline bool refuses_beginning(struct beginning *packet)
{
    return packet->ip.version_length == 0x45 && is_transport(packet->ip.protocol) &&
           !(packet->ip.fragment & bpf_htons(0x1fff)) &&
           refuses_ends(packet->ip.source, packet->ip.destination, bpf_ntohs(packet->ports[0]),
                      bpf_ntohs(packet->ports[1]));
}

/* By a packet that a hook hands over. */
static __always_inline bool refuses_packet(void *context, u64 packet, u64 traits)
{
    struct __sk_buff *skb = context;
    struct beginning *there, copy;
    u64 ip;

    if (traits & PATH_CONTEXT) {
        there = (void *)(long)skb->data;
        return skb->protocol == bpf_htons(ETHERTYPE_IPV4) &&
               (void *)(there + 1) <= (void *)(long)skb->data_end && refuses_beginning(there);
    }
    if (!packet || traits & PATH_BY_SOCKET || !(traits & PATH_TYPED) ||
        TYPED(__be16, packet, SKB_PROTOCOL_OFFSET) != bpf_htons(ETHERTYPE_IPV4))
        return false;
    ip = traits & PATH_AT_DATA ? TYPED(u64, packet, SKB_DATA_OFFSET) :
                                 TYPED(u64, packet, SKB_HEAD_OFFSET) + TYPED(u16, packet, SKB_NETWORK_OFFSET);
    return !peek(&copy, ip, 0) && refuses_beginning(&copy);
}

#endif
