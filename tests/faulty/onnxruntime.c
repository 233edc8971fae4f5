/* ONNX Runtime with a provider that fails: the library FAULTY_LIBRARY, whose runs fail while the file FAULTY_HEIGHT has the
 * height of their image in it, or 0 for all images. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Places in the table of functions OrtApi, which only grows at its end. */
enum { CREATE_STATUS = 0, RUN = 9, DIMENSIONS = 62, TENSOR_INFO = 65, RELEASE_INFO = 99 };
enum { FAIL = 1 };

struct api_base {
    void **(*get_api)(uint32_t);
    const char *(*get_version)(void);
};

static void **api;
static void *(*real_run)(void *, void *, const char **, void **, size_t, const char **, size_t, void **);

static long failing_height(void) {
    long height = -1;
    FILE *file = fopen(getenv("FAULTY_HEIGHT"), "r");
    if (!file)
        return height;
    if (fscanf(file, "%ld", &height) != 1)
        height = -1;
    fclose(file);
    return height;
}

static int64_t height_of(void *pixels) {
    void *info = NULL;
    int64_t sides[4] = {0};
    ((void *(*)(void *, void **))api[TENSOR_INFO])(pixels, &info);
    ((void *(*)(void *, int64_t *, size_t))api[DIMENSIONS])(info, sides, 4);
    ((void (*)(void *))api[RELEASE_INFO])(info);
    return sides[1];
}

static void *run(void *session, void *options, const char **inputs, void **values, size_t count, const char **outputs,
                 size_t output_count, void **results) {
    long failing = failing_height();
    if (failing == 0 || (failing > 0 && height_of(values[0]) == failing))
        return ((void *(*)(int, const char *))api[CREATE_STATUS])(FAIL, "the provider failed");
    return real_run(session, options, inputs, values, count, outputs, output_count, results);
}

static void **get_api(uint32_t version) {
    static struct api_base *real;
    if (!real) {
        void *library = dlopen(getenv("FAULTY_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            fprintf(stderr, "%s\n", dlerror());
            return NULL;
        }
        real = ((struct api_base * (*)(void)) dlsym(library, "OrtGetApiBase"))();
    }
    api = real->get_api(version);
    if (api && api[RUN] != (void *)run) {
        long page = sysconf(_SC_PAGESIZE);
        char *start = (char *)((uintptr_t)&api[RUN] & ~(uintptr_t)(page - 1));
        if (mprotect(start, (size_t)page, PROT_READ | PROT_WRITE) != 0)
            return NULL;
        real_run = (void *(*)(void *, void *, const char **, void **, size_t, const char **, size_t, void **))api[RUN];
        api[RUN] = (void *)run;
    }
    return api;
}

static const char *get_version(void) {
    return getenv("FAULTY_VERSION");
}

const struct api_base *OrtGetApiBase(void) {
    static const struct api_base base = {get_api, get_version};
    return &base;
}
