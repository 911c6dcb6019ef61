/* models/lm.c - the functions of graph.h, decoder.h and reader.h lead to the object's own (lm.h).
 *
 * Thread: as those headers. Owns nothing.
 */
#include "models/lm.h"

const opd_lm_ops opd_lm_transformer = {.graph_create = opd_graph_create,
                                       .decoder_create = opd_decoder_create,
                                       .reader_create = opd_reader_create};

void opd_graph_destroy(opd_graph *graph) {
    if (graph != NULL) graph->ops->destroy(graph);
}

void opd_graph_set_weights(opd_graph *graph, const float *params) {
    graph->ops->set_weights(graph, params);
}

opd_err opd_graph_forward(opd_graph *graph, const opd_packed *packed) {
    return graph->ops->forward(graph, packed);
}

opd_err opd_graph_score(opd_graph *graph, const opd_score_row *rows, size_t n,
                        const opd_scores *out_scores) {
    return graph->ops->score(graph, rows, n, out_scores);
}

opd_err opd_graph_hidden(opd_graph *graph, const opd_score_row *rows, size_t n, float *out) {
    return graph->ops->hidden(graph, rows, n, out);
}

opd_err opd_graph_backward(opd_graph *graph, const opd_score_row *rows, size_t n,
                           const float *dlogp, const float *dentropy, const float *dhidden,
                           float *grads) {
    return graph->ops->backward(graph, rows, n, dlogp, dentropy, dhidden, grads);
}

opd_err opd_graph_backward_logits(opd_graph *graph, const opd_score_row *rows, size_t n,
                                  opd_logits_grad_fn grad_fn, void *arg, const float *dhidden,
                                  float *grads) {
    return graph->ops->backward_logits(graph, rows, n, grad_fn, arg, dhidden, grads);
}

void opd_decoder_destroy(opd_decoder *decoder) {
    if (decoder != NULL) decoder->ops->destroy(decoder);
}

void opd_decoder_set_weights(opd_decoder *decoder, const float *params) {
    decoder->ops->set_weights(decoder, params);
}

opd_err opd_decoder_prefill(opd_decoder *decoder, const size_t *slots, const opd_packed *packed) {
    return decoder->ops->prefill(decoder, slots, packed);
}

opd_err opd_decoder_copy(opd_decoder *decoder, size_t from, const size_t *to, size_t n) {
    return decoder->ops->copy(decoder, from, to, n);
}

opd_err opd_decoder_step(opd_decoder *decoder, const opd_decode_row *rows, size_t n,
                         opd_decode_out *out) {
    return decoder->ops->step(decoder, rows, n, out);
}

size_t opd_decoder_length(const opd_decoder *decoder, size_t slot) {
    return decoder->ops->length(decoder, slot);
}

void opd_decoder_truncate(opd_decoder *decoder, size_t slot, size_t length) {
    decoder->ops->truncate(decoder, slot, length);
}

void opd_reader_destroy(opd_reader *reader) {
    if (reader != NULL) reader->ops->destroy(reader);
}

void opd_reader_set_weights(opd_reader *reader, const float *params) {
    reader->ops->set_weights(reader, params);
}

opd_err opd_reader_forward(opd_reader *reader, const opd_packed *packed, const opd_read *reads) {
    return reader->ops->forward(reader, packed, reads);
}

opd_err opd_reader_score(opd_reader *reader, const opd_score_row *rows, size_t n,
                         const opd_scores *out_scores) {
    return reader->ops->score(reader, rows, n, out_scores);
}

opd_err opd_reader_copy(opd_reader *reader, uint32_t from, uint32_t to) {
    return reader->ops->copy(reader, from, to);
}
