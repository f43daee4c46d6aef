/*
 * Writes rows like those of netmond's CSV files with one fprintf() a row, which is what a program does that
 * logs each flow as it comes.
 *
 * Usage: rows FILE ROWS. Each line of input is answered with the ns that so many rows took.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long long nanoseconds(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void write_row(FILE *file, unsigned number, unsigned long long *total)
{
    struct in_addr here = {htonl(0x0a000000 | (number & 255))}, there = {htonl(0x0a000000 | number)};
    char from[INET_ADDRSTRLEN], to[INET_ADDRSTRLEN];
    struct timespec now;

    inet_ntop(AF_INET, &there, from, sizeof(from));
    inet_ntop(AF_INET, &here, to, sizeof(to));
    clock_gettime(CLOCK_REALTIME, &now);
    *total += number;
    fprintf(file, "in,%u,%s,%s,%lld.%09ld,%llu,%llu,%u,%u,%u,%s,%s,%u,%s\n", number, from, to,
            (long long)now.tv_sec, now.tv_nsec, *total, *total, number % 1000, 443, 1024 + number % 60000,
            "tcp", "unit7.service", 2 + number % 2003, "worker");
}

int main(int argc, char **argv)
{
    unsigned long long total = 0;
    long long began;
    unsigned row, rows;
    char line[64];
    FILE *file;

    if (argc != 3)
        return 2;
    rows = strtoul(argv[2], NULL, 10);
    while (fgets(line, sizeof(line), stdin)) {
        file = fopen(argv[1], "a");
        if (!file)
            return 1;
        began = nanoseconds();
        for (row = 0; row < rows; row++)
            write_row(file, row, &total);
        fclose(file);
        printf("%lld\n", nanoseconds() - began);
        fflush(stdout);
    }
    return 0;
}
