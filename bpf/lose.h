/*
 * Counts what was lost, in a map of whoever includes it: `losses`, an array of u64 by LOST_*.
 */
#ifndef NETMOND_LOSE_H
#define NETMOND_LOSE_H

static __always_inline void lose(u32 reason)
{
    u64 *count = losses.lookup(&reason);

    if (count)
        __sync_fetch_and_add(count, 1);
}

#endif
