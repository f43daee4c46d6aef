/* The time of day that costs least: a helper of Linux 5.11 where there is one (COARSE_CLOCK). */
#ifndef NETMOND_CLOCK_H
#define NETMOND_CLOCK_H

#ifdef COARSE_CLOCK
#define now() bpf_ktime_get_coarse_ns()
#else
#define now() bpf_ktime_get_ns()
#endif

#endif
