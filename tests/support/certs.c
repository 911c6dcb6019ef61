/* certs.c - see certs.h. */
#include "core/base/file.h"
#include "tests/support/certs.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <unistd.h>

#include "tests/support/test.h"

enum { DAY_S = 86400 };

typedef struct spec {
    const char *name, *issuer; /* issuer NULL: itself */
    const char *hosts;         /* NULL: none; an authority has none */
    long from_s, until_s;      /* from now */
} spec;

static void extend(X509 *cert, int kind, const char *value) {
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, kind, value);
    CHECK(extension != NULL);
    CHECK_INT(X509_add_ext(cert, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static FILE *open_file(certs *c, const char *name, const char *ending, const char *mode) {
    char file[64];
    snprintf(file, sizeof file, "%s%s", name, ending);
    FILE *f = fopen(certs_path(c, file), mode);
    CHECK(f != NULL);
    return f;
}

static EVP_PKEY *read_key(certs *c, const char *name) {
    FILE *f = open_file(c, name, ".key", "r");
    EVP_PKEY *key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    CHECK(key != NULL);
    fclose(f);
    return key;
}

static void write_key(certs *c, const char *name, EVP_PKEY *key, const char *passphrase) {
    FILE *f = open_file(c, name, ".key", "w");
    const EVP_CIPHER *cipher = passphrase != NULL ? EVP_aes_128_cbc() : NULL;
    CHECK_INT(PEM_write_PrivateKey(f, key, cipher, NULL, 0, NULL, (void *)(uintptr_t)passphrase), 1);
    fclose(f);
}

static void write_cert(certs *c, const char *name, X509 *cert) {
    FILE *f = open_file(c, name, ".pem", "w");
    CHECK_INT(PEM_write_X509(f, cert), 1);
    fclose(f);
}

static void name_set(X509_NAME *to, const char *name) {
    CHECK_INT(X509_NAME_add_entry_by_txt(to, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0), 1);
}

static X509 *cert_create(const spec *s, EVP_PKEY *key, long serial) {
    X509 *cert = X509_new();
    CHECK(cert != NULL);
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), s->from_s);
    X509_gmtime_adj(X509_getm_notAfter(cert), s->until_s);
    X509_set_pubkey(cert, key);
    name_set(X509_get_subject_name(cert), s->name);
    X509_NAME *issuer = X509_NAME_new();
    name_set(issuer, s->issuer != NULL ? s->issuer : s->name);
    X509_set_issuer_name(cert, issuer);
    X509_NAME_free(issuer);
    bool authority = s->hosts == NULL && s->issuer == NULL;
    extend(cert, NID_basic_constraints, authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
    if (s->hosts != NULL) extend(cert, NID_subject_alt_name, s->hosts);
    return cert;
}

static void make(certs *c, const spec *s, long serial) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    CHECK(key != NULL);
    write_key(c, s->name, key, NULL);
    EVP_PKEY *signer = s->issuer != NULL ? read_key(c, s->issuer) : NULL;
    X509 *cert = cert_create(s, key, serial);
    CHECK(X509_sign(cert, signer != NULL ? signer : key, EVP_sha256()) > 0);
    write_cert(c, s->name, cert);
    if (strcmp(s->name, "server") == 0) {
        write_cert(c, "chain", cert);
        FILE *f = open_file(c, "chain", ".pem", "a");
        CHECK_INT(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
        fclose(f);
        write_key(c, "locked", key, "secret");
    }
    X509_free(cert);
    EVP_PKEY_free(signer);
    EVP_PKEY_free(key);
}

const char *certs_path(certs *c, const char *file) {
    char *path = c->paths[c->next++ % 4];
    CHECK_OK(opd_path_join(path, sizeof c->paths[0], c->folder, file));
    return path;
}

void certs_init(certs *c) {
    static const char here[] = "DNS:localhost,IP:127.0.0.1,IP:::1";
    static const spec specs[] = {
        {"ca", NULL, NULL, -DAY_S, DAY_S},
        {"other", NULL, NULL, -DAY_S, DAY_S},
        {"server", "ca", here, -DAY_S, DAY_S},
        {"client", "ca", NULL, -DAY_S, DAY_S},
        {"expired", "ca", here, -2 * DAY_S, -DAY_S},
        {"early", "ca", here, DAY_S, 2 * DAY_S},
        {"elsewhere", "ca", "DNS:elsewhere.example", -DAY_S, DAY_S},
        {"stray", "other", here, -DAY_S, DAY_S},
        {"self", NULL, here, -DAY_S, DAY_S},
    };
    memset(c, 0, sizeof *c);
    snprintf(c->folder, sizeof c->folder, "/tmp/opd-certs-XXXXXX");
    CHECK(mkdtemp(c->folder) != NULL);
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) make(c, &specs[i], (long)i + 1);
}

void certs_fini(certs *c) {
    DIR *folder = opendir(c->folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
    rmdir(c->folder);
}
