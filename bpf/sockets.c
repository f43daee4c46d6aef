/*
 * The always-on meter: cgroup programs that count every packet of every socket below a cgroup.
 *
 * A packet finds its socket's record without hashing: socket storage holds a slot number, the slot is
 * a record in an array that user space maps. See struct slot and struct flow in types.h.
 *
 * Slots: user space keeps the free ones on a stack. A socket's first packet claims one. When the socket
 * is released, or long silent, user space sets the slot's generation to 0, waits a tick, reads the final
 * figures and gives the slot back. A packet that still comes (a closed TCP connection sends what it had
 * queued) meets another generation than its socket's ticket says and claims anew: nothing is counted to
 * a stranger, nothing is lost.
 *
 * Compile-time settings: SLOTS, PEERS, OVERFLOWS, DETOURS (table sizes); if the kernel's BTF tells, SOCK_UID_OFFSET,
 * SOCK_NET_OFFSET and NET_COOKIE_OFFSET: places of the user and the network namespace in the kernel's
 * structures; the places that owners.h needs; COARSE_CLOCK, if there is bpf_ktime_get_coarse_ns (5.11).
 */
#include "clock.h"
#include "control.h"
#include "measure.h"
#include "owners.h"
#include "parse.h"
#include "peek.h"

/* Key: slot number. Value: counters. One per socket with traffic. User space maps it. */
BPF_F_TABLE("array", u32, struct slot, slots, SLOTS, BPF_F_MMAPABLE);
/* Key: slot number. Value: who and what. User space maps it, and reads a row when its revision changes. */
BPF_F_TABLE("array", u32, struct flow, flows, SLOTS, BPF_F_MMAPABLE);
/* Free slot numbers; a stack, so that the ones in use stay together at the bottom of the arrays. */
BPF_STACK(free_slots, u32, SLOTS);
/* Key: socket cookie and remote address of unconnected sockets. Value: counters. User space ages it. */
BPF_TABLE("hash", struct peer_key, struct tally, peers, PEERS);
/* Key: user, interface and cgroup. Value: counters of sockets that found no slot. Keeps totals exact. */
BPF_TABLE("hash", struct overflow_key, struct tally, overflow, OVERFLOWS);
/* Key: two interfaces. Value: counters of what passed the second and is in slots of the first. */
BPF_TABLE("hash", struct detour_key, struct tally, detours, DETOURS);
/* Key: LOST_*. Value: count. User space maps it. */
BPF_F_TABLE("array", u32, u64, losses, SOCKET_LOSSES, BPF_F_MMAPABLE);
/* Key: SETTING_*. User space writes it. */
BPF_F_TABLE("array", u32, u64, settings, SETTINGS, BPF_F_MMAPABLE);
/* Key: socket. Value: its owner and ticket. Accepted sockets get a copy (BPF_F_CLONE); the macro of
 * BCC has no place for that flag. */
struct owners_table_t {
    int key;
    struct owner leaf;
    void *(*sk_storage_get)(void *, void *, int);
    int (*sk_storage_delete)(void *);
    u32 flags;
    u32 max_entries;
};
__attribute__((section("maps/sk_storage"))) struct owners_table_t owners = {
    .flags = BPF_F_NO_PREALLOC | BPF_F_CLONE,
};
BPF_ANNOTATE_KV_PAIR(owners, int, struct owner);

#define TCP_LISTEN 10
#define SOCK_DGRAM 2
#define ACCEPT_WITHIN 16 /* packets sent, by which a connection has surely been accepted */

/* Stands in both programs: BCC rewrites what is done to maps in the file itself, not in headers. */
static __always_inline void lose(u32 reason)
{
    u64 *count = losses.lookup(&reason);

    if (count)
        __sync_fetch_and_add(count, 1);
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

/* The user who owns the socket, as the initial user namespace names it. bpf_get_socket_uid() answers in
 * terms of the network namespace's owner: a rootless container's user would be called root. */
static __always_inline u32 socket_uid(struct __sk_buff *skb, struct bpf_sock *sk)
{
#ifdef SOCK_UID_OFFSET
    u64 address = 0;
    u32 uid;

    /* The verifier allows no arithmetic on a socket pointer: read it back from the stack as a number. */
    peek(&address, &sk, 0);
    if (!peek(&uid, address, SOCK_UID_OFFSET))
        return uid;
#endif
    return bpf_get_socket_uid(skb);
}

/* The cookie of the network namespace the socket lives in, 0: unknown. Remembered in `owner`, three reads of
 * 15 ns each; NULL: there is none, or it is a control socket, which the kernel moves between namespaces. */
static __always_inline u64 socket_netns(struct bpf_sock *sk, struct owner *owner)
{
    u64 cookie = 0;
#ifdef NET_COOKIE_OFFSET
    u64 address = 0, net = 0;

    if (owner && owner->netns)
        return owner->netns;
    peek(&address, &sk, 0);
    if (!peek(&net, address, SOCK_NET_OFFSET))
        peek(&cookie, net, NET_COOKIE_OFFSET);
    if (owner)
        owner->netns = cookie;
#endif
    return cookie;
}

/* Whether the interface that a packet passes is one of ours. */
static __always_inline bool is_ours(struct bpf_sock *sk, struct owner *owner)
{
    u32 setting = SETTING_NETNS;
    u64 *ours = settings.lookup(&setting);

    return ours && socket_netns(sk, owner) == *ours;
}

static __always_inline void copy_addresses(struct flow *flow, struct bpf_sock *sk)
{
    u64 *local = (u64 *)flow->local;
    u64 *remote = (u64 *)flow->remote;

    if (sk->family == AF_INET) {
        map_ipv4(local, sk->src_ip4);
        if (sk->dst_ip4) {
            map_ipv4(remote, sk->dst_ip4);
        } else {
            remote[0] = 0;
            remote[1] = 0;
        }
    } else {
        local[0] = (u64)sk->src_ip6[1] << 32 | sk->src_ip6[0];
        local[1] = (u64)sk->src_ip6[3] << 32 | sk->src_ip6[2];
        remote[0] = (u64)sk->dst_ip6[1] << 32 | sk->dst_ip6[0];
        remote[1] = (u64)sk->dst_ip6[3] << 32 | sk->dst_ip6[2];
    }
    flow->local_port = sk->src_port;
    flow->remote_port = bpf_ntohs((u16)sk->dst_port);
}

/* Fills in who and what a slot stands for. */
static __always_inline void identify(struct __sk_buff *skb, struct bpf_sock *sk, struct owner *owner,
                                     struct flow *flow)
{
    u8 flags = owner->flags & (FLOW_OLDER | FLOW_ACCEPTED | FLOW_RELEASED);

    copy_addresses(flow, sk);
    flow->protocol = sk->protocol;
    if (sk->protocol == PROTOCOL_TCP && sk->state == TCP_LISTEN)
        flags |= FLOW_LISTENER;
    else if (!sk->dst_port && (sk->type == SOCK_DGRAM || sk->type == SOCK_RAW))
        flags |= FLOW_UNCONNECTED;
    else if (sk->type == SOCK_DGRAM)
        flags |= FLOW_CONNECTED;
    if (is_control(sk))
        flags |= FLOW_CONTROL;
    owner->flags = flags;
    flow->flags = flags;
    flow->cookie = bpf_get_socket_cookie(skb);
    flow->cgroup = bpf_sk_cgroup_id(sk);
    flow->netns = socket_netns(sk, flags & FLOW_CONTROL ? NULL : owner);
    flow->uid = socket_uid(skb, sk);
    flow->pid = owner->pid;
    flow->ifindex = skb->ifindex;
    __builtin_memcpy(flow->comm, owner->comm, sizeof(flow->comm));
    flow->first_seen = now();
}

/* accept() hands a socket to the user who calls it, often later than the first packet. */
static __always_inline void follow_accept(struct __sk_buff *skb, u32 index, struct slot *slot)
{
    struct flow *flow = flows.lookup(&index);
    struct bpf_sock *sk = skb->sk;
    u32 uid;

    if (sk)
        sk = bpf_sk_fullsock(sk);
    if (!sk || !flow)
        return;
    uid = socket_uid(skb, sk);
    if (uid == flow->uid)
        return;
    flow->uid = uid;
    slot->out.note = ++flow->revision;
}

/* Takes a free slot for the socket. NULL: there is none. */
static __always_inline struct slot *claim(struct __sk_buff *skb, struct owner *owner)
{
    struct bpf_sock *sk = skb->sk;
    u32 index, generation, setting = SETTING_EPOCH;
    struct slot *slot;
    struct flow *flow;
    u64 *epoch;

    epoch = settings.lookup(&setting);
    if (!epoch || !sk)
        return NULL;
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return NULL;
    /* Before anything can fail: accepted sockets start with a copy of this. */
    if (sk->state == TCP_LISTEN) {
        owner->flags |= FLOW_LISTENER;
    } else if (owner->flags & FLOW_LISTENER) {
        owner->flags = (owner->flags & FLOW_OLDER) | FLOW_ACCEPTED;
        owner->epoch = 0;
    }
    if ((u32)owner->ticket == NO_SLOT && owner->epoch == (u32)*epoch)
        return NULL; /* none was given back since this socket looked last */
    if (free_slots.pop(&index)) {
        if (!owner->epoch)
            lose(LOST_NO_SLOT_SOCKETS);
        owner->ticket = NO_SLOT;
        owner->epoch = *epoch;
        return NULL;
    }
    slot = slots.lookup(&index);
    flow = flows.lookup(&index);
    if (!slot || !flow)
        return NULL;
    identify(skb, sk, owner, flow);
    generation = flow->generation + 1;
    if (!generation)
        generation = 1;
    flow->generation = generation;
    __builtin_memset(slot, 0, sizeof(*slot));
    if (owner->flags & FLOW_RELEASED)
        slot->in.note = SLOT_RELEASED;
    slot->out.note = ++flow->revision;
    slot->in.generation = generation;
    slot->out.generation = generation;
    owner->ticket = (u64)generation << 32 | index;
    return slot;
}

static __always_inline void count_overflow(struct __sk_buff *skb, struct owner *owner, struct size *size,
                                           bool in)
{
    struct overflow_key key = {};
    struct tally zero = {};
    struct bpf_sock *sk = skb->sk;
    struct tally *tally;

    if (sk)
        sk = bpf_sk_fullsock(sk);
    if (!sk) {
        lose(LOST_NO_SOCKET);
        return;
    }
    key.uid = socket_uid(skb, sk);
    if (!is_control(sk) && is_ours(sk, owner) && (!in || is_transport(sk->protocol)))
        key.ifindex = skb->ifindex;
    key.cgroup = bpf_sk_cgroup_id(sk);
    tally = overflow.lookup(&key);
    if (!tally) {
        zero.first_seen = now();
        overflow.insert(&key, &zero);
        tally = overflow.lookup(&key);
    }
    if (!tally) {
        lose(LOST_OVERFLOW_FULL);
        return;
    }
    add(tally, size, in);
}

/* Counts one peer of an unconnected socket, beside the socket's own record. */
static __always_inline void count_peer(struct __sk_buff *skb, struct size *size, bool in)
{
    struct packet packet = {};
    struct peer_key key = {};
    struct tally zero = {};
    struct tally *tally;
    u64 *remote = (u64 *)key.remote;
    bool whole;

    parse(skb, &packet, &whole);
    if (!whole) { /* raw sockets may send what they like (IP_HDRINCL) */
        lose(LOST_NO_PEER);
        return;
    }
    key.cookie = bpf_get_socket_cookie(skb);
    remote[0] = in ? packet.source[0] : packet.destination[0];
    remote[1] = in ? packet.source[1] : packet.destination[1];
    key.remote_port = in ? packet.source_port : packet.destination_port;
    tally = peers.lookup(&key);
    if (!tally) {
        zero.first_seen = now();
        peers.insert(&key, &zero);
        tally = peers.lookup(&key);
    }
    if (!tally) {
        lose(LOST_PEERS_FULL);
        return;
    }
    add(tally, size, in);
}

/* The packet passes another interface than the socket's others do in this direction: several ways lead to
 * the peer, or the socket serves several networks. Beside the socket's own record. */
static __always_inline void count_detour(struct __sk_buff *skb, struct owner *owner,
                                         struct direction *direction, struct size *size, bool in)
{
    struct detour_key key = {};
    struct tally zero = {};
    struct bpf_sock *sk = skb->sk;
    struct tally *tally;

    if (!direction->ifindex) {
        direction->ifindex = skb->ifindex;
        return;
    }
    if (sk)
        sk = bpf_sk_fullsock(sk);
    if (!sk || is_control(sk) || !is_ours(sk, owner))
        return;
    key.home = direction->ifindex;
    key.ifindex = skb->ifindex;
    key.protocol = sk->protocol;
    tally = detours.lookup(&key);
    if (!tally) {
        zero.first_seen = now();
        detours.insert(&key, &zero);
        tally = detours.lookup(&key);
    }
    if (!tally) {
        lose(LOST_DETOURS_FULL);
        return;
    }
    add(tally, size, in);
}

/* Gives a slot up: the socket is to have another row. */
static __always_inline struct slot *leave(struct owner *owner, struct slot *slot)
{
    slot->in.note = SLOT_RELEASED;
    owner->ticket = NO_SLOT;
    owner->epoch = 0;
    return NULL;
}

static __always_inline int count(struct __sk_buff *skb, bool in)
{
    struct bpf_sock *sk = skb->sk;
    struct direction *direction;
    struct bpf_tcp_sock *tcp;
    struct owner *owner;
    struct slot *slot;
    struct size size;
    u32 index, generation;

    if (!sk) {
        lose(LOST_NO_SOCKET);
        return 1;
    }
    measure(skb, &size, in);
    owner = owners.sk_storage_get(sk, NULL, 0);
    if (!owner) { /* the socket is older than the meter */
        owner = owners.sk_storage_get(sk, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
        if (!owner) {
            lose(LOST_NO_STORAGE);
            count_overflow(skb, NULL, &size, in);
            return 1;
        }
        owner->ticket = NO_SLOT;
        owner->flags = FLOW_OLDER;
    }
    index = (u32)owner->ticket;
    generation = owner->ticket >> 32;
    slot = slots.lookup(&index);
    if (slot && slot->in.generation == generation) {
        if (owner->flags & FLOW_LISTENER && sk->state != TCP_LISTEN)
            slot = NULL; /* its listener's */
        else if (owner->flags & FLOW_CONNECTED && !sk->dst_port)
            slot = leave(owner, slot); /* connect() with AF_UNSPEC passes no hook */
    } else {
        slot = NULL;
    }
    if (!slot) {
        slot = claim(skb, owner);
        if (!slot) {
            lose(LOST_NO_SLOT_PACKETS);
            count_overflow(skb, owner, &size, in);
            return 1;
        }
    }
    direction = in ? &slot->in : &slot->out;
    if (in && (direction->packets & 15) == 1) { /* often enough, and after the handshake */
        tcp = bpf_tcp_sock(sk);
        if (tcp) {
            direction->srtt_us = tcp->srtt_us >> 3;
            direction->retransmits = tcp->total_retrans;
        }
    }
    __sync_fetch_and_add(&direction->bytes, size.bytes);
    __sync_fetch_and_add(&direction->packets, size.packets);
    if (size.surplus)
        __sync_fetch_and_add(&direction->surplus, size.surplus);
    direction->last_seen = now();
    if (direction->ifindex != skb->ifindex)
        count_detour(skb, owner, direction, &size, in);
    if (!in && owner->flags & FLOW_ACCEPTED && (u32)direction->packets < ACCEPT_WITHIN)
        follow_accept(skb, owner->ticket, slot);
    if (owner->flags & FLOW_UNCONNECTED)
        count_peer(skb, &size, in);
    return 1;
}

int meter_ingress(struct __sk_buff *skb)
{
    return count(skb, true);
}

int meter_egress(struct __sk_buff *skb)
{
    return count(skb, false);
}

static __always_inline void remember_process(struct owner *owner)
{
    owner->pid = bpf_get_current_pid_tgid() >> 32;
    bpf_get_current_comm(owner->comm, sizeof(owner->comm));
}

/* cgroup/sock_create: a process makes a socket; the kernel's own do not come here. */
int socket_created(struct bpf_sock *sk)
{
    struct owner *owner = owners.sk_storage_get(sk, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);

    if (!owner) /* the first packet tries again */
        return 1;
    owner->ticket = NO_SLOT;
    remember_process(owner);
    return 1;
}

/* cgroup/sock_release: the process has closed it; packets may still come. */
int socket_released(struct bpf_sock *sk)
{
    struct owner *owner = owners.sk_storage_get(sk, NULL, 0);
    struct slot *slot;
    u32 index;

    if (!owner)
        return 1;
    owner->flags |= FLOW_RELEASED;
    index = (u32)owner->ticket;
    slot = slots.lookup(&index);
    if (slot && slot->in.generation == owner->ticket >> 32)
        slot->in.note = SLOT_RELEASED;
    return 1;
}

/* cgroup/connect4 and 6: a datagram socket gets another peer, and so another row. */
static __always_inline int reconnect(struct bpf_sock_addr *address)
{
    struct bpf_sock *sk = address->sk;
    struct owner *owner;
    struct slot *slot;
    u32 index;

    if (!sk || address->type != SOCK_DGRAM)
        return 1;
    owner = owners.sk_storage_get(sk, NULL, 0);
    if (!owner)
        return 1;
    index = (u32)owner->ticket;
    slot = slots.lookup(&index);
    if (!slot || slot->in.generation != owner->ticket >> 32)
        return 1;
    leave(owner, slot);
    return 1;
}

int socket_connects4(struct bpf_sock_addr *address)
{
    return reconnect(address);
}

int socket_connects6(struct bpf_sock_addr *address)
{
    return reconnect(address);
}

/* iter/task_file: asked for by user space when a socket's process is not known. */
BPF_ITER(task_file)
{
    report_held_socket(ctx);
    return 0;
}
