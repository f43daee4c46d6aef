/*
 * Which packet it is that was seen at an earlier stage. It is known by the address of its struct sk_buff,
 * which the kernel uses again.
 */
#ifndef NETMOND_PASSAGES_H
#define NETMOND_PASSAGES_H

#include "types.h"

/* A packet at its last stage. */
struct passage {
    u64 time;
    u32 content; /* tells packets apart that have the same address one after the other */
    u16 stage;
    u16 out;     /* whether it was on its way out */
};

/* The position of the highest bit that is set, of 0: 0. */
static __always_inline u32 log2_of(u64 value)
{
    u32 power = 0, step;

#pragma unroll
    for (step = 32; step; step /= 2) {
        if (value >> step) {
            value >>= step;
            power += step;
        }
    }
    return power;
}

static __always_inline u32 content_of(struct path_event *event)
{
    return event->sequence ^ event->length ^ (u32)event->id << 16 ^ (u32)event->source_port << 16 ^
           event->destination_port;
}

/*
 * Whether the packet at hand is the one that was seen at this address: stages are numbered along the way, first
 * those out, then those in. A packet that was forwarded has come in; one that comes in and was on its way out is
 * at the other end of a cable of this machine (veth, lo), if nothing in it has changed.
 */
static __always_inline bool goes_on(struct passage *before, struct path_event *event, u64 traits, u32 arrived)
{
    if (!before->out && traits & PATH_OUT)
        return arrived;
    if (event->stage <= before->stage)
        return false;
    return !before->out || traits & PATH_OUT || before->content == content_of(event);
}

#endif
