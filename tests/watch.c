/* Preloaded into a command and its children: logs every name that is looked up, every connection and every file or
 * folder that is made or opened for writing, to the file that WATCH_LOG names. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name)                      \
    static __typeof__(&name) real;      \
    if (!real)                          \
    real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void note(const char *kind, const char *what) {
    static int (*real_open)(const char *, int, ...);
    const char *log = getenv("WATCH_LOG");
    char line[2 * PATH_MAX + 64], folder[PATH_MAX] = "";
    int saved = errno, file, length;
    if (!real_open)
        real_open = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    if (log && (file = real_open(log, O_WRONLY | O_APPEND | O_CREAT, 0600)) >= 0) {
        if (!strcmp(kind, "write") && what[0] != '/' && getcwd(folder, sizeof folder - 1))
            strcat(folder, "/");
        length = snprintf(line, sizeof line, "%s %s%s\n", kind, folder, what);
        if (write(file, line, (size_t)length) != length)
            abort();
        close(file);
    }
    errno = saved;
}

int connect(int descriptor, const struct sockaddr *to, socklen_t length) {
    REAL(connect);
    char address[INET6_ADDRSTRLEN] = "a local socket";
    if (to->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)to)->sin_addr, address, sizeof address);
    if (to->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)to)->sin6_addr, address, sizeof address);
    note("connect", address);
    return real(descriptor, to, length);
}

ssize_t sendto(int descriptor, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
    REAL(sendto);
    if (to)
        note("connect", "without a connection");
    return real(descriptor, data, size, flags, to, length);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    REAL(getaddrinfo);
    note("look-up", node ? node : "-");
    return real(node, service, hints, found);
}

#define OPEN(name, ...)                                 \
    {                                                   \
        REAL(name);                                     \
        va_list rest;                                   \
        va_start(rest, flags);                          \
        mode_t mode = va_arg(rest, mode_t);             \
        va_end(rest);                                   \
        if (flags & (O_WRONLY | O_RDWR | O_CREAT))      \
            note("write", path);                        \
        return real(__VA_ARGS__, flags, mode);          \
    }
int open(const char *path, int flags, ...) OPEN(open, path)
int open64(const char *path, int flags, ...) OPEN(open64, path)
int openat(int folder, const char *path, int flags, ...) OPEN(openat, folder, path)
int openat64(int folder, const char *path, int flags, ...) OPEN(openat64, folder, path)

#define FOPEN(name)                       \
    {                                     \
        REAL(name);                       \
        if (strpbrk(mode, "wa+"))         \
            note("write", path);          \
        return real(path, mode);          \
    }
FILE *fopen(const char *path, const char *mode) FOPEN(fopen)
FILE *fopen64(const char *path, const char *mode) FOPEN(fopen64)

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    note("write", path);
    return real(path, mode);
}
