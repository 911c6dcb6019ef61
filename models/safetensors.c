/* models/safetensors.c - the checked reader of one *.safetensors file.
 *
 * Invariants of an open file: every tensor's bytes lie inside the data; sorted by offset the
 * tensors cover the data without hole or overlap (as the format demands); size = count x
 * dtype; names are unique.
 * Thread: any; immutable once open. Memory: opd_safetensors_close frees all.
 */
#include "models/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/codec/json.h"

enum { HEADER_SIZE_BYTES = 8, HEADER_MAX_BYTES = 100000000, TENSORS_MAX = 1 << 20 };

struct opd_safetensors {
    const opd_alloc *alloc;
    const unsigned char *bytes; /* the whole file */
    size_t size_bytes;
    void *mapping; /* NULL when the bytes are the caller's */
    size_t data_begin, data_size_bytes;
    opd_safetensor *tensors;
    size_t count, capacity;
    const opd_safetensor **by_name; /* [count] sorted */
};

static const struct {
    const char *name;
    opd_dtype_file dtype;
    size_t size_bytes;
} dtypes[] = {{"F32", OPD_DTYPE_FILE_F32, 4},
              {"BF16", OPD_DTYPE_FILE_BF16, 2},
              {"F16", OPD_DTYPE_FILE_F16, 2}};

/* A tensor's description while it is read; -1 means not there. */
typedef struct entry {
    opd_json_text dtype;
    int64_t shape[OPD_SAFETENSORS_RANK_MAX];
    int rank;
    int64_t begin, end;
} entry;

static void read_entry(opd_json *json, entry *e) {
    opd_json_text key;
    int64_t *ends[] = {&e->begin, &e->end};
    size_t n = 0;
    *e = (entry){.rank = -1, .begin = -1, .end = -1};
    opd_json_object_begin(json);
    while (opd_json_object_next(json, &key)) {
        if (opd_json_text_is(key, "dtype")) {
            opd_json_read_text(json, &e->dtype);
        } else if (opd_json_text_is(key, "shape")) {
            e->rank = 0;
            opd_json_array_begin(json);
            while (opd_json_array_next(json)) {
                if (e->rank == OPD_SAFETENSORS_RANK_MAX) {
                    opd_json_error(json, "more than 4 dimensions");
                    return;
                }
                opd_json_read_int64(json, &e->shape[e->rank++]);
            }
        } else if (opd_json_text_is(key, "data_offsets")) {
            opd_json_array_begin(json);
            while (opd_json_array_next(json)) {
                if (n == OPD_COUNTOF(ends)) {
                    opd_json_error(json, "data_offsets has more than 2 numbers");
                    return;
                }
                opd_json_read_int64(json, ends[n++]);
            }
        } else {
            opd_json_skip(json);
        }
    }
}

/* Fills the tensor from its description, checking each number. */
static opd_err check_entry(const opd_safetensors *file, const entry *e, opd_safetensor *t) {
    size_t item_bytes = 0;
    for (size_t i = 0; i < OPD_COUNTOF(dtypes); i++) {
        if (e->dtype.data == NULL || !opd_json_text_is(e->dtype, dtypes[i].name)) continue;
        t->dtype = dtypes[i].dtype;
        item_bytes = dtypes[i].size_bytes;
    }
    if (item_bytes == 0)
        return opd_fail(OPD_ERR_UNSUPPORTED, "tensor %s: dtype \"%.*s\"; F32, BF16 and F16 are read",
                        t->name, e->dtype.size_bytes > 16 ? 16 : (int)e->dtype.size_bytes,
                        e->dtype.data != NULL ? e->dtype.data : "");
    if (e->rank < 0 || e->end < 0)
        return opd_fail(OPD_ERR_PARSE, "tensor %s: shape or data_offsets missing", t->name);
    if (e->begin < 0 || e->begin > e->end || (uint64_t)e->end > file->data_size_bytes)
        return opd_fail(OPD_ERR_PARSE, "tensor %s: data_offsets [%lld, %lld] lie outside the file's %zu data bytes",
                        t->name, (long long)e->begin, (long long)e->end, file->data_size_bytes);
    t->rank = e->rank;
    t->size_bytes = (size_t)(e->end - e->begin);
    t->offset_bytes = file->data_begin + (size_t)e->begin;
    t->count = 1;
    for (int i = 0; i < OPD_SAFETENSORS_RANK_MAX; i++) {
        int64_t dim = i < e->rank ? e->shape[i] : 1;
        if (dim < 0 || __builtin_mul_overflow(t->count, (size_t)dim, &t->count))
            return opd_fail(OPD_ERR_PARSE, "tensor %s: impossible shape", t->name);
        t->shape[i] = (size_t)dim;
    }
    size_t want;
    if (__builtin_mul_overflow(t->count, item_bytes, &want) || want != t->size_bytes)
        return opd_fail(OPD_ERR_PARSE, "tensor %s: its shape needs %zu elements of %zu bytes, its data_offsets hold %zu bytes",
                        t->name, t->count, item_bytes, t->size_bytes);
    return OPD_OK;
}

static opd_err add_tensor(opd_safetensors *file, opd_json *json, opd_json_text key) {
    if (file->count == TENSORS_MAX) return opd_fail(OPD_ERR_PARSE, "more than %d tensors", TENSORS_MAX);
    if (file->count == file->capacity) {
        size_t capacity = file->capacity > 0 ? 2 * file->capacity : 64;
        void *grown = opd_mem_resize(file->alloc, file->tensors, capacity * sizeof *file->tensors);
        if (grown == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for %zu tensors", capacity);
        file->tensors = grown;
        file->capacity = capacity;
    }
    char *name = opd_mem_get(file->alloc, key.size_bytes + 1);
    if (name == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a tensor's name");
    name[opd_json_text_unescape(key, name)] = '\0';
    opd_safetensor *t = &file->tensors[file->count++];
    *t = (opd_safetensor){.name = name};
    entry e;
    read_entry(json, &e);
    if (json->error != NULL) return opd_err_prefix(opd_json_status(json), "tensor %s", name);
    return check_entry(file, &e, t);
}

static int compare_names(const void *a, const void *b) {
    const opd_safetensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int compare_offsets(const void *a, const void *b) {
    const opd_safetensor *x = *(const opd_safetensor *const *)a;
    const opd_safetensor *y = *(const opd_safetensor *const *)b;
    if (x->offset_bytes != y->offset_bytes) return x->offset_bytes < y->offset_bytes ? -1 : 1;
    return x->size_bytes < y->size_bytes ? -1 : x->size_bytes > y->size_bytes;
}

/* The tensors tile the data; their names are unique. Leaves by_name sorted by name. */
static opd_err check_whole(opd_safetensors *file) {
    size_t at = file->data_begin;
    file->by_name = opd_mem_get(file->alloc, (file->count + 1) * sizeof *file->by_name);
    if (file->by_name == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for %zu tensors", file->count);
    for (size_t i = 0; i < file->count; i++) file->by_name[i] = &file->tensors[i];
    qsort(file->by_name, file->count, sizeof *file->by_name, compare_offsets);
    for (size_t i = 0; i < file->count; i++) {
        const opd_safetensor *t = file->by_name[i];
        if (t->offset_bytes != at)
            return opd_fail(OPD_ERR_PARSE, "tensor %s: begins at data byte %zu, but the one before ends at %zu",
                            t->name, t->offset_bytes - file->data_begin, at - file->data_begin);
        at += t->size_bytes;
    }
    if (at != file->size_bytes)
        return opd_fail(OPD_ERR_PARSE, "%zu bytes at the end belong to no tensor", file->size_bytes - at);
    qsort(file->by_name, file->count, sizeof *file->by_name, compare_names);
    for (size_t i = 1; i < file->count; i++)
        if (strcmp(file->by_name[i - 1]->name, file->by_name[i]->name) == 0)
            return opd_fail(OPD_ERR_PARSE, "tensor %s is there twice", file->by_name[i]->name);
    return OPD_OK;
}

static opd_err parse(opd_safetensors *file) {
    uint64_t header = 0;
    if (file->size_bytes < HEADER_SIZE_BYTES)
        return opd_fail(OPD_ERR_PARSE, "%zu bytes are too few for a safetensors file", file->size_bytes);
    for (size_t i = HEADER_SIZE_BYTES; i-- > 0;) header = header << 8 | file->bytes[i];
    if (header > HEADER_MAX_BYTES || header > file->size_bytes - HEADER_SIZE_BYTES)
        return opd_fail(OPD_ERR_PARSE, "the header claims %llu bytes, the file has %zu after the first 8",
                        (unsigned long long)header, file->size_bytes - HEADER_SIZE_BYTES);
    file->data_begin = HEADER_SIZE_BYTES + (size_t)header;
    file->data_size_bytes = file->size_bytes - file->data_begin;
    opd_json json;
    opd_json_text key;
    opd_json_init(&json, (const char *)file->bytes + HEADER_SIZE_BYTES, (size_t)header);
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        if (opd_json_text_is(key, "__metadata__")) opd_json_skip(&json);
        else OPD_TRY(add_tensor(file, &json, key));
    }
    OPD_TRY(opd_err_prefix(opd_json_finish(&json), "header"));
    return check_whole(file);
}

opd_err opd_safetensors_parse(const void *bytes, size_t size_bytes, const opd_alloc *alloc,
                              opd_safetensors **out_file) {
    opd_safetensors *file = opd_mem_get(alloc, sizeof *file);
    if (file == NULL) return opd_fail(OPD_ERR_NOMEM, "no memory for a safetensors file");
    *file = (opd_safetensors){.alloc = alloc, .bytes = bytes, .size_bytes = size_bytes};
    opd_err err = parse(file);
    if (err != OPD_OK) {
        opd_safetensors_close(file);
        return err;
    }
    *out_file = file;
    return OPD_OK;
}

/* Maps the file read-only. An empty file gives NULL and 0. */
static opd_err map_file(const char *path, void **out_bytes, size_t *out_size) {
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return opd_fail(errno == ENOENT ? OPD_ERR_NOT_FOUND : OPD_ERR_IO, "%s: %s", path, strerror(errno));
    *out_bytes = NULL;
    *out_size = 0;
    opd_err err = OPD_OK;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        err = opd_fail(OPD_ERR_IO, "%s: not a regular file", path);
    } else if (info.st_size > 0) {
        void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED) {
            err = opd_fail(OPD_ERR_IO, "%s: cannot map it: %s", path, strerror(errno));
        } else {
            *out_bytes = bytes;
            *out_size = (size_t)info.st_size;
        }
    }
    (void)close(fd);
    return err;
}

opd_err opd_safetensors_open(const char *path, const opd_alloc *alloc, opd_safetensors **out_file) {
    void *bytes;
    size_t size;
    OPD_TRY(map_file(path, &bytes, &size));
    opd_err err = opd_safetensors_parse(bytes, size, alloc, out_file);
    if (err != OPD_OK) {
        if (bytes != NULL) (void)munmap(bytes, size);
        return opd_err_prefix(err, "%s", path);
    }
    (*out_file)->mapping = bytes;
    return OPD_OK;
}

void opd_safetensors_close(opd_safetensors *file) {
    if (file == NULL) return;
    for (size_t i = 0; i < file->count; i++) opd_mem_free(file->alloc, file->tensors[i].name);
    opd_mem_free(file->alloc, file->tensors);
    opd_mem_free(file->alloc, file->by_name);
    if (file->mapping != NULL) (void)munmap(file->mapping, file->size_bytes);
    opd_mem_free(file->alloc, file);
}

size_t opd_safetensors_count(const opd_safetensors *file) { return file->count; }

const opd_safetensor *opd_safetensors_at(const opd_safetensors *file, size_t i) {
    OPD_ASSERT(i < file->count);
    return &file->tensors[i];
}

const opd_safetensor *opd_safetensors_find(const opd_safetensors *file, const char *name) {
    opd_safetensor wanted = {.name = (char *)(uintptr_t)name};
    const opd_safetensor *key = &wanted;
    const opd_safetensor **found =
        bsearch(&key, file->by_name, file->count, sizeof *file->by_name, compare_names);
    return found != NULL ? *found : NULL;
}

static uint16_t load16(const unsigned char *at) { return (uint16_t)(at[0] | at[1] << 8); }

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE binary16 to binary32, exact. */
static float float_of_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31) return float_of_bits(sign | 0x7F800000 | fraction << 13);
    if (exponent > 0) return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float small = (float)fraction / (float)(1 << 24); /* subnormal: fraction x 2^-24 */
    return sign != 0 ? -small : small;
}

void opd_safetensors_read(const opd_safetensors *file, const opd_safetensor *tensor, float *out) {
    const unsigned char *at = file->bytes + tensor->offset_bytes;
    switch (tensor->dtype) {
        case OPD_DTYPE_FILE_F32:
            if (tensor->size_bytes > 0) memcpy(out, at, tensor->size_bytes);
            break;
        case OPD_DTYPE_FILE_BF16:
            for (size_t i = 0; i < tensor->count; i++)
                out[i] = float_of_bits((uint32_t)load16(at + 2 * i) << 16);
            break;
        case OPD_DTYPE_FILE_F16:
            for (size_t i = 0; i < tensor->count; i++) out[i] = float_of_half(load16(at + 2 * i));
            break;
    }
}
