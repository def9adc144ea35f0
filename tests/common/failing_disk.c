/* Loaded into a node by its dynamic linker. While the file named by FAILING_DISK exists, the disk fails as one does that
 * has lost a sector: syncs end with EIO. What the file holds is a part of the names of the files that are concerned. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    const char *flag = getenv("FAILING_DISK");
    char wanted[256] = "", link[64], name[4096];
    int file = flag ? open(flag, O_RDONLY) : -1;
    if (file < 0)
        return 0;
    ssize_t len = read(file, wanted, sizeof wanted - 1);
    close(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t end = readlink(link, name, sizeof name - 1);
    if (len <= 0 || end < 0)
        return 0;
    name[end] = 0;
    return strstr(name, wanted) != NULL;
}

#define FAILING(call)                                                                                                  \
    int call(int fd) {                                                                                                 \
        static int (*real)(int);                                                                                       \
        if (!real)                                                                                                     \
            real = (int (*)(int))dlsym(RTLD_NEXT, #call);                                                              \
        if (fails(fd)) {                                                                                               \
            errno = EIO;                                                                                               \
            return -1;                                                                                                 \
        }                                                                                                              \
        return real(fd);                                                                                               \
    }

FAILING(fdatasync)
FAILING(fsync)
