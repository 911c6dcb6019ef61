/* folder.h - the folders that tests make: a model's directory, and the end of one with all in it.
 * Thread: any. Nothing to free. */
#ifndef OPD_TESTS_SUPPORT_FOLDER_H
#define OPD_TESTS_SUPPORT_FOLDER_H

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/check.h"
#include "core/base/file.h"
#include "models/safetensors.h"
#include "models/tokenizer.h"

/* Removes a file, or a folder with all in it; a path that is not there is fine. */
static inline void folder_remove(const char *path) {
    DIR *folder = opendir(path);
    if (folder == NULL) {
        (void)unlink(path);
        return;
    }
    for (struct dirent *e = readdir(folder); e != NULL; e = readdir(folder)) {
        char inside[1024];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (snprintf(inside, sizeof inside, "%s/%s", path, e->d_name) < (int)sizeof inside) folder_remove(inside);
    }
    (void)closedir(folder);
    (void)rmdir(path);
}

/* Makes the folder, with a model of random weights and a tokenizer of bytes. Errors: IO, NOMEM. */
OPD_MUST_CHECK static inline opd_err folder_write_model(const char *dir, const opd_model_config *config) {
    opd_model *model;
    opd_tokenizer *tokenizer;
    OPD_TRY(opd_dir_make(dir));
    OPD_TRY(opd_tokenizer_create_bytes(NULL, &tokenizer));
    opd_err err = opd_model_create(config, 1, NULL, &model);
    if (err == OPD_OK) {
        err = opd_model_save(model, dir);
        opd_model_destroy(model);
    }
    if (err == OPD_OK) err = opd_tokenizer_save(tokenizer, dir);
    opd_tokenizer_destroy(tokenizer);
    return err;
}

#endif
