/* models/safetensors_write.c - writes a *.safetensors file so that a crash or a full disk
 * leaves the old file or the new one, never a part.
 *
 * Thread: any; blocking. Memory: freed before return; the temporary file is removed on error.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/str.h"
#include "core/codec/json.h"
#include "models/safetensors.h"

enum { HEADER_MAX_BYTES = 100000000, ALIGNMENT_BYTES = 8, WRITE_MAX_BYTES = 1 << 26 };

static void write_entry(opd_json_writer *w, const opd_tensor *tensor, size_t begin) {
    opd_json_write_key(w, tensor->name);
    opd_json_write_object_begin(w);
    opd_json_write_key(w, "dtype");
    opd_json_write_text(w, "F32");
    opd_json_write_key(w, "shape");
    opd_json_write_array_begin(w);
    for (int32_t i = 0; i < tensor->rank; i++) opd_json_write_int64(w, (int64_t)tensor->shape[i]);
    opd_json_write_array_end(w);
    opd_json_write_key(w, "data_offsets");
    opd_json_write_array_begin(w);
    opd_json_write_int64(w, (int64_t)begin);
    opd_json_write_int64(w, (int64_t)(begin + tensor->count * sizeof(float)));
    opd_json_write_array_end(w);
    opd_json_write_object_end(w);
}

/* The header's size and text, padded with spaces so that the data are aligned. */
static void write_header(opd_str *out, const opd_tensor *tensors, size_t count) {
    opd_json_writer w;
    unsigned char size_bytes[8] = {0};
    size_t begin = 0;
    opd_str_append(out, size_bytes, sizeof size_bytes);
    opd_json_writer_init(&w, out, 0);
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "__metadata__");
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "format");
    opd_json_write_text(&w, "pt");
    opd_json_write_object_end(&w);
    for (size_t i = 0; i < count; i++) {
        write_entry(&w, &tensors[i], begin);
        begin += tensors[i].count * sizeof(float);
    }
    opd_json_write_object_end(&w);
    while (out->err == OPD_OK && out->size % ALIGNMENT_BYTES != 0) opd_str_append(out, " ", 1);
    if (out->err != OPD_OK) return;
    size_t header = out->size - sizeof size_bytes;
    for (size_t i = 0; i < sizeof size_bytes; i++) out->data[i] = (char)(header >> 8 * i & 0xFF);
}

static opd_err fail_write(const char *path) {
    int code = errno;
    if (code == ENOSPC || code == EDQUOT || code == EFBIG)
        return opd_fail(OPD_ERR_DISK, "%s: %s; free space there or write elsewhere (nothing was replaced)",
                        path, strerror(code));
    return opd_fail(OPD_ERR_IO, "%s: %s", path, strerror(code));
}

static opd_err write_all(int fd, const char *path, const void *data, size_t size_bytes) {
    const char *at = data;
    while (size_bytes > 0) {
        ssize_t n = write(fd, at, size_bytes < WRITE_MAX_BYTES ? size_bytes : WRITE_MAX_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_write(path);
        at += n;
        size_bytes -= (size_t)n;
    }
    return OPD_OK;
}

static opd_err write_parts(int fd, const char *path, const opd_str *header,
                           const opd_tensor *tensors, size_t count, const float *params) {
    OPD_TRY(write_all(fd, path, header->data, header->size));
    for (size_t i = 0; i < count; i++)
        OPD_TRY(write_all(fd, path, params + tensors[i].offset, tensors[i].count * sizeof(float)));
    return fsync(fd) == 0 ? OPD_OK : fail_write(path);
}

/* Makes the renamed name itself durable; a file system that cannot is no error. */
static void sync_parent(const char *path) {
    char dir[OPD_PATH_SIZE];
    const char *slash = strrchr(path, '/');
    size_t size = slash != NULL ? (size_t)(slash - path) + 1 : 0;
    memcpy(dir, path, size);
    memcpy(dir + size, ".", 2);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    (void)fsync(fd);
    (void)close(fd);
}

static opd_err write_file(const char *path, const opd_str *header, const opd_tensor *tensors,
                          size_t count, const float *params) {
    char temporary[OPD_PATH_SIZE];
    int size = snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
    if (size < 0 || (size_t)size >= sizeof temporary)
        return opd_fail(OPD_ERR_LIMIT, "%s: the path is too long", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return fail_write(temporary);
    opd_err err = write_parts(fd, path, header, tensors, count, params);
    if (close(fd) != 0 && err == OPD_OK) err = fail_write(path);
    if (err == OPD_OK && rename(temporary, path) != 0) err = fail_write(path);
    if (err != OPD_OK) (void)unlink(temporary);
    else sync_parent(path);
    return err;
}

opd_err opd_safetensors_write(const char *path, const opd_tensor *tensors, size_t count,
                              const float *params) {
    opd_str header;
    opd_str_init(&header, NULL, HEADER_MAX_BYTES);
    write_header(&header, tensors, count);
    opd_err err = opd_str_status(&header);
    if (err == OPD_OK) err = write_file(path, &header, tensors, count, params);
    opd_str_fini(&header);
    return err;
}
