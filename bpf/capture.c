/*
 * A capture on demand: frames of some interfaces, whole or their beginnings, into a ring for one reader.
 *
 * tc programs at ingress and egress. A frame is copied to memory of its CPU, where the filter looks at it, and
 * from there to the ring: its length is known only then, and the verifier lets nobody reserve that much. It is
 * what a wire carries: a VLAN tag that the kernel keeps beside the frame is put back (libpcap does the same).
 *
 * tc runs with softirqs off: no two programs interleave on one CPU, plain additions and one copy do.
 *
 * Compile-time settings: CPUS (possible CPUs), TAPS (table size), RING, SNAPLEN (bytes); FILTER, if a
 * preamble has the functions of a filter (filter.h); OWNERS, if it is asked whose a frame is; METERED, if the meter's socket
 * storage is shared; USERS, UNITS, PROCESSES, PIDS: how many of them are wanted, not defined: all are.
 */
#include "identity.h"
#include "parse.h"
#include "types.h"

#define HEAD 128 /* bytes of a frame that are copied before it is known whether the rest is wanted */
#define ADDRESSES 12 /* bytes in front of the outermost VLAN tag */
#define ROOM (SNAPLEN > HEAD ? SNAPLEN : HEAD)
#define TC_NEXT -1 /* TC_ACT_UNSPEC, TCX_NEXT: leave the packet to whoever is next */

struct scratch {
    struct captured_frame about;
    u8 data[ROOM];
};

/* The ring that user space reads: of each frame a struct captured_frame and its bytes. */
#define PAGE_SIZE 1 /* what BCC counts in */
BPF_RINGBUF_OUTPUT(ring, RING);
/* Key: CPU. Value: the frame in hand; too large for a per-CPU array. */
BPF_TABLE("array", u32, struct scratch, scratches, CPUS);
/* Key: interface index. Value: what became of its frames. User space fills in which, and reads it. */
BPF_TABLE("percpu_hash", u32, struct tap, taps, TAPS);

#ifdef METERED
#include "storage.h" /* uses maps */
#endif

/* Key: who is wanted. User space fills them. */
#ifdef USERS
BPF_TABLE("hash", u32, u8, users, USERS);
#endif
#ifdef PIDS
BPF_TABLE("hash", u32, u8, pids, PIDS);
#endif
#ifdef PROCESSES
struct process_name {
    char name[16];
};
BPF_TABLE("hash", struct process_name, u8, processes, PROCESSES);
#endif
#ifdef UNITS
/* Key: cgroup. Value: whether it is wanted. Of one that is not here user space is to say. */
BPF_TABLE("hash", u64, u8, units, UNITS);
#endif

/*
 * No more than `most` of a value that is not 0; the compiler forgets how that came about, or it checks one copy and
 * uses another. Verifiers before Linux 6.8 learn nothing from a comparison with 0, and follow branches that cannot
 * be, with bounds that contradict each other: hence the 1, and a mask that changes nothing.
 */
static __always_inline u64 limited(u64 value, u64 most)
{
    value -= 1;
    if (value >= most)
        value = most - 1;
    asm volatile("" : "+r"(value));
    return (value & 0xfffff) + 1;
}

/* Copies so much of the frame's beginning; 0, or an error and zeroes. */
static __always_inline int copy_head(struct __sk_buff *skb, u8 *data, u64 length, u32 tag)
{
    if (!tag)
        return bpf_skb_load_bytes(skb, 0, data, length);
    *(__be16 *)(data + ADDRESSES) = skb->vlan_proto;
    *(__be16 *)(data + ADDRESSES + 2) = bpf_htons(skb->vlan_tci);
    length = limited(length - ADDRESSES - sizeof(struct vlan_tag), HEAD - ADDRESSES - sizeof(struct vlan_tag));
    return bpf_skb_load_bytes(skb, 0, data, ADDRESSES) ?:
           bpf_skb_load_bytes(skb, ADDRESSES, data + ADDRESSES + sizeof(struct vlan_tag), length);
}

#ifdef FILTER
#if HEAD < FILTER_HEAD
#error "a filter looks at more than is there"
#endif
#define matches(head, have, length, shift, skb, link_type)                                                 \
    ((link_type) == LINK_RAW ? filter_raw(head, have, length, shift, skb) :                                \
                               filter_ethernet(head, have, length, shift, skb))
#else
#define matches(head, have, length, shift, skb, link_type) true
#endif

#ifdef OWNERS
/* The id of the cgroup that made the socket, 0: unknown. */
static __always_inline u64 cgroup_of(struct bpf_sock *sk)
{
    u64 id = 0;
#ifdef SOCK_CGROUP_OFFSET
    u64 address = 0, group = 0, node = 0;

    peek(&address, &sk, 0); /* see socket_uid() */
    peek(&group, address, SOCK_CGROUP_OFFSET + CGROUP_DATA_OFFSET);
    peek(&node, group, CGROUP_NODE_OFFSET);
    peek(&id, node, NODE_ID_OFFSET);
#endif
    return id;
}

/* Fills in who is behind the socket; false: nobody who is wanted. */
static __always_inline bool identify(struct __sk_buff *skb, struct bpf_sock *sk, struct captured_frame *about,
                                     bool in)
{
    struct owner *owner = NULL;
    bool wanted = true;

    about->cgroup = in ? cgroup_of(sk) : bpf_skb_cgroup_id(skb);
#ifdef SOCK_UID_OFFSET
    about->uid = socket_uid(skb, sk);
#else
    about->uid = in ? NO_USER : socket_uid(skb, sk);
#endif
#ifdef METERED
    owner = owners.sk_storage_get(sk, NULL, 0);
    if (owner) {
        about->slot = owner->ticket;
        about->generation = owner->ticket >> 32;
    }
#endif
#ifdef USERS
    wanted &= !!users.lookup(&about->uid);
#endif
#ifdef PIDS
    wanted &= owner && pids.lookup(&owner->pid);
#endif
#ifdef PROCESSES
    wanted &= owner && processes.lookup((struct process_name *)owner->comm);
#endif
#ifdef UNITS
    {
        u8 *known = units.lookup(&about->cgroup);

        about->doubtful = !known && about->cgroup;
        wanted &= known ? *known : about->doubtful;
    }
#endif
    return wanted;
}

/* The socket that a frame which comes in is for, to be released; NULL: there is none, or it is not clear. */
static __always_inline struct bpf_sock *receiver(struct __sk_buff *skb, u32 link_type)
{
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct bpf_sock_tuple tuple = {};
    __be16 type = skb->protocol;
    struct packet packet = {};
    u32 at = 0, size;
    bool ipv4;

    if (link_type == LINK_ETHERNET) {
        at = parse_ethernet(data, end, &type, MAX_VLAN_TAGS);
        if (!at)
            return NULL;
    }
    ipv4 = type == bpf_htons(ETHERTYPE_IPV4);
    if (ipv4 ? !parse_ipv4(data + at, end, &packet) :
               type != bpf_htons(ETHERTYPE_IPV6) || !parse_ipv6(data + at, end, &packet))
        return NULL;
    if (packet.later)
        return NULL;
    if (ipv4) {
        size = sizeof(tuple.ipv4);
        tuple.ipv4.saddr = packet.source[1] >> 32;
        tuple.ipv4.daddr = packet.destination[1] >> 32;
        tuple.ipv4.sport = bpf_htons(packet.source_port);
        tuple.ipv4.dport = bpf_htons(packet.destination_port);
    } else {
        size = sizeof(tuple.ipv6);
        __builtin_memcpy(tuple.ipv6.saddr, packet.source, sizeof(tuple.ipv6.saddr));
        __builtin_memcpy(tuple.ipv6.daddr, packet.destination, sizeof(tuple.ipv6.daddr));
        tuple.ipv6.sport = bpf_htons(packet.source_port);
        tuple.ipv6.dport = bpf_htons(packet.destination_port);
    }
    if (packet.protocol == PROTOCOL_TCP)
        return bpf_sk_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
    if (packet.protocol == PROTOCOL_UDP)
        return bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
    return NULL;
}
#endif

/* Fills in whose the frame is, if that is asked; false: somebody's who is not wanted. */
static __always_inline bool has_owner(struct __sk_buff *skb, struct captured_frame *about, bool in)
{
    bool wanted = true;

    about->cgroup = 0;
    about->uid = NO_USER;
    about->slot = NO_SLOT;
    about->generation = 0;
    about->doubtful = 0;
#ifdef OWNERS
    struct bpf_sock *sk = in ? receiver(skb, about->link_type) : skb->sk;

#if defined(USERS) || defined(UNITS) || defined(PROCESSES) || defined(PIDS)
    wanted = false; /* if it has none */
#endif
    if (!sk)
        return wanted;
    if (in) {
        wanted = identify(skb, sk, about, in);
        bpf_sk_release(sk);
    } else {
        sk = bpf_sk_fullsock(sk);
        if (sk)
            wanted = identify(skb, sk, about, in);
    }
#endif
    return wanted;
}

static __always_inline int capture(struct __sk_buff *skb, bool in)
{
    u32 ifindex = skb->ifindex, cpu = bpf_get_smp_processor_id();
    struct tap *tap = taps.lookup(&ifindex);
    struct scratch *scratch = scratches.lookup(&cpu);
    u64 length = skb->len, head, captured;
    struct captured_frame *about;
    struct tapped *tapped;
    u32 tag = 0;
    bool whole;

    if (!tap || !scratch)
        return TC_NEXT;
    tapped = in ? &tap->in : &tap->out;
    tapped->seen += 1;
    about = &scratch->about;
    about->time = bpf_ktime_get_ns();
    if (skb->vlan_present && length > sizeof(struct ethernet))
        tag = sizeof(struct vlan_tag);
    length += tag;
    if (!length)
        return TC_NEXT;
    head = limited(length, HEAD);
    whole = !copy_head(skb, scratch->data, head, tag);
    if (!matches(scratch->data, head, length, -(int)tag, skb, tap->link_type)) {
        tapped->filtered += 1;
        return TC_NEXT;
    }
    about->link_type = tap->link_type;
    if (!has_owner(skb, about, in)) {
        tapped->others += 1;
        return TC_NEXT;
    }
    captured = limited(length, SNAPLEN);
#if SNAPLEN > HEAD
    if (captured > HEAD &&
        bpf_skb_load_bytes(skb, HEAD - tag, scratch->data + HEAD, limited(captured - HEAD, SNAPLEN - HEAD)))
        captured = HEAD;
    captured = limited(captured, SNAPLEN);
#endif
    if (!whole) /* its bytes are where only a device can read them */
        captured = 0;
    about->length = length;
    about->captured = captured;
    about->ifindex = ifindex;
    about->direction = in ? PACKET_IN : PACKET_OUT;
    if (ring.ringbuf_output(scratch, sizeof(*about) + captured, 0)) {
        tapped->dropped += 1;
        return TC_NEXT;
    }
    tapped->captured += 1;
    tapped->bytes += length;
    return TC_NEXT;
}

int capture_ingress(struct __sk_buff *skb)
{
    return capture(skb, true);
}

int capture_egress(struct __sk_buff *skb)
{
    return capture(skb, false);
}
