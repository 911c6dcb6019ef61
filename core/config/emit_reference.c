/* emit_reference.c - the table of keys as the reference page docs/configuration.md.
 * See opd_config_reference_md in opd/config.h; the caller frees the text. */
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/str.h"
#include "core/config/schema.h"

static const char head[] =
    "# Configuration\n"
    "\n"
    "<!-- Generated from core/config/schema_table.c; `ninja config_docs` makes it again. -->\n"
    "\n"
    "A configuration is one YAML file. `opd config FILE` prints the effective one, with every\n"
    "default filled in; `configs/opd.schema.json` makes editors complete and check keys.\n"
    "\n"
    "The YAML is strict. An unknown key, a wrong type, a value out of range, a key given twice\n"
    "and settings that contradict each other are errors with file, line, column and the nearest\n"
    "valid key. Numbers and `true`/`false` stand without quotes. Anchors, aliases, merge keys and\n"
    "tags are refused: stages inherit the top-level sections by themselves. Relative paths start\n"
    "at the folder in which `opd` is run.\n"
    "\n"
    "## Layers\n"
    "\n"
    "From weakest to strongest:\n"
    "\n"
    "1. the defaults below,\n"
    "2. the file's top-level sections,\n"
    "3. the sections of a stage,\n"
    "4. the seed's flags (below),\n"
    "5. `--set KEY=VALUE`, which wins in every stage, then `--set stages.NAME.KEY=VALUE`; the\n"
    "   last of two equals wins.\n"
    "\n"
    "A flag and a `--set` that give one key different values are an error. Of `train.steps` and\n"
    "`train.epochs`, `model.path` and `model.init`, `data.path` and `data.sources`, a record's\n"
    "`prompt_key`, `prompt_template` and `messages_key`, a teacher's `url`, `urls` and `path`, one layer\n"
    "gives at most one, and a stronger layer's choice resets the other.\n"
    "\n"
    "## Stages\n"
    "\n"
    "`stages` is a list; its entries run one after another. Each has a `name`, a `kind` and any\n"
    "of the sections below, which override the top level for it (of `run` only what does not\n"
    "belong to the whole run). A file without `stages` is one stage of the kind `run.kind`.\n"
    "\n"
    "| kind | does | result |\n"
    "|---|---|---|\n"
    "| `arithmetic` | writes generated problems | one file per split: `@stages.NAME.SPLIT` |\n"
    "| `sft` | supervised fine-tuning on `data` | `@stages.NAME.checkpoint`, with `train.keep_best` also `.best` |\n"
    "| `rl` | rollouts, GRPO and distillation | the same |\n"
    "| `eval` | accuracy of `model` on `eval.path` | in summary.json |\n"
    "\n"
    "A later stage names such a result where a model or a data file is expected; YAML wants it in\n"
    "quotes: `path: \"@stages.teacher.checkpoint\"`.\n"
    "\n"
    "## Flags\n"
    "\n"
    "The flags of the system that opd's method comes from work as written there. They reach every\n"
    "stage of kind `rl`; those about the teacher mean the one that distils.\n"
    "\n"
    "```text\n";

/* The default as the page shows it. */
static void default_put(opd_str *out, const opd__key *key) {
    const opd__map *map = opd__key_map(key);
    if (key->derived != NULL) opd_str_printf(out, "*%s*", key->derived);
    else if (map != NULL && map->scalar) opd_str_text(out, "");
    else if (key->initial[0] == 0) opd_str_text(out, "*empty*");
    else opd_str_printf(out, "`%s`", key->initial);
}

/* The type, with the range or the words it takes. */
static void type_put(opd_str *out, const opd__key *key) {
    static const char *const types[] = {
        [OPD__TYPE_BOOL] = "bool", [OPD__TYPE_INT] = "int",       [OPD__TYPE_FLOAT] = "float",
        [OPD__TYPE_ENUM] = "",     [OPD__TYPE_STRING] = "string", [OPD__TYPE_NAME] = "name",
        [OPD__TYPE_URL] = "URL",   [OPD__TYPE_PATH] = "path",
        [OPD__TYPE_URLS] = "URLs", [OPD__TYPE_WORDS] = "words"};
    opd_str_text(out, types[key->type]);
    if (key->type == OPD__TYPE_ENUM)
        for (size_t i = 0; key->names[i] != NULL; i++)
            opd_str_printf(out, "%s`%s`", i > 0 ? ", " : "", key->names[i]);
    if (key->type != OPD__TYPE_INT && key->type != OPD__TYPE_FLOAT) return;
    opd_str_printf(out, " %s %.16g", (key->flags & OPD__KEY_ABOVE_MIN) != 0 ? ">" : "≥", key->min);
    if (key->max <= 100)
        opd_str_printf(out, ", %s %.16g", (key->flags & OPD__KEY_BELOW_MAX) != 0 ? "<" : "≤",
                       key->max);
    if (key->unit[0] != 0) opd_str_printf(out, " [%s]", key->unit);
}

/* Whether `key` stands right in `section`, not in a section within it. */
static bool key_in(const opd__key *key, const opd__section *section) {
    const opd__section *longest = NULL;
    for (size_t i = 0; i < opd__section_count; i++)
        if (opd__path_below(key->path, opd__sections[i].path)) longest = &opd__sections[i];
    return longest == section;
}

static void section_put(opd_str *out, const opd__section *section) {
    char path[OPD__PATH_SIZE];
    opd_str_printf(out, "\n## %s\n\n%s\n\n", section->path, section->doc);
    opd_str_text(out, "| key | type | default | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < opd__key_count; i++) {
        const opd__key *key = &opd__keys[i];
        if (!key_in(key, section)) continue;
        opd_str_printf(out, "| `%s` | ", opd__key_display(key, "NAME", path));
        type_put(out, key);
        opd_str_text(out, " | ");
        default_put(out, key);
        opd_str_printf(out, " | %s |\n", key->doc);
    }
}

opd_err opd_config_reference_md(const opd_alloc *alloc, char **out_text) {
    opd_str out;
    opd_str_init(&out, alloc, 1 << 20);
    opd_str_text(&out, head);
    opd_str_text(&out, opd_config_flags_help());
    opd_str_text(&out, "```\n");
    for (size_t i = 0; i < opd__section_count; i++) section_put(&out, &opd__sections[i]);
    opd_err err = opd_str_status(&out);
    if (err == OPD_OK) {
        *out_text = opd_mem_strdup(alloc, out.data);
        if (*out_text == NULL) err = opd_fail(OPD_ERR_NOMEM, "out of memory");
    }
    opd_str_fini(&out);
    return err;
}
