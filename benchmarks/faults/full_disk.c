/* Loaded before the C library, makes the folder FAULTS_DISK a disk of its own: where the file FAULTS_SIZE holds a number,
   what lies below the folder can be so many bytes in all, and what is written beyond that fails with ENOSPC. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static long long used;

static int add(const char *path, const struct stat *status, int kind, struct FTW *place) {
    (void)path, (void)place;
    if (kind == FTW_F) used += status->st_size;
    return 0;
}

/* How many bytes of `count` at `offset` (-1: where the file stands) can be written; all where the file is elsewhere. */
static size_t room(int fd, size_t count, off_t offset) {
    const char *disk = getenv("FAULTS_DISK"), *size_file = getenv("FAULTS_SIZE");
    char link[64], path[4096], text[32];
    if (!disk || !size_file) return count;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return count;
    path[length] = 0;
    size_t disk_length = strlen(disk);
    if (strncmp(path, disk, disk_length) || path[disk_length] != '/') return count;
    FILE *file = fopen(size_file, "r");
    if (!file) return count;
    char *read = fgets(text, sizeof text, file);
    fclose(file);
    if (!read) return count;
    struct stat status;
    if (fstat(fd, &status) || !S_ISREG(status.st_mode)) return count;
    used = 0;
    nftw(disk, add, 16, FTW_PHYS);
    if (offset < 0) offset = lseek(fd, 0, SEEK_CUR);
    long long left = atoll(text) - used, inside = status.st_size > offset ? status.st_size - offset : 0;
    if (left < 0) left = 0;
    return (long long)count <= inside + left ? count : (size_t)(inside + left);
}

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FULL(wanted, allowed) if ((wanted) && !(allowed)) { errno = ENOSPC; return -1; }

ssize_t write(int fd, const void *bytes, size_t count) {
    NEXT(write);
    size_t allowed = room(fd, count, -1);
    FULL(count, allowed);
    return next(fd, bytes, allowed);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    NEXT(pwrite);
    size_t allowed = room(fd, count, offset);
    FULL(count, allowed);
    return next(fd, bytes, allowed, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t offset) { return pwrite(fd, bytes, count, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT(writev);
    size_t whole = 0;
    for (int part = 0; part < count; part++) whole += parts[part].iov_len;
    size_t allowed = room(fd, whole, -1);
    if (allowed == whole) return next(fd, parts, count);
    FULL(whole, allowed);
    for (int part = 0; part < count; part++)
        if (parts[part].iov_len) return write(fd, parts[part].iov_base, parts[part].iov_len);
    return 0;
}

ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
    NEXT(sendfile);
    size_t allowed = room(out, count, -1);
    FULL(count, allowed);
    return next(out, in, offset, allowed);
}

ssize_t sendfile64(int out, int in, off_t *offset, size_t count) { return sendfile(out, in, offset, count); }

int posix_fallocate(int fd, off_t offset, off_t length) {
    NEXT(posix_fallocate);
    return room(fd, length, offset) < (size_t)length ? ENOSPC : next(fd, offset, length);
}
