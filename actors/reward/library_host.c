/* library_host.c - `opd reward-host FILE`: the child process of reward.type library. It loads the shared
 * object, reads questions (question.h) from stdin and writes answers to stdout, a JSON line each.
 *
 * The only place that calls dlopen. Blocking reads and writes: this is its whole process. Thread: main's;
 * all memory is freed before it returns.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/check.h"
#include "core/codec/json.h"
#include "opd/reward.h"
#include "opd/run.h"

enum { ITEMS_MAX = 1024, ANSWER_BYTES_MAX = 1 << 20 };

typedef struct host {
    const opd_reward_library *library;
    void *state;
    opd_reward_item items[ITEMS_MAX];
    double rewards[ITEMS_MAX];
    size_t count;
    int64_t id;
    bool group;
    char *texts[ITEMS_MAX + 3]; /* of the present question */
    size_t text_count;
} host;

static bool read_text(host *h, opd_json *json, opd_reward_text *out) {
    char *text;
    size_t size;
    if (!opd_json_read_dup(json, NULL, &text, &size)) return false;
    h->texts[h->text_count++] = text;
    *out = (opd_reward_text){text, size};
    return true;
}

static bool read_responses(host *h, opd_json *json) {
    if (!opd_json_array_begin(json)) return false;
    while (opd_json_array_next(json)) {
        if (h->count == ITEMS_MAX) return opd_json_error(json, "too many responses");
        if (!read_text(h, json, &h->items[h->count].response)) return false;
        h->count++;
    }
    return true;
}

/* Reads a question; each member at most once, as the reward actor writes it. */
static opd_err read_question(host *h, const char *line, size_t size) {
    opd_json json;
    opd_json_text key;
    opd_reward_item shared = {{"", 0}, {"", 0}, {"", 0}, {"", 0}};
    unsigned seen = 0;
    h->count = h->text_count = 0;
    h->group = false;
    opd_json_init(&json, line, size);
    opd_json_object_begin(&json);
    while (opd_json_object_next(&json, &key)) {
        unsigned bit = opd_json_text_is(key, "prompt") ? 1 : opd_json_text_is(key, "label") ? 2
                       : opd_json_text_is(key, "source")   ? 4
                       : opd_json_text_is(key, "response") || opd_json_text_is(key, "responses") ? 8
                                                                                                : 0;
        if ((seen & bit) != 0) opd_json_error(&json, "a member stands there twice");
        seen |= bit;
        if (bit == 1) (void)read_text(h, &json, &shared.prompt);
        else if (bit == 2) (void)read_text(h, &json, &shared.label);
        else if (bit == 4) (void)read_text(h, &json, &shared.source);
        else if (opd_json_text_is(key, "id")) (void)opd_json_read_int64(&json, &h->id);
        else if (opd_json_text_is(key, "responses")) h->group = read_responses(h, &json);
        else if (bit == 8 && read_text(h, &json, &h->items[0].response)) h->count = 1;
        else (void)opd_json_skip(&json);
    }
    for (size_t i = 0; i < h->count; i++) {
        h->items[i].prompt = shared.prompt;
        h->items[i].label = shared.label;
        h->items[i].source = shared.source;
        h->rewards[i] = NAN;
    }
    return opd_json_finish(&json);
}

/* Writes what the library said; a number that is none becomes null. */
static opd_err write_answer(const host *h) {
    opd_str out;
    opd_json_writer w;
    opd_str_init(&out, NULL, ANSWER_BYTES_MAX);
    opd_json_writer_init(&w, &out, 0);
    opd_json_write_object_begin(&w);
    opd_json_write_key(&w, "id");
    opd_json_write_int64(&w, h->id);
    opd_json_write_key(&w, h->group ? "rewards" : "reward");
    if (h->group) opd_json_write_array_begin(&w);
    for (size_t i = 0; i < h->count; i++) opd_json_write_double(&w, h->rewards[i]);
    if (h->group) opd_json_write_array_end(&w);
    opd_json_write_object_end(&w);
    opd_str_text(&out, "\n");
    opd_err err = opd_str_status(&out);
    if (err == OPD_OK && (fwrite(out.data, 1, out.size, stdout) != out.size || fflush(stdout) != 0))
        err = opd_fail(OPD_ERR_IO, "standard output is closed");
    opd_str_fini(&out);
    return err;
}

static opd_err serve(host *h) {
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    opd_err err = OPD_OK;
    while (err == OPD_OK && (size = getline(&line, &room, stdin)) > 0) {
        err = read_question(h, line, (size_t)size);
        if (err == OPD_OK && h->count > 0 &&
            h->library->score(h->state, h->items, h->count, h->rewards) != 0)
            for (size_t i = 0; i < h->count; i++) h->rewards[i] = NAN;
        if (err == OPD_OK) err = write_answer(h);
        while (h->text_count > 0) opd_mem_free(NULL, h->texts[--h->text_count]);
    }
    free(line);
    return err;
}

static opd_err find_library(void *object, const char *path, const opd_reward_library **out) {
    const opd_reward_library *(*get)(void) = NULL;
    void *symbol = dlsym(object, "opd_reward_library_get");
    memcpy(&get, &symbol, sizeof get); /* ISO C has no cast from object to function */
    if (get == NULL) return opd_fail(OPD_ERR_INVALID, "%s has no opd_reward_library_get", path);
    *out = get();
    if (*out == NULL || (*out)->abi != OPD_REWARD_ABI || (*out)->score == NULL)
        return opd_fail(OPD_ERR_UNSUPPORTED, "%s is not of version %d of opd/reward.h", path,
                        OPD_REWARD_ABI);
    return OPD_OK;
}

opd_err opd_reward_host(const char *library_path) {
    static host h;
    void *object = dlopen(library_path, RTLD_NOW | RTLD_LOCAL);
    if (object == NULL) return opd_fail(OPD_ERR_NOT_FOUND, "%s", dlerror());
    opd_err err = find_library(object, library_path, &h.library);
    if (err == OPD_OK && h.library->init != NULL && h.library->init(&h.state) != 0)
        err = opd_fail(OPD_ERR_REMOTE, "%s: init failed", library_path);
    else if (err == OPD_OK)
        err = serve(&h);
    if (err == OPD_OK && h.library->fini != NULL) h.library->fini(h.state);
    (void)dlclose(object);
    return err;
}
