/*
 * Which way most packets go. What the others need is then laid out behind it: a packet's way through the programs
 * is short, and the caches keep it while data passes through them.
 *
 * No access to a map within these macros: BCC does not find it there.
 */
#ifndef NETMOND_LIKELY_H
#define NETMOND_LIKELY_H

#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

#endif
