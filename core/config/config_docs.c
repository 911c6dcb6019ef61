/* config_docs.c - writes the generated files: config_docs SCHEMA.json REFERENCE.md.
 * Built and run by the target `config_docs`; a test fails when the committed files are old. */
#include <stdio.h>
#include <string.h>

#include "core/base/file.h"
#include "opd/config.h"

typedef opd_err (*make_fn)(const opd_alloc *alloc, char **out_text);

static opd_err file_make(make_fn make, const char *path) {
    char *text = NULL;
    opd_err err = make(NULL, &text);
    if (err == OPD_OK) err = opd_file_write_atomic(path, text, strlen(text));
    opd_mem_free(NULL, text);
    if (err != OPD_OK) fprintf(stderr, "config_docs: %s: %s\n", path, opd_err_context());
    return err;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: config_docs SCHEMA.json REFERENCE.md\n");
        return 2;
    }
    opd_err err = file_make(opd_config_schema_json, argv[1]);
    if (err == OPD_OK) err = file_make(opd_config_reference_md, argv[2]);
    return err == OPD_OK ? 0 : 1;
}
