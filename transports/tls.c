/* tls.c - tls.h over OpenSSL and two memory BIOs: `in` holds what the peer sent and is not decrypted
 * yet, `out` what is to be sent. The only file that includes OpenSSL.
 *
 * OpenSSL keeps errors in a queue per thread: it is emptied before each call, and read right after.
 * Thread: the loop. The SSL object owns both BIOs.
 */
#include "transports/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "core/base/check.h"
#include "core/base/file.h"

enum { RECORD_BYTES = 16 * 1024, HOST_MAX = 256, TEXT_MAX = 400 };

struct opd_tls_context {
    SSL_CTX *ssl;
    const opd_alloc *alloc;
    bool server, verify;
};

struct opd_tls {
    const opd_tls_context *context;
    SSL *ssl;
    BIO *in, *out; /* ssl's */
    opd_tls_state state;
    bool finished; /* our close_notify is out */
    opd_err err;   /* FAILED: why */
    char text[TEXT_MAX];
    char host[HOST_MAX];
};

/* In the order of preference; each name with its length in front. */
static const unsigned char alpn_names[] = "\x02h2\x08http/1.1";
enum { ALPN_NAMES_SIZE = sizeof alpn_names - 1 };

static const char *reason_of(unsigned long code) {
    const char *text = code == 0 ? NULL : ERR_reason_error_string(code);
    return text != NULL ? text : "unknown reason";
}

static bool is_no_memory(unsigned long code) { return ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE; }

/* ---- contexts ---- */

static bool is_given(const char *text) { return text != NULL && text[0] != '\0'; }

static opd_err fail_file(const char *key, const char *path, const char *remedy) {
    unsigned long code = ERR_peek_last_error();
    if (is_no_memory(code)) return opd_fail(OPD_ERR_NOMEM, "TLS: no memory for %s %s", key, path);
    if (!opd_file_exists(path))
        return opd_fail(OPD_ERR_NOT_FOUND, "TLS: %s %s does not exist", key, path);
    return opd_fail(OPD_ERR_INVALID, "TLS: %s %s cannot be used: %s; %s", key, path, reason_of(code),
                    remedy);
}

/* No terminal is asked for a passphrase: a key that has one cannot be used. */
static int no_passphrase(char *to, int size, int writing, void *arg) {
    (void)to, (void)size, (void)writing, (void)arg;
    return -1;
}

static opd_err load_identity(SSL_CTX *ssl, bool server, const opd_tls_options *o) {
    if (!is_given(o->cert_file)) {
        if (is_given(o->key_file))
            return opd_fail(OPD_ERR_INVALID, "TLS: key_file %s has no certificate; give cert_file",
                            o->key_file);
        if (server) return opd_fail(OPD_ERR_INVALID, "TLS: a server needs a certificate");
        return OPD_OK;
    }
    const char *key = is_given(o->key_file) ? o->key_file : o->cert_file;
    if (SSL_CTX_use_certificate_chain_file(ssl, o->cert_file) != 1)
        return fail_file("cert_file", o->cert_file, "it must hold a certificate in PEM, and then the "
                         "chain above it");
    if (SSL_CTX_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM) != 1)
        return fail_file("key_file", key, "it must hold the certificate's private key in PEM, without "
                         "a passphrase");
    return OPD_OK;
}

static opd_err load_trust(SSL_CTX *ssl, bool server, const opd_tls_options *o) {
    if (is_given(o->ca_file)) {
        if (SSL_CTX_load_verify_file(ssl, o->ca_file) != 1)
            return fail_file("ca_file", o->ca_file, "it must hold certificates in PEM");
        if (!server) return OPD_OK;
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(o->ca_file);
        if (names == NULL) return fail_file("ca_file", o->ca_file, "it must hold certificates in PEM");
        SSL_CTX_set_client_CA_list(ssl, names); /* takes them */
        return OPD_OK;
    }
    if (server || o->unverified || SSL_CTX_set_default_verify_paths(ssl) == 1) return OPD_OK;
    return opd_fail(OPD_ERR_INVALID, "TLS: the system's certificates cannot be read: %s; give ca_file",
                    reason_of(ERR_peek_last_error()));
}

/* Ours before theirs. A client that knows ALPN but neither protocol is told so by an alert. */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_size,
                       const unsigned char *offered, unsigned int offered_size, void *arg) {
    (void)ssl, (void)arg;
    unsigned char *chosen;
    int found = SSL_select_next_proto(&chosen, out_size, alpn_names, ALPN_NAMES_SIZE, offered,
                                      offered_size);
    *out = chosen;
    return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Resumption is off: few connections, and no state to keep secret. The ciphers of TLS 1.2 are those
 * that HTTP/2 allows (RFC 9113, 9.2.2). */
static bool set_protocol(SSL_CTX *ssl, bool server) {
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_default_passwd_cb(ssl, no_passphrase);
    if (server) SSL_CTX_set_alpn_select_cb(ssl, choose_alpn, NULL);
    return SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(ssl, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1 &&
           SSL_CTX_set_num_tickets(ssl, 0) == 1 &&
           (server || SSL_CTX_set_alpn_protos(ssl, alpn_names, ALPN_NAMES_SIZE) == 0);
}

static int verify_mode(bool server, const opd_tls_options *o) {
    if (server) return is_given(o->ca_file) ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
                                            : SSL_VERIFY_NONE;
    return o->unverified ? SSL_VERIFY_NONE : SSL_VERIFY_PEER;
}

opd_err opd_tls_context_create(const opd_alloc *alloc, bool server, const opd_tls_options *options,
                               opd_tls_context **out_context) {
    opd_tls_context *context = opd_mem_get(alloc, sizeof *context);
    if (context == NULL) return opd_fail(OPD_ERR_NOMEM, "TLS: no memory for a context");
    ERR_clear_error();
    *context = (opd_tls_context){.alloc = alloc, .server = server,
                                 .ssl = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method())};
    opd_err err = OPD_OK;
    if (context->ssl == NULL || !set_protocol(context->ssl, server))
        err = opd_fail(OPD_ERR_NOMEM, "TLS: no context: %s", reason_of(ERR_peek_last_error()));
    if (err == OPD_OK) err = load_trust(context->ssl, server, options);
    if (err == OPD_OK) err = load_identity(context->ssl, server, options);
    if (err != OPD_OK) {
        opd_tls_context_destroy(context);
        return err;
    }
    int mode = verify_mode(server, options);
    SSL_CTX_set_verify(context->ssl, mode, NULL);
    context->verify = mode != SSL_VERIFY_NONE;
    *out_context = context;
    return OPD_OK;
}

void opd_tls_context_destroy(opd_tls_context *context) {
    if (context == NULL) return;
    SSL_CTX_free(context->ssl);
    opd_mem_free(context->alloc, context);
}

/* ---- connections ---- */

/* Whom the client expects: an address is looked for among the certificate's addresses, a name among
 * its names; only a name is sent along (RFC 6066, 3). */
static bool expect_host(opd_tls *tls) {
    X509_VERIFY_PARAM *param = SSL_get0_param(tls->ssl);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (X509_VERIFY_PARAM_set1_ip_asc(param, tls->host) == 1) return true;
    ERR_clear_error();
    return SSL_set1_host(tls->ssl, tls->host) == 1 &&
           SSL_set_tlsext_host_name(tls->ssl, tls->host) == 1;
}

static opd_err connection_open(opd_tls *tls) {
    const opd_tls_context *context = tls->context;
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    tls->ssl = SSL_new(context->ssl);
    if (in == NULL || out == NULL || tls->ssl == NULL) {
        BIO_free(in);
        BIO_free(out);
        return opd_fail(OPD_ERR_NOMEM, "TLS with %s: no memory for a connection", tls->host);
    }
    SSL_set_bio(tls->ssl, in, out); /* takes both */
    tls->in = in;
    tls->out = out;
    if (context->server) {
        SSL_set_accept_state(tls->ssl);
        return OPD_OK;
    }
    SSL_set_connect_state(tls->ssl);
    if (!expect_host(tls))
        return opd_fail(OPD_ERR_INVALID, "TLS: \"%s\" cannot be checked as a host name: %s", tls->host,
                        reason_of(ERR_peek_last_error()));
    return OPD_OK;
}

opd_err opd_tls_create(const opd_tls_context *context, const char *host, opd_tls **out_tls) {
    opd_tls *tls = opd_mem_get(context->alloc, sizeof *tls);
    if (tls == NULL) return opd_fail(OPD_ERR_NOMEM, "TLS with %s: no memory for a connection", host);
    tls->context = context;
    (void)snprintf(tls->host, sizeof tls->host, "%s", host);
    ERR_clear_error();
    opd_err err = connection_open(tls);
    size_t none;
    if (err == OPD_OK && !context->server) err = opd_tls_read(tls, NULL, 0, &none); /* ClientHello */
    if (err != OPD_OK) {
        opd_tls_destroy(tls);
        return err;
    }
    *out_tls = tls;
    return OPD_OK;
}

void opd_tls_destroy(opd_tls *tls) {
    if (tls == NULL) return;
    SSL_free(tls->ssl);
    opd_mem_free(tls->context->alloc, tls);
}

opd_tls_state opd_tls_state_of(const opd_tls *tls) { return tls->state; }

opd_tls_alpn opd_tls_alpn_of(const opd_tls *tls) {
    const unsigned char *name;
    unsigned int size;
    if (tls->state == OPD_TLS_STATE_HANDSHAKE) return OPD_TLS_ALPN_NONE;
    SSL_get0_alpn_selected(tls->ssl, &name, &size);
    if (size == 2 && memcmp(name, "h2", 2) == 0) return OPD_TLS_ALPN_H2;
    return size == 8 && memcmp(name, "http/1.1", 8) == 0 ? OPD_TLS_ALPN_HTTP1 : OPD_TLS_ALPN_NONE;
}

/* ---- failures ---- */

static opd_err fail(opd_tls *tls, opd_err err, const char *what, const char *remedy) {
    tls->state = OPD_TLS_STATE_FAILED;
    tls->err = err;
    (void)snprintf(tls->text, sizeof tls->text, "TLS with %s: %s%s%s", tls->host, what,
                   remedy[0] != '\0' ? "; " : "", remedy);
    return opd_fail(err, "%s", tls->text);
}

static opd_err failed_before(const opd_tls *tls) { return opd_fail(tls->err, "%s", tls->text); }

static opd_err fail_trust(opd_tls *tls, long verdict) {
    const char *remedy = "give the certificate of its authority as ca_file";
    char text[TEXT_MAX];
    (void)snprintf(text, sizeof text, "the peer's certificate is not valid: %s",
                   X509_verify_cert_error_string(verdict));
    if (verdict == X509_V_ERR_HOSTNAME_MISMATCH || verdict == X509_V_ERR_IP_ADDRESS_MISMATCH)
        remedy = "it was made for another host: use the name or address that stands in it";
    else if (verdict == X509_V_ERR_CERT_HAS_EXPIRED || verdict == X509_V_ERR_CERT_NOT_YET_VALID)
        remedy = "renew it, or set this machine's clock";
    else if (tls->context->server)
        remedy = "it must be signed by the authority this server trusts";
    return fail(tls, OPD_ERR_UNTRUSTED, text, remedy);
}

static opd_err fail_alert(opd_tls *tls, int alert, const char *name) {
    const char *remedy = "";
    char text[TEXT_MAX];
    (void)snprintf(text, sizeof text, "the peer refused: %s", name);
    if (alert == SSL_AD_NO_APPLICATION_PROTOCOL) remedy = "it speaks neither HTTP/2 nor HTTP/1.1";
    else if (alert == SSL_AD_PROTOCOL_VERSION) remedy = "it must allow TLS 1.2 or 1.3";
    else if (tls->context->server) remedy = "";
    else if (alert == SSL_AD_UNKNOWN_CA || alert == SSL_AD_BAD_CERTIFICATE ||
             alert == TLS13_AD_CERTIFICATE_REQUIRED || alert == SSL_AD_HANDSHAKE_FAILURE)
        remedy = "if it wants to know its clients, give cert_file and key_file";
    return fail(tls, OPD_ERR_REMOTE, text, remedy);
}

static bool is_not_tls(int reason) {
    return reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST ||
           reason == SSL_R_HTTPS_PROXY_REQUEST || reason == SSL_R_PACKET_LENGTH_TOO_LONG;
}

/* What OpenSSL's queue says. An alert of the peer has its number in the reason. */
static opd_err fail_queue(opd_tls *tls) {
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);
    long verdict = SSL_get_verify_result(tls->ssl);
    if (is_no_memory(code)) return fail(tls, OPD_ERR_NOMEM, "no memory", "");
    if (ERR_GET_LIB(code) != ERR_LIB_SSL) return fail(tls, OPD_ERR_PROTO, reason_of(code), "");
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) return fail_trust(tls, verdict);
    if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
        return fail(tls, OPD_ERR_UNTRUSTED, "the client shows no certificate", "");
    if (reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256)
        return fail_alert(tls, reason - SSL_AD_REASON_OFFSET, reason_of(code));
    if (is_not_tls(reason) && tls->state == OPD_TLS_STATE_HANDSHAKE)
        return fail(tls, OPD_ERR_PROTO, "the peer does not speak TLS on this port",
                    tls->context->server ? "" : "if it is a cleartext server, use http://");
    if (reason == SSL_R_NO_SHARED_CIPHER || reason == SSL_R_UNSUPPORTED_PROTOCOL ||
        reason == SSL_R_NO_APPLICATION_PROTOCOL)
        return fail(tls, OPD_ERR_UNSUPPORTED, reason_of(code), "");
    return fail(tls, OPD_ERR_PROTO, reason_of(code), "");
}

/* ---- bytes ---- */

opd_err opd_tls_receive(opd_tls *tls, const uint8_t *bytes, size_t size_bytes) {
    size_t taken = 0;
    if (tls->state == OPD_TLS_STATE_FAILED) return failed_before(tls);
    if (tls->state == OPD_TLS_STATE_ENDED || size_bytes == 0) return OPD_OK;
    /* Answers of the protocol itself (KeyUpdate) may come on top of what push left. */
    if (BIO_ctrl_pending(tls->out) > 4 * OPD_TLS_WAITING_BYTES_MAX)
        return fail(tls, OPD_ERR_LIMIT, "the peer makes us answer and does not read", "");
    ERR_clear_error();
    if (BIO_write_ex(tls->in, bytes, size_bytes, &taken) == 1 && taken == size_bytes) return OPD_OK;
    return fail(tls, OPD_ERR_NOMEM, "no memory", "");
}

/* What a call that did not go through means. */
static opd_err judge(opd_tls *tls, int result) {
    switch (SSL_get_error(tls->ssl, result)) {
        case SSL_ERROR_WANT_READ:
        case SSL_ERROR_WANT_WRITE: return OPD_OK;
        case SSL_ERROR_ZERO_RETURN: tls->state = OPD_TLS_STATE_ENDED; return OPD_OK;
        case SSL_ERROR_SSL: return fail_queue(tls);
        default: return fail(tls, OPD_ERR_PROTO, "the connection cannot go on", "");
    }
}

opd_err opd_tls_read(opd_tls *tls, uint8_t *to, size_t room, size_t *out_size) {
    *out_size = 0;
    if (tls->state == OPD_TLS_STATE_FAILED) return failed_before(tls);
    if (tls->state == OPD_TLS_STATE_ENDED) return OPD_OK;
    ERR_clear_error();
    if (tls->state == OPD_TLS_STATE_HANDSHAKE) {
        int result = SSL_do_handshake(tls->ssl);
        if (result != 1) return judge(tls, result);
        tls->state = OPD_TLS_STATE_OPEN;
    }
    if (room == 0) return OPD_OK;
    int result = SSL_read_ex(tls->ssl, to, room, out_size);
    if (result == 1) return OPD_OK;
    *out_size = 0;
    return judge(tls, result);
}

/* The next record's worth at the front of plain: in place if it lies together, else gathered, as a
 * record for each small piece would cost more than the copy. */
static const uint8_t *front_of(const opd_iobatch *plain, uint8_t *gathered, size_t *out_size) {
    const opd_iosegment *first = &plain->segments[plain->first];
    size_t size = 0;
    if (first->size_bytes >= RECORD_BYTES || first->size_bytes == plain->size_bytes) {
        *out_size = first->size_bytes < RECORD_BYTES ? first->size_bytes : RECORD_BYTES;
        return first->data;
    }
    for (size_t i = plain->first; i < plain->count && size < RECORD_BYTES; i++) {
        const opd_iosegment *s = &plain->segments[i];
        size_t part = RECORD_BYTES - size < s->size_bytes ? RECORD_BYTES - size : s->size_bytes;
        memcpy(gathered + size, s->data, part);
        size += part;
    }
    *out_size = size;
    return gathered;
}

opd_err opd_tls_push(opd_tls *tls, opd_iobatch *plain) {
    uint8_t gathered[RECORD_BYTES];
    if (tls->state == OPD_TLS_STATE_FAILED) return failed_before(tls);
    if (tls->state != OPD_TLS_STATE_OPEN || tls->finished) return OPD_OK;
    while (plain->size_bytes > 0 && BIO_ctrl_pending(tls->out) < OPD_TLS_WAITING_BYTES_MAX) {
        size_t size, taken = 0;
        const uint8_t *bytes = front_of(plain, gathered, &size);
        ERR_clear_error();
        int result = SSL_write_ex(tls->ssl, bytes, size, &taken);
        if (result != 1) return judge(tls, result);
        opd_iobatch_written(plain, taken);
    }
    return OPD_OK;
}

void opd_tls_finish(opd_tls *tls) {
    bool open = tls->state == OPD_TLS_STATE_OPEN || tls->state == OPD_TLS_STATE_ENDED;
    if (!open || tls->finished) return;
    tls->finished = true;
    ERR_clear_error();
    (void)SSL_shutdown(tls->ssl); /* only writes; the peer's answer is not waited for */
}

bool opd_tls_pull(opd_tls *tls, opd_iobatch *batch) {
    uint8_t bytes[8 * 1024];
    bool any = false;
    for (;;) {
        size_t room = OPD_IOBATCH_STAGE_BYTES - batch->staged_bytes, size = 0;
        if (room > sizeof bytes) room = sizeof bytes;
        if (!opd_iobatch_fits(batch, room) || room == 0) return any;
        if (BIO_read_ex(tls->out, bytes, room, &size) != 1 || size == 0) return any;
        size_t staged = opd_iobatch_stage(batch, bytes, size);
        OPD_ASSERT(staged == size);
        any = true;
    }
}
