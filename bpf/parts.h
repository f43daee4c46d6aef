/*
 * Whose a frame is that passes an interface, see PART_* in types.h, and which of several interfaces that stand
 * on each other counts it for the machine.
 *
 * Compile-time setting: HIDDEN_ANSWERS, if the kernel shows the meter no answer to a new IPv6 connection.
 */
#ifndef NETMOND_PARTS_H
#define NETMOND_PARTS_H

#include "control.h"
#include "roce.h"

#define TCP_NEW_SYN_RECV 12 /* include/net/tcp_states.h */

/* A frame, and what it is on the wire. */
struct frame {
    struct packet packet;
    u64 stack_bytes;
    u64 wire_packets;
    u64 wire_bytes;
    u64 ip_bytes; /* wire bytes from the IP header on, without the padding of short Ethernet frames */
    u64 part_bytes; /* as those of struct port_direction's parts */
    u32 link_header;
    u32 class;
    u32 part;
    u32 epoch; /* SETTING_EPOCH as it came */
    u32 bth; /* where there may be one, in bytes; 0: nowhere */
    struct roce roce;
    bool ip; /* packet is filled in */
    bool multicast;
    bool tagged;
    bool tag_beside; /* the outermost tag is not in the frame */
    bool for_master; /* of a bridge: the bridge's own, or everybody's */
};

static __always_inline bool is_for(void *data, void *end, u8 address[6])
{
    u16 *theirs = data, *ours = (u16 *)address;

    if (data + 6 > end)
        return false;
    return theirs[0] == ours[0] && theirs[1] == ours[1] && theirs[2] == ours[2];
}

static __always_inline u32 part_of_incoming(struct port *port, struct frame *frame)
{
    if (port->flags & PORT_BRIDGED)
        return frame->for_master ? PART_UPPER : PART_FORWARDED;
    if (port->flags & PORT_SLAVE || (frame->tagged && port->flags & PORT_TRUNK))
        return PART_UPPER;
    return frame->ip && is_transport(frame->packet.protocol) ? PART_SOCKETS : PART_KERNEL;
}

/* Datagrams leave in pieces, and are put together after they came in: sockets know the whole. */
static __always_inline void count_fragment(struct amount *amount, struct frame *frame, bool ipv4)
{
    if (frame->packet.later) {
        amount->packets += 1;
        amount->bytes += frame->packet.ip_header;
    } else if (!ipv4) {
        amount->bytes += FRAGMENT_HEADER;
    }
}

/* Whether the meter has it: a socket of this machine sent it; its handshake's first answer is a listener's. */
static __always_inline bool has_socket(struct __sk_buff *skb, struct frame *frame)
{
    struct bpf_sock *sk = skb->sk;

    if (!sk)
        return false;
    if (sk->state == TCP_NEW_SYN_RECV)
#ifdef HIDDEN_ANSWERS
        return frame->class == CLASS_IPV4;
#else
        return true;
#endif
    sk = bpf_sk_fullsock(sk);
    return sk && (sk->family == AF_INET || sk->family == AF_INET6) && !is_control(sk);
}

/* `origin`: where it came in, NULL: made here, or nobody knows. */
static __always_inline u32 part_of_outgoing(struct __sk_buff *skb, struct port *port, struct frame *frame,
                                            struct port *origin)
{
    if (port->flags & PORT_BRIDGED && origin && origin->master == port->master)
        return PART_FORWARDED;
    if (port->flags & (PORT_BRIDGED | PORT_SLAVE) || (frame->tagged && port->flags & PORT_TRUNK))
        return PART_UPPER;
    if (skb->ingress_ifindex)
        return PART_FORWARDED;
    return has_socket(skb, frame) ? PART_SOCKETS : PART_KERNEL;
}

/* Of interfaces that stand on each other the lowest counts for the machine: is it this one? */
static __always_inline bool is_lowest(struct port *port, u32 part)
{
    return !(port->flags & PORT_UPPER) && !(port->flags & PORT_SHARED && part == PART_UPPER);
}

/* Whether a monitored interface saw what came in there. */
static __always_inline bool has_seen(struct port *origin)
{
    return origin && (origin->index != NO_PLACE || origin->flags & PORT_UPPER);
}

#endif
