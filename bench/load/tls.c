/* TLS for the upstream's side of its connections, over OpenSSL. --mode cert makes a certificate for 127.0.0.1, and
 * its key beside it, before the gateway starts: that is told to trust it (SSL_CERT_FILE). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "load.h"

#ifdef HAVE_TLS
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum { PATH_SIZE = 4096 };

static SSL_CTX *context;

static void die(const char *what) {
    fprintf(stderr, "loadgen: TLS: %s failed: %s\n", what, ERR_reason_error_string(ERR_get_error()));
    exit(1);
}

static void add_extension(X509 *certificate, int kind, const char *value) {
    X509V3_CTX about;
    X509V3_set_ctx_nodb(&about);
    X509V3_set_ctx(&about, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &about, kind, value);
    if (!extension || !X509_add_ext(certificate, extension, -1)) die("adding an extension");
    X509_EXTENSION_free(extension);
}

static X509 *make_certificate(EVP_PKEY *key) {
    X509 *certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 7 * 24 * 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"openline load", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(certificate, NID_key_usage, "critical,digitalSignature,keyCertSign");
    add_extension(certificate, NID_subject_key_identifier, "hash");
    add_extension(certificate, NID_subject_alt_name, "IP:127.0.0.1,DNS:localhost");
    if (!X509_sign(certificate, key, EVP_sha256())) die("signing");
    return certificate;
}

static void key_path(char out[PATH_SIZE], const char *path) { snprintf(out, PATH_SIZE, "%s.key", path); }

void tls_make(const char *path) {
    char beside[PATH_SIZE];
    key_path(beside, path);
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = key ? make_certificate(key) : NULL;
    FILE *file = certificate ? fopen(path, "w") : NULL;
    if (!file || !PEM_write_X509(file, certificate) || fclose(file)) die("writing the certificate");
    file = fopen(beside, "w");
    if (!file || !PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) || fclose(file)) die("writing the key");
}

void tls_init(const char *path) {
    char beside[PATH_SIZE];
    key_path(beside, path);
    context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1); /* else each record costs two reads */
    SSL_CTX_set_num_tickets(context, 0);
    if (SSL_CTX_use_certificate_file(context, path, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, beside, SSL_FILETYPE_PEM) != 1)
        die("using the certificate");
}

void tls_accept(conn *c) {
    c->tls = SSL_new(context);
    SSL_set_fd(c->tls, c->fd);
    SSL_set_accept_state(c->tls);
}

static ssize_t outcome(conn *c, int done) {
    if (done > 0) return done;
    int error = SSL_get_error(c->tls, done);
    ERR_clear_error();
    if (error == SSL_ERROR_ZERO_RETURN) return 0;
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return -1;
}

ssize_t tls_send(conn *c, const void *data, size_t size) { return outcome(c, SSL_write(c->tls, data, (int)size)); }
ssize_t tls_recv(conn *c, void *data, size_t size) { return outcome(c, SSL_read(c->tls, data, (int)size)); }
int tls_has_more(conn *c) { return SSL_has_pending(c->tls); }

void tls_free(conn *c) {
    SSL_free(c->tls);
    c->tls = NULL;
}

#else

void tls_make(const char *path) {
    fprintf(stderr, "loadgen: built without OpenSSL, so no TLS for '%s'; install its headers (libssl-dev) and build again\n", path);
    exit(1);
}
void tls_init(const char *path) { tls_make(path); }
void tls_accept(conn *c) { (void)c; }
ssize_t tls_send(conn *c, const void *data, size_t size) { (void)c, (void)data, (void)size; errno = EIO; return -1; }
ssize_t tls_recv(conn *c, void *data, size_t size) { (void)c, (void)data, (void)size; errno = EIO; return -1; }
int tls_has_more(conn *c) { (void)c; return 0; }
void tls_free(conn *c) { (void)c; }
#endif
