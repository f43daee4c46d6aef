/*
 * What a packet of a socket is on the wire: segmentation and fragmentation, which happen elsewhere in the
 * stack, are worked out.
 *
 * Compile-time settings, if the kernel's BTF tells: SKB_DEV_OFFSET, SKB_CB_OFFSET, SKB_ROUTE_OFFSET,
 * DEV_MTU_OFFSET, ROUTE_*_OFFSET, CB4_FRAGMENT_OFFSET, CB6_FRAGMENT_OFFSET.
 */
#ifndef NETMOND_MEASURE_H
#define NETMOND_MEASURE_H

#include "clock.h"
#include "parse.h"
#include "peek.h"

#define SMALLEST_MTU 1280 /* of IPv6, RFC 8200 5; few links have less */
#define IPV4_DONT_FRAGMENT 0x4000 /* RFC 791 3.1 */
#define RTAX_MTU 2 /* linux/rtnetlink.h */

/* A packet as the wire sees it. */
struct size {
    u64 bytes;
    u64 surplus;
    u64 packets;
};

/* Zeroed here and not where it is declared: most packets are not parsed. */
static __always_inline void parse(struct __sk_buff *skb, struct packet *packet, bool *whole)
{
    void *data = (void *)(long)skb->data;
    void *end = (void *)(long)skb->data_end;

    __builtin_memset(packet, 0, sizeof(*packet));
    if (skb->protocol == bpf_htons(ETHERTYPE_IPV4))
        *whole = parse_ipv4(data, end, packet);
    else
        *whole = parse_ipv6(data, end, packet);
}

#ifdef CB6_FRAGMENT_OFFSET
/* The largest packet on the path of one that leaves, as its route knows it (ipv4_mtu(), ip6_mtu()), 0: the
 * route does not know. */
static __always_inline u32 path_mtu(void *buffer, bool ipv4)
{
    u64 route = 0, metrics = 0, expires = 0;
    u32 mtu = 0, learned = 0;

    peek(&route, buffer, SKB_ROUTE_OFFSET);
    route &= ~1ULL; /* SKB_DST_NOREF */
    if (!route)
        return 0;
    if (ipv4) {
        peek(&learned, route, ROUTE_LEARNED_MTU_OFFSET);
        peek(&expires, route, ROUTE_EXPIRES_OFFSET);
        learned >>= 1; /* a flag is before it */
        if (learned && (s64)(expires - bpf_jiffies64()) > 0)
            return learned;
    }
    peek(&metrics, route, ROUTE_METRICS_OFFSET);
    peek(&mtu, metrics & ~3ULL, (RTAX_MTU - 1) * sizeof(u32)); /* DST_METRICS_FLAGS */
    return mtu;
}
#endif

/* The hooks see a datagram before it is cut in pieces and after they were put together: the size of
 * the pieces is that of the path's or device's packets, or what reassembly (ip_frag_reasm) noted. 0: not in
 * pieces. */
static __always_inline u32 fragment_size(struct __sk_buff *skb, bool ipv4, bool in)
{
#ifdef CB6_FRAGMENT_OFFSET
    void *buffer = skb; /* what the context stands for: the kernel's struct sk_buff */
    u64 device = 0;
    u32 mtu = 0;
    u16 largest = 0;

    if (in && ipv4) {
        peek(&largest, buffer, SKB_CB_OFFSET + CB4_FRAGMENT_OFFSET);
        return largest;
    }
    if (in) {
        peek(&largest, buffer, SKB_CB_OFFSET + CB6_FRAGMENT_OFFSET);
        return largest;
    }
    mtu = path_mtu(buffer, ipv4);
    if (!mtu) {
        peek(&device, buffer, SKB_DEV_OFFSET);
        peek(&mtu, device, DEV_MTU_OFFSET);
    }
    return skb->len > mtu ? mtu : 0;
#else
    return 0;
#endif
}

/* TCP fits its segments to the path, and what must not be cut leaves whole; they shall not pay for the rest. */
static __always_inline bool may_be_in_pieces(struct __sk_buff *skb, bool in)
{
    void *header = (void *)(long)skb->data;
    struct ipv4 *ip = header;

    if (skb->len <= SMALLEST_MTU || header + sizeof(*ip) > (void *)(long)skb->data_end)
        return false;
    if (skb->protocol != bpf_htons(ETHERTYPE_IPV4))
        return ((struct ipv6 *)header)->next_header != PROTOCOL_TCP;
    if (!in && ip->fragment & bpf_htons(IPV4_DONT_FRAGMENT))
        return false;
    return ip->protocol != PROTOCOL_TCP;
}

static __always_inline void measure_fragments(struct __sk_buff *skb, struct packet *packet, struct size *size,
                                              bool in)
{
    bool ipv4 = skb->protocol == bpf_htons(ETHERTYPE_IPV4);
    u32 largest = fragment_size(skb, ipv4, in), headers, payload, pieces;

    if (!largest)
        return;
    headers = packet->ip_header + (ipv4 ? 0 : FRAGMENT_HEADER);
    if (largest < headers + 8)
        return;
    payload = (largest - headers) & ~7U;
    pieces = (skb->len - packet->ip_header + payload - 1) / payload;
    if (pieces < 2)
        return;
    size->surplus = (u64)pieces * headers - packet->ip_header;
    size->packets = 1 | (u64)pieces << 32;
}

static __always_inline void measure_segments(struct __sk_buff *skb, struct packet *packet, struct size *size)
{
    u32 headers = packet->ip_header + packet->transport_header, segments;

    segments = skb->gso_segs;
    if (!segments) /* packets from outside (virtio, tun) may leave it to be worked out */
        segments = (skb->len - headers + skb->gso_size - 1) / skb->gso_size;
    if (!segments)
        segments = 1;
    /* The mark of a super-packet is not repeated, it goes. */
    size->surplus = (u64)segments * (headers - packet->jumbo) - headers;
    size->packets = 1 | (u64)segments << 32;
}

static __always_inline void measure(struct __sk_buff *skb, struct size *size, bool in)
{
    bool segmented = skb->gso_size, whole;
    struct packet packet;

    size->bytes = skb->len;
    size->surplus = 0;
    size->packets = 1 | 1ULL << 32;
    if (!segmented && !may_be_in_pieces(skb, in))
        return;
    parse(skb, &packet, &whole);
    if (segmented)
        measure_segments(skb, &packet, size);
    else if (whole)
        measure_fragments(skb, &packet, size, in);
}

static __always_inline void add(struct tally *tally, struct size *size, bool in)
{
    if (in) {
        __sync_fetch_and_add(&tally->in_bytes, size->bytes);
        __sync_fetch_and_add(&tally->in_surplus, size->surplus);
        __sync_fetch_and_add(&tally->in_packets, size->packets);
    } else {
        __sync_fetch_and_add(&tally->out_bytes, size->bytes);
        __sync_fetch_and_add(&tally->out_surplus, size->surplus);
        __sync_fetch_and_add(&tally->out_packets, size->packets);
    }
    tally->last_seen = now();
}

#endif
