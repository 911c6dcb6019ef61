/* config_text.c - see config_text.h. */
#include "tests/unit/core/config_text.h"

#include "tests/support/test.h"

opd_err config_load(const char *text, const char *const *args, opd_config **out) {
    opd_config_overrides *overrides = NULL;
    char *argv[128];
    int argc = 0, rest = 0;
    if (args != NULL)
        while (args[argc] != NULL) {
            argv[argc] = (char *)(size_t)args[argc];
            argc++;
        }
    CHECK_OK(opd_config_overrides_create(NULL, &overrides));
    opd_err err = opd_config_flags_parse(overrides, argc, argv, &rest);
    if (err == OPD_OK) {
        CHECK_INT(rest, 0);
        err = opd_config_load_text(NULL, "t.yaml", text, strlen(text), overrides, out);
    }
    opd_config_overrides_destroy(overrides);
    return err;
}

opd_config *config_get(const char *text, const char *const *args) {
    opd_config *config = NULL;
    CHECK_OK(config_load(text, args, &config));
    return config;
}

void config_fails(const char *text, const char *const *args, opd_err expected,
                  const char *message) {
    opd_config *config = NULL;
    opd_err err = config_load(text, args, &config);
    if (err == OPD_OK) opd_test_fail(__FILE__, __LINE__, "loaded, expected \"%s\"", message);
    CHECK_STR(opd_err_context(), message);
    CHECK_INT(err, expected);
}
