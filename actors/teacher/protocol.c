/* protocol.c - the table of protocol.h. Thread: any. */
#include "actors/teacher/protocol.h"

#include "transports/vllm.h"

static const opd_teacher_protocol protocols[] = {
    [OPD_CONFIG_PROTOCOL_SGLANG] = {.name = "sglang",
                                    .score_path = "/generate",
                                    .info_path = "/model_info",
                                    .server_path = "/server_info",
                                    .forms = true,
                                    .write = opd_sglang_score_write,
                                    .read = opd_sglang_score_read,
                                    .read_info = opd_sglang_model_info_read},
    [OPD_CONFIG_PROTOCOL_VLLM] = {.name = "vllm",
                                  .score_path = "/v1/completions",
                                  .info_path = "/v1/models",
                                  .server_path = "/version",
                                  .capped = true,
                                  .write = opd_vllm_score_write,
                                  .read = opd_vllm_score_read,
                                  .read_info = opd_vllm_models_read}};

const opd_teacher_protocol *opd_teacher_protocol_of(const opd_config_teacher *teacher) {
    return &protocols[teacher->protocol];
}
