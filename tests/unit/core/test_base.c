/* test_base.c - errors, memory, texts, files, random numbers and containers of core/base. */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/heap.h"
#include "core/base/list.h"
#include "core/base/map.h"
#include "core/base/rng.h"
#include "core/base/secret.h"
#include "core/base/str.h"
#include "opd/alloc.h"
#include "opd/buf.h"
#include "opd/log.h"
#include "tests/support/alloc_test.h"
#include "tests/support/test.h"

TEST(err_prefix_builds_a_path_and_never_overflows) {
    CHECK_ERR(opd_fail(OPD_ERR_PARSE, "line %d", 7), OPD_ERR_PARSE);
    CHECK_ERR(opd_err_prefix(OPD_ERR_PARSE, "file.c"), OPD_ERR_PARSE);
    CHECK_STR(opd_err_context(), "file.c: line 7");
    char longer[3000];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    CHECK_ERR(opd_err_prefix(OPD_ERR_PARSE, "%s", longer), OPD_ERR_PARSE);
    CHECK_INT(strlen(opd_err_context()), 1023);
    opd_err_clear();
    CHECK_ERR(opd_err_prefix(OPD_ERR_TIMEOUT, "peer"), OPD_ERR_TIMEOUT);
    CHECK_STR(opd_err_context(), "peer: deadline passed");
}

TEST(mem_get_is_zeroed_and_counted) {
    opd_test_alloc t;
    opd_test_alloc_tracing(&t);
    unsigned char *block = opd_mem_get(&t.alloc, 100);
    for (int i = 0; i < 100; i++) CHECK_INT(block[i], 0);
    char *copy = opd_mem_strdup(&t.alloc, "text");
    CHECK_STR(copy, "text");
    CHECK_INT(t.live, 2);
    opd_mem_free(&t.alloc, block);
    opd_mem_free(&t.alloc, copy);
    opd_mem_free(&t.alloc, NULL);
    CHECK_INT(t.live, 0);
}

static void count_release(void *arg, void *data) {
    (void)data;
    ++*(int *)arg;
}

TEST(buf_is_aligned_and_freed_by_the_last_release) {
    opd_test_alloc t;
    opd_test_alloc_tracing(&t);
    opd_buf *buf = NULL;
    CHECK_OK(opd_buf_create(&t.alloc, 1000, &buf));
    CHECK_INT((uintptr_t)opd_buf_data(buf) % OPD_BUF_ALIGN_BYTES, 0);
    CHECK_INT(opd_buf_size(buf), 1000);
    memset(opd_buf_data(buf), 1, 1000);
    CHECK(opd_buf_retain(buf) == buf);
    opd_buf_release(buf);
    CHECK_INT(t.live, 1);
    opd_buf_release(buf);
    CHECK_INT(t.live, 0);

    int released = 0;
    char bytes[8];
    CHECK_OK(opd_buf_wrap(&t.alloc, bytes, sizeof bytes, count_release, &released, &buf));
    opd_slice slice = {.buf = buf, .offset_bytes = 3, .size_bytes = 2};
    CHECK(opd_slice_data(slice) == bytes + 3);
    opd_buf_release(buf);
    CHECK_INT(released, 1);
    CHECK_INT(t.live, 0);
}

TEST(buf_create_reports_no_memory) {
    opd_test_alloc t;
    opd_test_alloc_failing(&t, 1, false);
    opd_buf *buf = NULL;
    CHECK_ERR(opd_buf_create(&t.alloc, 10, &buf), OPD_ERR_NOMEM);
    CHECK_ERR(opd_buf_create(&t.alloc, SIZE_MAX, &buf), OPD_ERR_NOMEM);
}

TEST(str_grows_to_its_maximum_and_keeps_the_first_error) {
    opd_str s;
    opd_str_init(&s, NULL, 500);
    CHECK_STR(s.data, "");
    for (int i = 0; i < 50; i++) opd_str_printf(&s, "%d,", i);
    opd_str_printf(&s, "%0300d", 1); /* longer than the local buffer of printf */
    CHECK_OK(opd_str_status(&s));
    size_t size = s.size;
    CHECK_INT(size, strlen(s.data));
    opd_str_printf(&s, "%0300d", 1);
    opd_str_text(&s, "x");
    CHECK_ERR(opd_str_status(&s), OPD_ERR_LIMIT);
    CHECK_INT(s.size, size);
    opd_str_clear(&s);
    opd_str_append(&s, "ab", 2);
    CHECK_OK(opd_str_status(&s));
    CHECK_STR(s.data, "ab");
    opd_str_fini(&s);
}

TEST(str_reports_no_memory) {
    opd_test_alloc t;
    opd_test_alloc_failing(&t, 2, true);
    opd_str s;
    opd_str_init(&s, &t.alloc, 1000);
    for (int i = 0; i < 100; i++) opd_str_text(&s, "word");
    CHECK_ERR(opd_str_status(&s), OPD_ERR_NOMEM);
    opd_str_fini(&s);
    CHECK_INT(t.live, 0);
}

TEST(file_round_trip_is_atomic_and_bounded) {
    char dir[OPD_PATH_SIZE], path[OPD_PATH_SIZE], name[64];
    (void)snprintf(name, sizeof name, "test_base_%ld/a/b", (long)getpid());
    CHECK_OK(opd_path_join(dir, sizeof dir, OPD_BINARY_DIR, name));
    CHECK_OK(opd_dir_make(dir));
    CHECK_OK(opd_dir_make(dir));
    CHECK_OK(opd_path_join(path, sizeof path, dir, "file"));
    CHECK(!opd_file_exists(path));
    CHECK_OK(opd_file_write_atomic(path, "one\0two", 7));
    CHECK_OK(opd_file_write_atomic(path, "three", 5));
    char *data = NULL;
    size_t size = 0;
    CHECK_OK(opd_file_read(NULL, path, 5, &data, &size));
    CHECK_INT(size, 5);
    CHECK_STR(data, "three");
    opd_mem_free(NULL, data);
    CHECK_ERR(opd_file_read(NULL, path, 4, &data, &size), OPD_ERR_LIMIT);
    CHECK_ERR(opd_dir_make(path), OPD_ERR_EXISTS);
    CHECK_ERR(opd_file_read(NULL, dir, 4000, &data, &size), OPD_ERR_IO);
    CHECK_INT(unlink(path), 0);
    CHECK_ERR(opd_file_read(NULL, path, 4, &data, &size), OPD_ERR_NOT_FOUND);
    CHECK_CONTAINS(opd_err_context(), path);
}

TEST(path_join_cases) {
    char out[8];
    CHECK_OK(opd_path_join(out, sizeof out, "a/", "b"));
    CHECK_STR(out, "a/b");
    CHECK_OK(opd_path_join(out, sizeof out, "a", "/b"));
    CHECK_STR(out, "/b");
    CHECK_OK(opd_path_join(out, sizeof out, "", "b"));
    CHECK_STR(out, "b");
    CHECK_ERR(opd_path_join(out, sizeof out, "abcd", "efg"), OPD_ERR_LIMIT);
}

TEST(rng_at_is_stateless_and_spread) {
    CHECK(opd_rng_at(1, 2, 3, 4) == opd_rng_at(1, 2, 3, 4));
    CHECK(opd_rng_at(1, 2, 3, 4) != opd_rng_at(1, 2, 4, 3));
    CHECK(opd_rng_at(1, 2, 3, 4) != opd_rng_at(2, 1, 3, 4));
    CHECK(opd_rng_at(0, 0, 0, 0) != opd_rng_at(0, 0, 0, 1));
    double sum = 0;
    for (uint64_t i = 0; i < 10000; i++) {
        double u = opd_rng_uniform(opd_rng_at(7, i, 0, 0));
        CHECK(u >= 0 && u < 1);
        sum += u;
    }
    CHECK_NEAR(sum / 10000, 0.5, 0.015); /* 5 standard errors */
}

TEST(rng_below_and_normal_have_the_right_moments) {
    opd_rng rng;
    opd_rng_init(&rng, 42);
    long counts[6] = {0};
    for (int i = 0; i < 60000; i++) counts[opd_rng_below(&rng, 6)]++;
    for (int i = 0; i < 6; i++) CHECK_NEAR(counts[i], 10000, 460); /* 5 sigma */
    double sum = 0, squares = 0;
    for (int i = 0; i < 20000; i++) {
        double x = opd_rng_normal(&rng);
        sum += x;
        squares += x * x;
    }
    CHECK_NEAR(sum / 20000, 0, 0.036);
    CHECK_NEAR(squares / 20000, 1, 0.05);
}

TEST(list_keeps_order_and_unlinks_twice) {
    opd_list list, nodes[3];
    opd_list_init(&list);
    for (int i = 0; i < 3; i++) opd_list_push_back(&list, &nodes[i]);
    opd_list_remove(&nodes[1]);
    opd_list_remove(&nodes[1]);
    CHECK(!opd_list_linked(&nodes[1]));
    opd_list_push_front(&list, &nodes[1]);
    CHECK(opd_list_pop_front(&list) == &nodes[1]);
    CHECK(opd_list_pop_front(&list) == &nodes[0]);
    CHECK(opd_list_pop_front(&list) == &nodes[2]);
    CHECK(opd_list_pop_front(&list) == NULL);
}

TEST(heap_orders_by_key_then_insertion_and_removes_anywhere) {
    enum { N = 200 };
    opd_test_alloc t;
    opd_test_alloc_tracing(&t);
    static opd_heap_node nodes[N];
    opd_heap heap;
    opd_heap_init(&heap, &t.alloc, N);
    opd_rng rng;
    opd_rng_init(&rng, 3);
    for (int i = 0; i < N; i++) CHECK_OK(opd_heap_push(&heap, &nodes[i], opd_rng_below(&rng, 20)));
    opd_heap_node extra = {0};
    CHECK_ERR(opd_heap_push(&heap, &extra, 1), OPD_ERR_LIMIT);
    for (int i = 0; i < N; i += 3) opd_heap_remove(&heap, &nodes[i]);
    opd_heap_remove(&heap, &nodes[0]);
    int left = 0;
    opd_heap_node *last = NULL;
    for (opd_heap_node *n; (n = opd_heap_pop(&heap)) != NULL; last = n, left++) {
        CHECK(!opd_heap_contains(n) && (n - nodes) % 3 != 0);
        if (last != NULL)
            CHECK(last->key < n->key || (last->key == n->key && last->sequence < n->sequence));
    }
    CHECK_INT(left, N - (N + 2) / 3);
    opd_heap_fini(&heap);
    CHECK_INT(t.live, 0);
}

/* Random puts and removes against a plain array as the model. */
TEST(map_agrees_with_a_model) {
    enum { KEYS = 300, MAX = 200 };
    static char values[KEYS];
    bool present[KEYS] = {false};
    size_t count = 0;
    opd_test_alloc t;
    opd_test_alloc_tracing(&t);
    opd_map map;
    opd_map_init(&map, &t.alloc, MAX);
    opd_rng rng;
    opd_rng_init(&rng, 9);
    CHECK(opd_map_get(&map, 1) == NULL && opd_map_remove(&map, 1) == NULL);
    for (int step = 0; step < 20000; step++) {
        size_t k = (size_t)opd_rng_below(&rng, KEYS);
        if (opd_rng_below(&rng, 5) < 3) {
            opd_err err = opd_map_put(&map, k << 32, &values[k]);
            CHECK_INT(err, present[k] || count < MAX ? OPD_OK : OPD_ERR_LIMIT);
            if (err == OPD_OK && !present[k]) present[k] = true, count++;
        } else {
            CHECK(opd_map_remove(&map, k << 32) == (present[k] ? &values[k] : NULL));
            if (present[k]) present[k] = false, count--;
        }
        CHECK_INT(map.count, count);
        size_t q = (size_t)opd_rng_below(&rng, KEYS);
        CHECK(opd_map_get(&map, q << 32) == (present[q] ? &values[q] : NULL));
    }
    opd_map_fini(&map);
    CHECK_INT(t.live, 0);
}

TEST(map_and_heap_survive_no_memory) {
    opd_test_alloc t;
    opd_test_alloc_failing(&t, 1, true);
    opd_map map;
    opd_map_init(&map, &t.alloc, 10);
    CHECK_ERR(opd_map_put(&map, 1, &map), OPD_ERR_NOMEM);
    opd_map_fini(&map);
    opd_heap heap;
    opd_heap_init(&heap, &t.alloc, 10);
    opd_heap_node node = {0};
    CHECK_ERR(opd_heap_push(&heap, &node, 1), OPD_ERR_NOMEM);
    CHECK(!opd_heap_contains(&node));
    opd_heap_fini(&heap);
}

static void keep_line(void *arg, opd_log_level level, const char *text) {
    (void)snprintf(arg, 64, "%s:%s", opd_log_level_name(level), text);
}

TEST(log_filters_and_goes_to_its_sink) {
    char line[64] = "";
    opd_log_sink_set(keep_line, line);
    OPD_LOG_DEBUG("no %d", 1);
    CHECK_STR(line, "");
    OPD_LOG_WARN("yes %d", 2);
    CHECK_STR(line, "warn:yes 2");
    opd_log_level_set(OPD_LOG_LEVEL_DEBUG);
    OPD_LOG_DEBUG("now %d", 3);
    CHECK_STR(line, "debug:now 3");
}

/* ---- secrets ---- */

/* An allocator that looks at what it gets back. */
typedef struct watching {
    opd_alloc alloc;
    const char *wanted;
    int freed, seen;
} watching;

static void *watching_resize(void *arg, void *memory, size_t size) {
    watching *w = arg;
    if (size > 0) return realloc(memory, size);
    w->freed++;
    if (memory != NULL && memcmp(memory, w->wanted, strlen(w->wanted)) == 0) w->seen++;
    free(memory);
    return NULL;
}

TEST(a_secret_is_wiped_before_it_is_freed) {
    watching w = {.wanted = "sk-"};
    w.alloc = (opd_alloc){.context = &w, .resize = watching_resize};
    char *secret = NULL, *copy = NULL;
    CHECK_INT(setenv("OPD_TEST_SECRET", "sk-1234", 1), 0);
    CHECK_OK(opd_secret_from_env(&w.alloc, "OPD_TEST_SECRET", &secret));
    CHECK_STR(secret, "sk-1234");
    CHECK_OK(opd_secret_copy(&w.alloc, "sk-", secret, &copy));
    CHECK_STR(copy, "sk-sk-1234");
    opd_secret_free(&w.alloc, secret);
    opd_secret_free(&w.alloc, copy);
    opd_secret_free(&w.alloc, NULL);
    CHECK_INT(w.freed, 2);
    CHECK_INT(w.seen, 0);
}

static void check_secret_file(const char *text, const char *secret) {
    char *got = NULL;
    CHECK_OK(opd_file_write_atomic("secret.txt", text, strlen(text)));
    opd_err err = opd_secret_from_file(NULL, "secret.txt", &got);
    if (secret != NULL) {
        CHECK_OK(err);
        CHECK_STR(got, secret);
    } else {
        CHECK_ERR(err, OPD_ERR_CONFIG);
        CHECK_CONTAINS(opd_err_context(), "secret.txt");
        CHECK(strstr(opd_err_context(), "hidden") == NULL);
    }
    opd_secret_free(NULL, got);
}

TEST(a_secret_is_the_first_line_of_a_file) {
    char *got = NULL, longer[5000];
    memset(longer, 'h', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    check_secret_file("sk-1", "sk-1");
    check_secret_file("sk-2\r\nmore\n", "sk-2");
    check_secret_file("", NULL);
    check_secret_file("\nhidden", NULL);
    check_secret_file("hidden two", NULL);
    check_secret_file("hidden\x01", NULL);
    check_secret_file("hidden\xc3\xa9", NULL);
    check_secret_file(longer, NULL);
    longer[4096] = '\0';
    check_secret_file(longer, longer);
    CHECK_ERR(opd_secret_from_file(NULL, "no-such-file", &got), OPD_ERR_CONFIG);
    CHECK_CONTAINS(opd_err_context(), "no-such-file");
    CHECK_ERR(opd_secret_from_file(NULL, ".", &got), OPD_ERR_CONFIG);
}

TEST(secrets_are_compared_whole) {
    CHECK(opd_secret_equal("abc", "abc"));
    CHECK(opd_secret_equal("", ""));
    CHECK(!opd_secret_equal("abc", "abd"));
    CHECK(!opd_secret_equal("abc", "ab"));
    CHECK(!opd_secret_equal("abc", "abcabc"));
    CHECK(!opd_secret_equal("abc", ""));
    CHECK(!opd_secret_equal("", "a"));
}
