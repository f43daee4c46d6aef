/*
 * Sends Ethernet frames through a packet socket (packet(7)) as fast as it can, or not faster than wanted.
 *
 * Usage: flood DEVICE SIZE. The frames are UDP over IPv4, SIZE bytes with all headers, for nobody's address: the
 * stack of the receiver looks at them and drops them. Each line of input, COUNT FRAMES-A-SECOND (0: as fast as it
 * goes), is answered with a line, COUNT and the seconds it took. It stays on the first CPU.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 32
#define HEADERS 42 /* Ethernet, IPv4, UDP */

static unsigned char frame[65536] = {
    2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0, /* Ethernet */
    0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 23, 0, 8, 10, 23, 0, 9, /* IPv4 */
    0, 7, 0, 7, 0, 0, 0, 0, /* UDP */
};

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void set16(int at, int value)
{
    frame[at] = value >> 8;
    frame[at + 1] = value;
}

int main(int argc, char **argv)
{
    struct mmsghdr messages[BATCH] = {};
    struct sockaddr_ll address = {.sll_family = AF_PACKET};
    struct iovec piece = {.iov_base = frame};
    long count, rate, sent;
    double begin;
    cpu_set_t first;
    int link, done;

    if (argc != 3)
        return 2;
    link = socket(AF_PACKET, SOCK_RAW, 0);
    address.sll_ifindex = if_nametoindex(argv[1]);
    piece.iov_len = atoi(argv[2]);
    if (link < 0 || bind(link, (void *)&address, sizeof(address)) || piece.iov_len < HEADERS ||
        piece.iov_len > sizeof(frame)) {
        perror(argv[1]);
        return 1;
    }
    set16(16, piece.iov_len - 14);
    set16(38, piece.iov_len - 34);
    for (int i = 0; i < BATCH; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &piece, .msg_iovlen = 1};
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof(first), &first);
    while (scanf("%ld %ld", &count, &rate) == 2) {
        begin = now();
        for (sent = 0; sent < count; sent += done) {
            while (rate && sent > rate * (now() - begin))
                ;
            done = sendmmsg(link, messages, count - sent < BATCH ? count - sent : BATCH, 0);
            if (done < 0) {
                perror("sendmmsg");
                return 1;
            }
        }
        printf("%ld %.9f\n", sent, now() - begin);
        fflush(stdout);
    }
    return 0;
}
