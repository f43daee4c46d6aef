/*
 * Targets: addresses and prefixes of which packets are counted, to them and from them.
 *
 * Uses a map of whoever includes it, `settings`. Compile-time settings: CPUS (possible CPUs), TARGETS (table size).
 */
#ifndef NETMOND_TARGETS_H
#define NETMOND_TARGETS_H

#include "parts.h"

#define CACHED_BITS 10 /* addresses remembered per CPU: 1,024 */
#define CACHED (1 << CACHED_BITS)
#define NO_TARGET 0xffffffffU
#define GOLDEN_RATIO 0x9e3779b97f4a7c15ULL /* of 2^64: multiplying by it spreads keys, the top bits best */

struct cached_target {
    u64 address[2];
    u32 epoch;
    u32 place; /* or NO_TARGET */
};

/* Key: prefix. Value: place in target_counters. The most specific prefix wins. User space writes them. */
BPF_LPM_TRIE(targets4, struct target4_key, u32, TARGETS);
BPF_LPM_TRIE(targets6, struct target6_key, u32, TARGETS);
/* Key: word of a bitmap, IPv4's and then IPv6's. Value: 64 bits; one for each hash of a /24 or a /64 with a
 * target in it, all of them if a target is wider. Most addresses need no further look. User space writes it.
 * One map, since a look-up in either of two is not inlined (12 ns). */
BPF_F_TABLE("array", u32, u64, target_filter, 2 * FILTER_WORDS, BPF_F_MMAPABLE);
/* Key: CPU * CACHED + hash of an address. Value: what the tries said of it. A trie of 1,000 targets costs
 * 60 ns a look-up, this 5; traffic returns to the same addresses. SETTING_EPOCH empties it. */
BPF_TABLE("array", u32, struct cached_target, target_cache, CPUS * CACHED);
/* Key: CPU * TARGETS + place. Value: counters of a target. User space maps it. */
BPF_F_TABLE("array", u32, struct target_counters, target_counters, CPUS * TARGETS, BPF_F_MMAPABLE);

/* False: certainly no target. */
static __always_inline bool may_be_target(u64 address[2], bool ipv4)
{
    u64 key = ipv4 ? bpf_ntohl(address[1] >> 32) >> 8 : address[0];
    u32 hash = (key * GOLDEN_RATIO) >> (64 - FILTER_BITS);
    u32 word = hash / 64 + (ipv4 ? 0 : FILTER_WORDS);
    u64 *bits = target_filter.lookup(&word);

    return bits && *bits >> (hash % 64) & 1;
}

static __always_inline u32 search_target(u64 address[2], bool ipv4)
{
    struct target4_key key4;
    struct target6_key key6;
    u32 *place;

    if (ipv4) {
        key4.prefix_length = 32;
        *(u32 *)key4.address = address[1] >> 32;
        place = targets4.lookup(&key4);
    } else {
        key6.prefix_length = 128;
        __builtin_memcpy(key6.address, address, sizeof(key6.address));
        place = targets6.lookup(&key6);
    }
    return place ? *place : NO_TARGET;
}

/* The counters of the target an address belongs to; NULL: none. */
static __always_inline struct target_counters *find_target(u64 address[2], bool ipv4, u32 cpu, u32 epoch)
{
    u32 index = ((address[0] ^ address[1]) * GOLDEN_RATIO) >> (64 - CACHED_BITS);
    struct cached_target *cached;
    u32 place;

    if (!may_be_target(address, ipv4))
        return NULL;
    index += cpu * CACHED;
    cached = target_cache.lookup(&index);
    if (!cached)
        return NULL;
    if (cached->epoch != epoch || cached->address[1] != address[1] || cached->address[0] != address[0]) {
        cached->place = search_target(address, ipv4);
        cached->address[0] = address[0];
        cached->address[1] = address[1];
        cached->epoch = epoch;
    }
    place = cached->place;
    if (place == NO_TARGET)
        return NULL;
    index = cpu * TARGETS + place;
    return target_counters.lookup(&index);
}

static __always_inline void count_targets(struct frame *frame, u32 cpu)
{
    bool ipv4 = frame->class == CLASS_IPV4;
    u32 setting = ipv4 ? SETTING_TARGETS4 : SETTING_TARGETS6;
    struct target_counters *counters;
    u64 *count = settings.lookup(&setting);

    if (!count || !*count)
        return;
    counters = find_target(frame->packet.destination, ipv4, cpu, frame->epoch);
    if (counters) {
        counters->in_packets += frame->wire_packets;
        counters->in_bytes += frame->ip_bytes;
    }
    counters = find_target(frame->packet.source, ipv4, cpu, frame->epoch);
    if (counters) {
        counters->out_packets += frame->wire_packets;
        counters->out_bytes += frame->ip_bytes;
    }
}

#endif
