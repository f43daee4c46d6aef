/*
 * The way of packets through the kernel: who passes which stage, as events in a ring or as sums.
 *
 * All stages and kinds of hooks have the same program, in variants (variant.h): struct sk_buff and struct sock
 * are read at offsets told by BTF, whatever hands them over. With CAP_PERFMON a program may use a pointer as a
 * number, so that hooks which know a struct __sk_buff or a typed pointer name the packet as tracepoints do.
 *
 * A program may be interrupted by the same one on its CPU: what is counted is added atomically, and an event is
 * put together on the stack.
 *
 * Compile-time settings: CPUS (possible CPUs); RING_BYTES; STATISTICS, for sums instead of events; INTERVAL and
 * BURST (ns): one event each INTERVAL, of which so many may come at once as take BURST (INTERVAL 0: no limit);
 * PASSAGES, DROPS (table sizes).
 * The filter, in terms of what user space was asked for: PROTOCOL_MATCHES(number), ADDRESS_MATCHES(two words),
 * PORT_MATCHES(number) and whether there is one, HAS_PORTS; USER_MATCHES(uid).
 */
#include "headers.h"
#include "passages.h"
#include "refusal.h"
#include "symbols.h"
#include "variant.h"

#define LINK_TIME 1000000 /* ns from a packet to the wake-up of its socket's reader, at most */

#ifdef STATISTICS
#define EVENTS false
#else
#define EVENTS true
#endif

#define PAGE_SIZE RING_BYTES /* BCC wants a number of pages */
BPF_RINGBUF_OUTPUT(events, 1);
/* When the next event is due, if it may come as late as the rate allows; a moment BURST ago at the earliest. */
BPF_ARRAY(due, u64, 1);
BPF_F_TABLE("array", u32, struct path_counters, counters, CPUS *PATH_STAGES, BPF_F_MMAPABLE);
/* Those that nothing was heard of for longest give way. */
BPF_TABLE("lru_hash", u64, struct passage, passages, PASSAGES);
BPF_HASH(drops, struct path_drop_key, u64, DROPS);
BPF_F_TABLE("array", u32, struct path_latency, latencies, CPUS *PATH_STAGES, BPF_F_MMAPABLE);
/* Of hooks that several stages have in common: each one's number and 1, 0: nobody asked for it. Key: the
 * hook's VARIANT_STAGE and more, see find_stage(). User space fills it in. */
BPF_ARRAY(shared, u32, PATH_SHARED_HOOKS *PATH_SHARED_STAGES);
/* The packet this CPU had in hand last. */
BPF_PERCPU_ARRAY(handled, struct path_event, 1);

/* Whether the rate allows an event now. Without atomic operations that return something: when several CPUs
 * find a token at once, there are some events more. */
static __always_inline bool has_token(u64 time)
{
    int zero = 0;
    u64 *next = due.lookup(&zero);

    if (!INTERVAL || !next)
        return true;
    if ((s64)(*next - time) > 0)
        return false;
    if (*next + BURST < time)
        *next = time - BURST;
    __sync_fetch_and_add(next, INTERVAL);
    return true;
}

/* Whether addresses and protocol are wanted. */
static __always_inline bool matches_ends(u64 source[2], u64 destination[2], u8 protocol)
{
    return PROTOCOL_MATCHES(protocol) && (ADDRESS_MATCHES(source) || ADDRESS_MATCHES(destination));
}

/* The rest of what is wanted: users. Fills in whose the packet is. */
static __always_inline bool matches_owner(u64 packet, u64 sock, u64 traits, struct path_event *event)
{
    u16 family = 0;

    if (packet && !sock)
        peek(&sock, packet, SKB_SK_OFFSET);
    if (traits & PATH_OWNED) {
        if (!sock)
            return false;
        peek(&family, sock, SOCK_FAMILY_OFFSET);
        if (family != AF_INET && family != AF_INET6)
            return false;
    }
    read_owner(sock, event);
    return USER_MATCHES(event->uid);
}

/* The packet of a socket's event is the one in hand, if it is for this socket and has just come. */
static __always_inline void link(struct path_event *event)
{
    u64 *ends = (u64 *)event->source, *others;
    struct path_event *last;
    u32 zero = 0;

    last = handled.lookup(&zero);
    if (!last || event->protocol != last->protocol || event->destination_port != last->destination_port ||
        bpf_ktime_get_ns() - last->time > LINK_TIME) /* the clock last: it takes longest */
        return;
    others = (u64 *)last->source;
    /* A socket that is not connected takes packets from anybody; these say from whom this one is. */
    if (event->source_port) {
        if ((ends[0] ^ others[0]) | (ends[1] ^ others[1]) | (ends[2] ^ others[2]) | (ends[3] ^ others[3]) ||
            event->source_port != last->source_port)
            return;
    }
    __builtin_memcpy(event->source, last->source, sizeof(event->source) + sizeof(event->destination));
    event->source_port = last->source_port;
    event->packet = last->packet;
    event->data = last->data;
    event->sequence = last->sequence;
    event->acknowledgement = last->acknowledgement;
    event->flags = last->flags;
    event->length = last->length;
    event->id = last->id;
    event->ttl = last->ttl;
    event->ifindex = last->ifindex;
    event->linked = 1;
}

/* Whether a packet is wanted, as far as its headers tell. Nothing is done yet that only an event needs. */
static __always_inline bool matches_packet(struct packet_ends *ends, u64 protocol)
{
    if ((protocol && ends->protocol != protocol) ||
        !matches_ends(ends->source, ends->destination, ends->protocol))
        return false;
    if (!HAS_PORTS)
        return true;
    if (!is_transport(ends->protocol) || !ends->transport)
        return false;
    if (!ends->has_ports && peek(&ends->ports, ends->transport, 0))
        return false;
    return PORT_MATCHES(bpf_ntohs(ends->ports[0])) || PORT_MATCHES(bpf_ntohs(ends->ports[1]));
}

/* Who a socket's call is between, or a packet without an IP header. False: it is not wanted. */
static __always_inline bool read_socket(u64 packet, u64 sock, u64 traits, struct path_event *event)
{
    u64 protocol = CONSTANT(VARIANT_PROTOCOL), family = CONSTANT(VARIANT_FAMILY);

    if (!sock || !read_ends(sock, traits, protocol, family, event))
        return false;
    if (traits & PATH_LINKED)
        link(event);
    if (!matches_ends((u64 *)event->source, (u64 *)event->destination, event->protocol) ||
        !(PORT_MATCHES(event->source_port) || PORT_MATCHES(event->destination_port)))
        return false;
    if (packet && traits & PATH_AT_DATA)
        read_sent(packet, event);
    else if (packet)
        read_queued(packet, event);
    return true;
}

/* Where and in whose name. */
static __always_inline u32 read_place(u64 packet, u64 traits, struct path_event *event)
{
    u32 arrived = 0, index;
    u64 device = 0;

    if (packet) {
        peek(&arrived, packet, SKB_ARRIVED_OFFSET);
        event->ifindex = arrived;
    }
    if (traits & PATH_CALL) {
        event->pid = bpf_get_current_pid_tgid() >> 32;
        bpf_get_current_comm(event->name, sizeof(event->name));
    } else if (packet && !(traits & PATH_BY_SOCKET)) {
        peek(&device, packet, SKB_DEV_OFFSET);
        if (device && !peek(&index, device, DEV_INDEX_OFFSET)) {
            event->ifindex = index;
            peek(&event->name, device, DEV_NAME_OFFSET);
        }
    }
    return arrived;
}

/* Takes the time since the stage before. arrived: the interface it came in by, 0: it was made here. */
static __always_inline void take_time(struct path_event *event, u64 traits, u32 arrived,
                                      struct path_counters *counters, u32 place)
{
    struct passage *before = passages.lookup(&event->packet);
    struct path_latency *latency = latencies.lookup(&place);
    struct passage now = {.time = event->time, .content = content_of(event), .stage = event->stage};
    u64 waited;

    if (before && latency && before->time <= now.time && goes_on(before, event, traits, arrived)) {
        waited = now.time - before->time;
        __sync_fetch_and_add(&counters->timed, 1);
        __sync_fetch_and_add(&counters->waited, waited);
        __sync_fetch_and_add(&latency->buckets[log2_of(waited) & (PATH_BUCKETS - 1)], 1);
    }
    now.out = traits & PATH_OUT;
    if (event->event == PATH_DROP)
        passages.delete(&event->packet);
    else if (before)
        *before = now;
    else
        passages.update(&event->packet, &now);
}

static __always_inline void count_drop(struct path_event *event, struct path_counters *counters)
{
    struct path_drop_key key = {.location = event->location, .reason = event->reason, .stage = event->stage};
    u64 one = 1, *count = drops.lookup(&key);

    if (!count && drops.insert(&key, &one)) /* somebody else was faster, or it is full */
        count = drops.lookup(&key);
    else if (!count)
        return;
    if (count)
        __sync_fetch_and_add(count, 1);
    else
        __sync_fetch_and_add(&counters->lost, 1);
}

/* Fills in the stage. False: a hook that several have in common has seen what is for none of them. */
static __always_inline bool find_stage(void *context, u64 sock, u64 traits, struct path_event *event)
{
    u32 place = CONSTANT(VARIANT_STAGE), *stage;
    u16 family = 0;

    event->stage = place;
    if (!(traits & PATH_SHARED))
        return true;
    if (event->protocol != PROTOCOL_TCP && event->protocol != PROTOCOL_UDP)
        return false;
    if (traits & PATH_CONTEXT)
        family = ((struct __sk_buff *)context)->protocol == bpf_htons(ETHERTYPE_IPV6) ? AF_INET6 : AF_INET;
    else
        peek(&family, sock, SOCK_FAMILY_OFFSET);
    place += 2 * (event->protocol == PROTOCOL_UDP) + (family == AF_INET6);
    stage = shared.lookup(&place);
    if (!stage || !*stage)
        return false;
    event->stage = *stage - 1;
    return true;
}

/* Tells of a packet or a call that is wanted, ends: of a packet whose headers were read. */
static __always_inline void tell(void *context, u64 packet, u64 sock, u64 traits, struct packet_ends *ends)
{
    struct path_event event = {};
    struct path_event *last;
    struct path_counters *stage;
    u32 place, arrived, payload;
    int zero = 0;

    if (ends) {
        copy_ends(&event, ends);
        payload = read_transport(&event, ends);
        if (traits & PATH_PAYLOAD && !payload)
            return;
    } else if (!read_socket(packet, sock, traits, &event)) {
        return;
    }
    if (!find_stage(context, sock, traits, &event) || !matches_owner(packet, sock, traits, &event))
        return;
    arrived = read_place(packet, traits, &event);
    event.time = bpf_ktime_get_ns();
    if (packet)
        event.packet = packet;
    event.event = CONSTANT(VARIANT_EVENT);
    event.reason = ARGUMENT(context, HANDED_REASON);
    event.location = ARGUMENT(context, HANDED_LOCATION);
    if (traits & PATH_CALL)
        read_call(sock, ARGUMENT(context, HANDED_LENGTH), traits, &event);
    last = handled.lookup(&zero);
    if (last && packet && !(traits & (PATH_OUT | PATH_ASIDE)))
        *last = event;
    place = bpf_get_smp_processor_id() * PATH_STAGES + event.stage;
    stage = counters.lookup(&place);
    if (!stage)
        return;
    __sync_fetch_and_add(&stage->matched, 1);
    __sync_fetch_and_add(&stage->bytes, event.length);
    if (!EVENTS) {
        if (event.packet && !(traits & PATH_ASIDE))
            take_time(&event, traits, arrived, stage, place);
        if (event.event == PATH_DROP)
            count_drop(&event, stage);
    } else if (!has_token(event.time)) {
        __sync_fetch_and_add(&stage->suppressed, 1);
    } else if (events.ringbuf_output(&event, sizeof(event), 0)) {
        __sync_fetch_and_add(&stage->lost, 1);
    }
}

static __always_inline void handle(void *context)
{
    struct packet_ends ends;
    u64 traits = CONSTANT(VARIANT_TRAITS);
    u64 packet = ARGUMENT(context, HANDED_PACKET), sock = ARGUMENT(context, HANDED_SOCKET);

    if (traits & PATH_CONNECTED) {
        if (!sock)
            sock = TYPED(u64, packet, SKB_SK_OFFSET);
        if (!sock || refuses_connection(sock))
            return;
    }
    if (refuses_packet(context, packet, traits))
        return;
    if (!packet || traits & PATH_BY_SOCKET)
        tell(context, packet, sock, traits, NULL);
    else if (read_ip(packet, traits, CONSTANT(VARIANT_FAMILY), &ends) &&
             matches_packet(&ends, CONSTANT(VARIANT_PROTOCOL)))
        tell(context, packet, sock, traits, &ends);
}

int path(void *context)
{
    handle(context);
    return CONSTANT(VARIANT_RESULT);
}

int bpf_iter__bpf_map_elem(struct bpf_iter__bpf_map_elem *context)
{
    write_name(context);
    return 0;
}
