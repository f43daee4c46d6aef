/*
 * Writes a row for each logged packet as a program does that handles them one by one: inet_ntop() for both
 * addresses, fprintf() for the row. The rows are those that netmond's packet mode writes, byte for byte.
 *
 * Usage: packets RECORDS FILE OFFSET OWNER; RECORDS holds struct logged_packet, OFFSET is wall clock minus monotonic
 * clock in ns, OWNER the last three columns. Each line of input, "buffered" or "flushed", is answered with the ns of
 * CPU time that all rows took; flushed: each row is in the file before the next is made, so that one can follow it.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

struct packet {
    uint64_t time;
    uint8_t source[16];
    uint8_t destination[16];
    uint32_t bytes, uid, slot, generation;
    uint16_t source_port, destination_port, packets;
    uint8_t protocol, direction;
};

static long long nanoseconds(void)
{
    struct timespec time;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void write_address(const uint8_t *address, char *text)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

    if (memcmp(address, mapped, sizeof(mapped)))
        inet_ntop(AF_INET6, address, text, INET6_ADDRSTRLEN);
    else
        inet_ntop(AF_INET, address + 12, text, INET6_ADDRSTRLEN);
}

static void write_row(FILE *file, const struct packet *packet, long long offset, unsigned long long *totals,
                      const char *owner)
{
    char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN];
    unsigned long long time = packet->time + offset;

    write_address(packet->source, source);
    write_address(packet->destination, destination);
    totals[packet->direction] += packet->bytes;
    fprintf(file, "%s,%u,%s,%s,%llu.%09llu,%llu,%llu,%u,%u,%u,%s,%s\n", packet->direction ? "out" : "in",
            packet->bytes, source, destination, time / 1000000000, time % 1000000000, totals[0], totals[1],
            packet->packets, packet->source_port, packet->destination_port,
            packet->protocol == 6 ? "tcp" : "udp", owner);
}

int main(int argc, char **argv)
{
    unsigned long long totals[2] = {0, 0};
    const struct packet *packets;
    long long began, offset;
    size_t count, number;
    struct stat info;
    char line[64];
    FILE *file;
    int flushed, records;

    if (argc != 5 || (records = open(argv[1], O_RDONLY)) < 0 || fstat(records, &info))
        return 2;
    count = info.st_size / sizeof(*packets);
    packets = mmap(NULL, info.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, records, 0);
    if (packets == MAP_FAILED)
        return 2;
    offset = strtoll(argv[3], NULL, 10);
    while (fgets(line, sizeof(line), stdin)) {
        flushed = !strcmp(line, "flushed\n");
        file = fopen(argv[2], "w");
        if (!file)
            return 1;
        memset(totals, 0, sizeof(totals));
        began = nanoseconds();
        for (number = 0; number < count; number++) {
            write_row(file, &packets[number], offset, totals, argv[4]);
            if (flushed)
                fflush(file);
        }
        fclose(file);
        printf("%lld\n", nanoseconds() - began);
        fflush(stdout);
    }
    return 0;
}
