// What the kernel takes for one container: the calls of a container's start, end and removal in their shortest form, with
// the tables of bundle.h (written by the example `bundle` of oci) instead of JSON, no state files, no checks of paths.
// Never a runtime: it trusts the root file system.
//
// usage: floor ROOTFS GROUP V2-MOUNT|- LABEL:V1-MOUNT... -- PROGRAM [ARGUMENT...]
//
// The child is born in the v2 group and joins the v1 ones by itself: a thread that writes 0 to `tasks` waits for nobody,
// whereas who moves another process waits for a grace period of RCU after a rest of the host. On v2 alone there is no
// device filter, which makes this floor lower still.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

struct device_rule { int allow; const char *rule; };
struct limit { const char *file, *value; };
struct mount { const char *target, *type; unsigned long flags; const char *data; };
#include "bundle.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define MUST(call) do { if ((long)(call) < 0) { perror(#call); _exit(125); } } while (0)

static const char *rootfs, *group, *v2;
static struct { const char *label, *mount; char path[256]; int tasks; } v1[16];
static size_t v1_count;
static char v2_path[256];

static void put(const char *folder, const char *file, const char *value) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, strlen(value)) < 0) { perror(path); exit(125); }
    close(fd);
}

// The group in the hierarchy with the controller that a file belongs to.
static const char *place(const char *file) {
    size_t length = strcspn(file, ".");
    for (size_t i = 0; i < v1_count; i++)
        for (const char *at = v1[i].label; *at; at += strcspn(at, ","), at += *at == ',')
            if (strcspn(at, ",") == length && !strncmp(at, file, length)) return v1[i].path;
    return NULL;
}

static void make_groups(void) {
    for (size_t i = 0; i < v1_count; i++) {
        snprintf(v1[i].path, sizeof v1[i].path, "%s%s", v1[i].mount, group);
        MUST(mkdir(v1[i].path, 0755));
        char tasks[300];
        snprintf(tasks, sizeof tasks, "%s/tasks", v1[i].path);
        MUST(v1[i].tasks = open(tasks, O_WRONLY | O_CLOEXEC));
    }
    if (v2) {
        snprintf(v2_path, sizeof v2_path, "%s%s", v2, group);
        MUST(mkdir(v2_path, 0755));
    }
    const char *devices = place("devices.");
    for (size_t i = 0; devices && i < COUNT(device_rules); i++)
        put(devices, device_rules[i].allow ? "devices.allow" : "devices.deny", device_rules[i].rule);
    const struct limit *limits = v1_count ? limits_v1 : limits_v2;
    for (size_t i = 0; i < (v1_count ? COUNT(limits_v1) : COUNT(limits_v2)); i++)
        put(v1_count ? place(limits[i].file) : v2_path, limits[i].file, limits[i].value);
}

static void make_devices(void) {
    static const struct { const char *path; int major, minor; } nodes[] = {
        {"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7}, {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};
    static const char *const links[][2] = {{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"},
        {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"}, {"pts/ptmx", "dev/ptmx"}};
    for (size_t i = 0; i < COUNT(nodes); i++) MUST(mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
    for (size_t i = 0; i < COUNT(links); i++) MUST(symlink(links[i][0], links[i][1]));
}

static void mount_groups(void) {
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (!v1_count) {
        MUST(mount("cgroup2", "sys/fs/cgroup", "cgroup2", flags | MS_RDONLY, NULL));
        return;
    }
    MUST(mount("tmpfs", "sys/fs/cgroup", "tmpfs", flags, "mode=755"));
    for (size_t i = 0; i < v1_count; i++) {
        const char *label = v1[i].label;
        char target[300];
        snprintf(target, sizeof target, "sys/fs/cgroup/%s", strncmp(label, "name=", 5) ? label : label + 5);
        MUST(mkdir(target, 0755));
        MUST(mount("cgroup", target, "cgroup", flags | MS_RDONLY, label));
    }
    if (v2) {
        MUST(mkdir("sys/fs/cgroup/unified", 0755));
        MUST(mount("cgroup2", "sys/fs/cgroup/unified", "cgroup2", flags | MS_RDONLY, NULL));
    }
    MUST(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL));
}

static void hide(void) {
    for (size_t i = 0; i < COUNT(read_only_paths); i++) {
        const char *path = read_only_paths[i] + 1;
        if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0 && errno == ENOENT) continue;
        MUST(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    }
    for (size_t i = 0; i < COUNT(masked_paths); i++) {
        const char *path = masked_paths[i] + 1;
        struct stat status;
        if (stat(path, &status) < 0) continue;
        if (S_ISDIR(status.st_mode)) MUST(mount("tmpfs", path, "tmpfs", MS_RDONLY, NULL));
        else MUST(mount("dev/null", path, NULL, MS_BIND, NULL));
    }
}

static void bring_up_loopback(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    MUST(ioctl(fd, SIOCSIFFLAGS, &request));
    close(fd);
}

static void drop_privileges(void) {
    for (int i = 0; prctl(PR_CAPBSET_READ, i) >= 0; i++)
        if (!(capabilities >> i & 1)) MUST(prctl(PR_CAPBSET_DROP, i));
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{capabilities, capabilities, 0}, {capabilities >> 32, capabilities >> 32, 0}};
    MUST(syscall(SYS_capset, &header, sets));
    struct sock_fprog program = {COUNT(filter), filter};
    MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, filter_flags, &program));
}

static void child(char **command) {
    char *environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", NULL};
    MUST(setsid());
    MUST(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
    MUST(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL));
    MUST(chdir(rootfs));
    MUST(sethostname("bench", 5));
    for (size_t i = 0; i < COUNT(mounts); i++) {
        mkdir(mounts[i].target + 1, 0755);
        MUST(mount(mounts[i].type, mounts[i].target + 1, mounts[i].type, mounts[i].flags, mounts[i].data));
    }
    make_devices();
    bring_up_loopback();
    for (size_t i = 0; i < v1_count; i++) MUST(write(v1[i].tasks, "0", 1));
    MUST(unshare(CLONE_NEWCGROUP));
    mount_groups();
    hide();
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));
    drop_privileges();
    execve(command[0], command, environment);
    perror(command[0]);
    _exit(127);
}

int main(int count, char **arguments) {
    if (count < 6) return 2;
    rootfs = arguments[1], group = arguments[2], v2 = strcmp(arguments[3], "-") ? arguments[3] : NULL;
    char **command = arguments + 4;
    for (; *command && strcmp(*command, "--"); command++) {
        v1[v1_count].label = *command, v1[v1_count].mount = strchr(*command, ':') + 1;
        *strchr(*command, ':') = 0;
        if (++v1_count == COUNT(v1)) return 2;
    }
    make_groups();
    int status, v2_directory = v2 ? open(v2_path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    struct clone_args clone = {
        .flags = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | (v2 ? CLONE_INTO_CGROUP : 0),
        .exit_signal = SIGCHLD,
        .cgroup = v2 ? v2_directory : 0,
    };
    pid_t pid = syscall(SYS_clone3, &clone, sizeof clone);
    MUST(pid);
    if (pid == 0) child(command + 1);
    MUST(waitpid(pid, &status, 0));
    for (size_t i = 0; i < v1_count; i++) MUST(rmdir(v1[i].path));
    if (v2) MUST(rmdir(v2_path));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
