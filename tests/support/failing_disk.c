/* A disk that fails: loaded before the C library, it lets the k-th operation on files under a folder fail.
 *
 * Python, and libraries in other languages, call these functions; so each of them meets the fault. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READS = 1, WRITES = 2, NAMES = 4, CREATES = 8 };

static char folder[PATH_MAX];
static int folder_length, fault, kinds, lasting;
static long fail_at;
static atomic_long done, seen[16];
static char failed[PATH_MAX + 64];

/* Fail operation number `at` (from 1; 0: none) of these kinds with an error number, and all later ones if `last`. */
void disk_arm(const char *under, long at, int error, int which, int last)
{
    folder_length = (int)strlen(under);
    memcpy(folder, under, folder_length + 1);
    fault = error, kinds = which, lasting = last, fail_at = at;
    failed[0] = 0;
    atomic_store(&done, 0);
    for (int kind = 0; kind < 16; kind++)
        atomic_store(&seen[kind], 0);
}

void disk_disarm(void) { folder_length = 0; }
long disk_count(int kind) { return atomic_load(&seen[kind]); }
const char *disk_failed(void) { return failed; }

static int fails(int kind, const char *name, const char *path)
{
    if (!folder_length || strncmp(path, folder, folder_length))
        return 0;
    atomic_fetch_add(&seen[kind], 1);
    if (!(kind & kinds))
        return 0;
    long number = atomic_fetch_add(&done, 1) + 1;
    if (!fail_at || number < fail_at || (number > fail_at && !lasting))
        return 0;
    if (!failed[0])
        snprintf(failed, sizeof failed, "%s %s", name, path);
    errno = fault;
    return 1;
}

static const char *absolute(int at, const char *path, char *buffer)
{
    char link[64];
    if (path[0] == '/')
        return path;
    if (at == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    if (length < 0)
        return path;
    snprintf(buffer + length, PATH_MAX - length, "/%s", path);
    return buffer;
}

static int path_fails(int kind, const char *name, int at, const char *path)
{
    char buffer[PATH_MAX];
    return folder_length && fails(kind, name, absolute(at, path, buffer));
}

static int file_fails(int kind, const char *name, int file)
{
    char link[64], path[PATH_MAX];
    if (!folder_length)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(kind, name, path);
}

#define NEXT(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

static int kind_of(int flags)
{
    return flags & O_CREAT ? CREATES : READS;
}

#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...)                                      \
    {                                                                               \
        va_list rest;                                                               \
        va_start(rest, flags);                                                      \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;   \
        va_end(rest);                                                               \
        if (path_fails(kind_of(flags), "open", AT_FDCWD, path))                     \
            return -1;                                                              \
        return NEXT(name)(path, flags, mode);                                       \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                \
    int name(int at, const char *path, int flags, ...)                              \
    {                                                                               \
        va_list rest;                                                               \
        va_start(rest, flags);                                                      \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;   \
        va_end(rest);                                                               \
        if (path_fails(kind_of(flags), "openat", at, path))                         \
            return -1;                                                              \
        return NEXT(name)(at, path, flags, mode);                                   \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                                 \
    FILE *name(const char *path, const char *mode)                                  \
    {                                                                               \
        if (path_fails(mode[0] == 'r' ? READS : CREATES, "fopen", AT_FDCWD, path))  \
            return NULL;                                                            \
        return NEXT(name)(path, mode);                                              \
    }
FOPEN(fopen)
FOPEN(fopen64)

#define ON_FILE(kind, type, name, parameters, file, ...)                            \
    type name parameters                                                            \
    {                                                                               \
        if (file_fails(kind, #name, file))                                          \
            return -1;                                                              \
        return NEXT(name)(__VA_ARGS__);                                             \
    }
ON_FILE(READS, ssize_t, read, (int f, void *b, size_t n), f, f, b, n)
ON_FILE(READS, ssize_t, pread, (int f, void *b, size_t n, off_t o), f, f, b, n, o)
ON_FILE(READS, ssize_t, pread64, (int f, void *b, size_t n, off64_t o), f, f, b, n, o)
ON_FILE(WRITES, ssize_t, write, (int f, const void *b, size_t n), f, f, b, n)
ON_FILE(WRITES, ssize_t, pwrite, (int f, const void *b, size_t n, off_t o), f, f, b, n, o)
ON_FILE(WRITES, ssize_t, pwrite64, (int f, const void *b, size_t n, off64_t o), f, f, b, n, o)
ON_FILE(WRITES, ssize_t, writev, (int f, const struct iovec *v, int n), f, f, v, n)
ON_FILE(WRITES, int, fsync, (int f), f, f)
ON_FILE(WRITES, int, fdatasync, (int f), f, f)
ON_FILE(WRITES, int, ftruncate, (int f, off_t n), f, f, n)
ON_FILE(WRITES, int, ftruncate64, (int f, off64_t n), f, f, n)

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *stream)
{
    if (folder_length && file_fails(WRITES, "fwrite", fileno(stream)))
        return 0;
    return NEXT(fwrite)(bytes, size, count, stream);
}

#define ON_PATH(kind, name, parameters, at, path, ...)                              \
    int name parameters                                                             \
    {                                                                               \
        if (path_fails(kind, #name, at, path))                                      \
            return -1;                                                              \
        return NEXT(name)(__VA_ARGS__);                                             \
    }
ON_PATH(CREATES, rename, (const char *a, const char *b), AT_FDCWD, b, a, b)
ON_PATH(CREATES, renameat, (int d, const char *a, int e, const char *b), e, b, d, a, e, b)
ON_PATH(CREATES, link, (const char *a, const char *b), AT_FDCWD, b, a, b)
ON_PATH(CREATES, linkat, (int d, const char *a, int e, const char *b, int f), e, b, d, a, e, b, f)
ON_PATH(CREATES, mkdir, (const char *p, mode_t m), AT_FDCWD, p, p, m)
ON_PATH(CREATES, mkdirat, (int d, const char *p, mode_t m), d, p, d, p, m)
ON_PATH(NAMES, unlink, (const char *p), AT_FDCWD, p, p)
ON_PATH(NAMES, unlinkat, (int d, const char *p, int f), d, p, d, p, f)
ON_PATH(NAMES, rmdir, (const char *p), AT_FDCWD, p, p)
