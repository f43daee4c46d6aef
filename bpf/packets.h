/*
 * The packet log: a row for each packet of the users it is wanted of, for user space to read as a stream.
 *
 * Compile-time settings: PACKET_LOG, if kernel and BCC take it; LOGGED_USERS (table size).
 */
#ifndef NETMOND_PACKETS_H
#define NETMOND_PACKETS_H

#include "measure.h"

#ifdef PACKET_LOG
/* Of the kind of those that packet_rings holds, and nothing else. */
#define PAGE_SIZE 65536 /* a size for any architecture: whole pages, a power of two */
BPF_RINGBUF_OUTPUT(packet_ring, 1);
/* The one element: a ring of struct logged_packet that user space reads. None: no packets are logged. */
BPF_TABLE("array_of_maps$packet_ring", u32, u32, packet_rings, 1);
/* Key: a user whose packets are logged, EVERYONE: all who are not here. Value: N, for one packet in N; 0: none
 * at all. User space writes it. */
BPF_F_TABLE("hash", u32, u32, logged_users, LOGGED_USERS, BPF_F_NO_PREALLOC);
/* Key: user, EVERYONE: those who found no room here. Value: what of their packets is not in the ring. */
BPF_F_TABLE("hash", u32, struct unlogged, unlogged, LOGGED_USERS, BPF_F_NO_PREALLOC);

static __always_inline void add_gap(struct gap *gap, struct size *size, bool in)
{
    __sync_fetch_and_add(in ? &gap->in_packets : &gap->out_packets, size->packets >> 32);
    __sync_fetch_and_add(in ? &gap->in_bytes : &gap->out_bytes, size->bytes + size->surplus);
}

/* One in N of a logged user's packets gets a row. By chance: counting would see one side only of a
 * conversation that goes to and fro (RFC 5475 5.2). */
static __always_inline bool is_drawn(u32 every)
{
    return every == 1 || bpf_get_prandom_u32() % every == 0;
}

/* Fills a row and lets user space see it. Of a damaged packet only what was parsed is told. */
static __always_inline void write_row(struct logged_packet *row, u32 uid, u64 ticket, struct packet *packet,
                                      struct size *size, bool in)
{
    u64 *source = (u64 *)row->source;
    u64 *destination = (u64 *)row->destination;

    row->time = bpf_ktime_get_ns();
    source[0] = packet->source[0];
    source[1] = packet->source[1];
    destination[0] = packet->destination[0];
    destination[1] = packet->destination[1];
    row->source_port = packet->source_port;
    row->destination_port = packet->destination_port;
    row->protocol = packet->protocol;
    row->direction = in ? PACKET_IN : PACKET_OUT;
    row->bytes = size->bytes + size->surplus;
    row->packets = size->packets >> 32;
    row->uid = uid;
    row->slot = ticket;
    row->generation = ticket >> 32;
    bpf_ringbuf_submit(row, 0);
}
#endif

#endif
