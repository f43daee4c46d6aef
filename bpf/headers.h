/*
 * What a packet is, read from its struct sk_buff or its struct sock at any place in the kernel.
 *
 * In two steps, so that a filter has to read as little as possible: addresses and protocol, then the rest.
 *
 * Compile-time settings: SKB_* and SOCK_*_OFFSET, places in the kernel's structures; without
 * TCP_SEQUENCE_OFFSET what TCP sends again has no sequence number.
 */
#ifndef NETMOND_HEADERS_H
#define NETMOND_HEADERS_H

#include "parse.h"
#include "peek.h"
#include "types.h"

#define PROTOCOL_ICMP 1
#define PROTOCOL_ICMP6 58

#define TCP_TIME_WAIT 6 /* include/net/tcp_states.h: what is no whole struct sock */
#define TCP_NEW_SYN_RECV 12

#define NO_USER 0xffffffffU

struct tcp {
    __be16 source_port;
    __be16 destination_port;
    __be32 sequence;
    __be32 acknowledgement;
    u8 offset;
    u8 flags;
};

struct icmp {
    u8 type;
    u8 code;
    __be16 checksum;
    __be32 word;
};

/* What the IP header says, and where in the kernel the parts of a packet are. All that a filter needs first: it
 * costs less to fill than a whole event. */
struct packet_ends {
    u64 source[2];
    u64 destination[2];
    u64 head;      /* struct sk_buff's head */
    u64 data;      /* struct sk_buff's data */
    u64 ip;
    u64 transport; /* 0: there is none */
    u32 length;
    u16 id;
    u8 protocol;
    u8 ttl;
    __be16 ports[2]; /* what stands there, if it is known already */
    bool has_ports;
};

/* What is needed of struct sk_buff to find the headers. */
struct packet_buffer {
    u64 head;
    u64 data;
    u16 network;
    u16 mac;
    __be16 type;
};

/* These members of struct sk_buff lie close together, in this order: one read for all of them. */
#define SKB_FIRST (SKB_PROTOCOL_OFFSET & ~7)
#define SKB_COPIED(type, member) (*(type *)((void *)members + SKB_##member##_OFFSET - SKB_FIRST))
#define TYPED(type, structure, offset) (*(volatile type *)((structure) + (offset)))

static __always_inline bool read_buffer(u64 packet, u64 traits, struct packet_buffer *buffer)
{
    u64 members[(SKB_DATA_OFFSET - SKB_FIRST) / 8 + 1];

    if (traits & PATH_TYPED) { /* by the loads of a typed pointer, 1 ns each */
        buffer->head = TYPED(u64, packet, SKB_HEAD_OFFSET);
        buffer->data = TYPED(u64, packet, SKB_DATA_OFFSET);
        buffer->network = TYPED(u16, packet, SKB_NETWORK_OFFSET);
        buffer->mac = TYPED(u16, packet, SKB_MAC_OFFSET);
        buffer->type = TYPED(__be16, packet, SKB_PROTOCOL_OFFSET);
        return true;
    }
    if (read_kernel(members, sizeof(members), (void *)packet + SKB_FIRST))
        return false;
    buffer->head = SKB_COPIED(u64, HEAD);
    buffer->data = SKB_COPIED(u64, DATA);
    buffer->network = SKB_COPIED(u16, NETWORK);
    buffer->mac = SKB_COPIED(u16, MAC);
    buffer->type = SKB_COPIED(__be16, PROTOCOL);
    return true;
}

/* Finds the IP header. False: not an IP packet, or not of the family. */
static __always_inline bool find_ip(u64 packet, u64 traits, u64 family, struct packet_ends *ends)
{
    struct packet_buffer buffer;
    u32 link_header;
    struct vlan_tag tag;
    __be16 type;
    int i;

    if (!read_buffer(packet, traits, &buffer))
        return false;
    type = buffer.type;
    ends->head = buffer.head;
    ends->data = buffer.data;
    ends->ip = traits & PATH_AT_DATA ? buffer.data : buffer.head + buffer.network;
    /* A tag that was received is in front of the IP header; one that was put in for sending is stepped over. */
    link_header = sizeof(struct ethernet) + buffer.mac;
#pragma unroll
    for (i = 0; i < MAX_VLAN_TAGS; i++) {
        if (type != bpf_htons(ETHERTYPE_8021Q) && type != bpf_htons(ETHERTYPE_8021AD))
            break;
        if (!(traits & PATH_AT_DATA) && link_header != buffer.network)
            return true;
        peek(&tag, ends->ip, 0);
        type = tag.type;
        ends->ip += sizeof(tag);
    }
    return (type == bpf_htons(ETHERTYPE_IPV4) && family != AF_INET6) ||
           (type == bpf_htons(ETHERTYPE_IPV6) && family != AF_INET);
}

static __always_inline bool read_ipv4(struct ipv4 *ip, struct packet_ends *ends)
{
    u32 length = (ip->version_length & 0x0f) * 4;

    if (length < sizeof(*ip))
        return false;
    map_ipv4(ends->source, ip->source);
    map_ipv4(ends->destination, ip->destination);
    ends->protocol = ip->protocol;
    ends->ttl = ip->ttl;
    ends->id = bpf_ntohs(ip->identification);
    ends->length = bpf_ntohs(ip->total_length);
    ends->transport = ip->fragment & bpf_htons(0x1fff) ? 0 : ends->ip + length;
    ends->has_ports = length == sizeof(*ip);
    __builtin_memcpy(ends->ports, ip + 1, sizeof(ends->ports));
    return true;
}

static __always_inline bool read_ipv6(struct ipv6 *ip, struct packet_ends *ends)
{
    u64 at = ends->ip + sizeof(*ip);
    struct extension extension;
    u8 next = ip->next_header;
    u32 words;
    int i;

    ends->source[0] = ip->source[0];
    ends->source[1] = ip->source[1];
    ends->destination[0] = ip->destination[0];
    ends->destination[1] = ip->destination[1];
    ends->ttl = ip->hop_limit;
    ends->id = 0;
    ends->length = bpf_ntohs(ip->payload_length);
    if (ends->length)
        ends->length += sizeof(*ip);
    for (i = 0; i < MAX_EXTENSION_HEADERS; i++) {
        if (next > 63 || !(EXTENSION_HEADERS >> next & 1))
            break;
        if (peek(&extension, at, 0))
            return false;
        if (next == PROTOCOL_FRAGMENT && extension.fragment & bpf_htons(0xfff8)) {
            ends->protocol = extension.next_header;
            ends->transport = 0;
            ends->has_ports = false;
            return true;
        }
        words = next == PROTOCOL_FRAGMENT ? 0 : extension.length;
        at += next == PROTOCOL_AH ? (words + 2) * 4 : (words + 1) * 8; /* RFC 4302 2.2, RFC 8200 4.2 */
        next = extension.next_header;
    }
    ends->protocol = next;
    ends->transport = at;
    ends->has_ports = at == ends->ip + sizeof(*ip);
    __builtin_memcpy(ends->ports, ip + 1, sizeof(ends->ports));
    return true;
}

/* Addresses, protocol and length. False: not an IP packet, not of the family, or damaged. */
static __always_inline bool read_ip(u64 packet, u64 traits, u64 family, struct packet_ends *ends)
{
    /* With the first of what follows: one read instead of two. */
    union {
        struct ipv4 ipv4;
        struct ipv6 ipv6;
        u8 all[sizeof(struct ipv6) + sizeof(ends->ports)];
    } header;
    u32 length;
    bool whole;

    if (!find_ip(packet, traits, family, ends) || peek(&header, ends->ip, 0))
        return false;
    if (header.ipv4.version_length >> 4 == 4 && family != AF_INET6)
        whole = read_ipv4(&header.ipv4, ends);
    else if (header.ipv4.version_length >> 4 == 6 && family != AF_INET)
        whole = read_ipv6(&header.ipv6, ends);
    else
        return false;
    if (whole && !ends->length) { /* larger than the field: IPv6 jumbograms, the kernel's own super-packets */
        peek(&length, packet, SKB_LEN_OFFSET);
        ends->length = length + (ends->data - ends->ip);
    }
    return whole;
}

static __always_inline void copy_ends(struct path_event *event, struct packet_ends *ends)
{
    __builtin_memcpy(event->source, ends->source, sizeof(event->source));
    __builtin_memcpy(event->destination, ends->destination, sizeof(event->destination));
    event->data = ends->head;
    event->length = ends->length;
    event->protocol = ends->protocol;
    event->id = ends->id;
    event->ttl = ends->ttl;
}

/* Ports and the like. Returns how many bytes of TCP's data there are behind. */
static __always_inline u32 read_transport(struct path_event *event, struct packet_ends *ends)
{
    union {
        struct tcp tcp;
        struct icmp icmp;
    } header;
    u32 headers;

    if (!ends->transport || peek(&header, ends->transport, 0))
        return 0;
    switch (event->protocol) {
    case PROTOCOL_TCP:
        event->sequence = bpf_ntohl(header.tcp.sequence);
        event->acknowledgement = bpf_ntohl(header.tcp.acknowledgement);
        event->flags = header.tcp.flags;
    case PROTOCOL_UDP:
    case PROTOCOL_UDPLITE:
    case PROTOCOL_SCTP:
    case PROTOCOL_DCCP:
        event->source_port = bpf_ntohs(header.tcp.source_port);
        event->destination_port = bpf_ntohs(header.tcp.destination_port);
        break;
    case PROTOCOL_ICMP:
    case PROTOCOL_ICMP6:
        event->flags = header.icmp.type;
        event->sequence = bpf_ntohl(header.icmp.word);
    }
    headers = ends->transport - ends->ip + (header.tcp.offset >> 4) * 4;
    return event->length > headers ? event->length - headers : 0;
}

/* Whom a socket talks to, and how. wanted: of which protocol and family, 0: any. False: none of these. */
static __always_inline bool read_ends(u64 sock, u64 traits, u64 wanted, u64 wanted_family,
                                      struct path_event *event)
{
    u64 *local = (u64 *)(traits & PATH_OUT ? event->source : event->destination);
    u64 *remote = (u64 *)(traits & PATH_OUT ? event->destination : event->source);
    u16 family = 0, local_port, protocol;
    __be16 remote_port;
    __be32 address;

    if (traits & PATH_TYPED) {
        protocol = TYPED(u16, sock, SOCK_PROTOCOL_OFFSET);
        family = TYPED(u16, sock, SOCK_FAMILY_OFFSET);
    } else {
        peek(&protocol, sock, SOCK_PROTOCOL_OFFSET);
        peek(&family, sock, SOCK_FAMILY_OFFSET);
    }
    if (wanted && protocol != wanted)
        return false;
    if (wanted_family && family != wanted_family)
        return false;
    if (family == AF_INET && traits & PATH_TYPED) {
        map_ipv4(local, TYPED(__be32, sock, SOCK_LOCAL4_OFFSET));
        map_ipv4(remote, TYPED(__be32, sock, SOCK_REMOTE4_OFFSET));
    } else if (family == AF_INET) {
        peek(&address, sock, SOCK_LOCAL4_OFFSET);
        map_ipv4(local, address);
        peek(&address, sock, SOCK_REMOTE4_OFFSET);
        map_ipv4(remote, address);
    } else if (family == AF_INET6) {
        read_kernel(local, 16, (void *)sock + SOCK_LOCAL6_OFFSET);
        read_kernel(remote, 16, (void *)sock + SOCK_REMOTE6_OFFSET);
    } else {
        return false;
    }
    if (traits & PATH_TYPED) {
        local_port = TYPED(u16, sock, SOCK_LOCAL_PORT_OFFSET);
        remote_port = TYPED(__be16, sock, SOCK_REMOTE_PORT_OFFSET);
    } else {
        peek(&local_port, sock, SOCK_LOCAL_PORT_OFFSET);
        peek(&remote_port, sock, SOCK_REMOTE_PORT_OFFSET);
    }
    event->protocol = protocol;
    if (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP && protocol != PROTOCOL_UDPLITE)
        return true; /* of raw sockets and pings that is no port */
    event->source_port = traits & PATH_OUT ? local_port : bpf_ntohs(remote_port);
    event->destination_port = traits & PATH_OUT ? bpf_ntohs(remote_port) : local_port;
    return true;
}

/* What TCP hands to IP: its header is where the data begins, and IP's is yet to be put in front. */
static __always_inline void read_sent(u64 packet, struct path_event *event)
{
    bool ipv4 = !*(u64 *)event->source;
    struct packet_ends ends = {};

    peek(&event->data, packet, SKB_HEAD_OFFSET);
    peek(&event->length, packet, SKB_LEN_OFFSET);
    peek(&ends.transport, packet, SKB_DATA_OFFSET);
    event->length += ipv4 ? sizeof(struct ipv4) : sizeof(struct ipv6);
    read_transport(event, &ends);
}

/* What TCP wants to send in a packet without headers: struct tcp_skb_cb. */
static __always_inline void read_queued(u64 packet, struct path_event *event)
{
    peek(&event->data, packet, SKB_HEAD_OFFSET);
    peek(&event->length, packet, SKB_LEN_OFFSET);
#ifdef TCP_SEQUENCE_OFFSET
    peek(&event->sequence, packet, SKB_CB_OFFSET + TCP_SEQUENCE_OFFSET);
    peek(&event->flags, packet, SKB_CB_OFFSET + TCP_FLAGS_OFFSET);
#endif
}

/* A call on a socket: how many bytes, and of TCP where they are in the stream. length: an error if negative. */
static __always_inline void read_call(u64 sock, s64 length, u64 traits, struct path_event *event)
{
    event->length = (s32)length < 0 ? 0 : length;
#ifdef TCP_WRITTEN_OFFSET
    if (sock && traits & PATH_OUT && event->protocol == PROTOCOL_TCP) {
        peek(&event->sequence, sock, TCP_WRITTEN_OFFSET);
        if (traits & PATH_DONE)
            event->sequence -= event->length;
    }
#endif
}

/* Whose a socket is. A connection that is not there yet, or no more, is nobody's. */
static __always_inline void read_owner(u64 sock, struct path_event *event)
{
    u8 state = TCP_TIME_WAIT;

    event->uid = NO_USER;
    if (!sock)
        return;
    peek(&state, sock, SOCK_STATE_OFFSET);
    if (state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV)
        return;
    peek(&event->uid, sock, SOCK_UID_OFFSET);
    peek(&event->socket, sock, SOCK_COOKIE_OFFSET);
}

#endif
