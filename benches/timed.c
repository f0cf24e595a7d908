// Runs commands one after another and prints what they took together: wall time and processor time in microseconds, peak
// memory of the largest process in KiB. usage: timed COMMAND [ARGUMENT...] [, COMMAND [ARGUMENT...]]...
//
// A small static program, because Linux counts the memory of a process before its execve(2) into its peak: started by
// Python, nothing would seem to take less than Python. Descendants count when they were waited for by their parents or,
// having lost those, by this process, which takes the place of init. Fails when a command fails.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long processor, peak;

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static pid_t reap(int *status, int options) {
    struct rusage usage;
    pid_t pid = wait4(-1, status, options, &usage);
    if (pid <= 0) return pid;
    processor += (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
    if (usage.ru_maxrss > peak) peak = usage.ru_maxrss;
    return pid;
}

static int run(char **command) {
    pid_t child = vfork();
    if (child == 0) {
        execvp(command[0], command);
        _exit(127);
    }
    int status;
    pid_t found;
    while ((found = reap(&status, 0)) != child)
        if (found < 0 && errno != EINTR) return -1;
    return status;
}

int main(int count, char **arguments) {
    int standard_output = fcntl(1, F_DUPFD_CLOEXEC, 3), nothing = open("/dev/null", O_RDWR);
    if (count < 2 || nothing < 0 || dup2(nothing, 0) < 0 || dup2(nothing, 1) < 0) return 2;
    close(nothing);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    long start = now();
    for (char **from = arguments + 1; from < arguments + count;) {
        char **end = from;
        while (*end && strcmp(*end, ",")) end++;
        *end = NULL;
        int status = run(from);
        if (status != 0) {
            dprintf(2, "%s failed: wait status %#x\n", *from, (unsigned)status);
            return 1;
        }
        from = end + 1;
    }
    long wall = now() - start;
    int status;
    while (reap(&status, WNOHANG) > 0) continue;
    dprintf(standard_output, "%ld %ld %ld\n", wall, processor, peak);
    return 0;
}
