/* A small libcuda.so.1, for cuda-bindings to be loaded over where there is no GPU. It finds its functions by version as the real
 * driver does: none that is newer than the driver's own version (cuGetProcAddress). Device memory is host memory, a stream's work
 * is done at once, and a graph holds nothing. CUDA_SIM_VERSION is the driver's version, CUDA_SIM_DEVICES the number of GPUs;
 * sim_fail(name, code) lets a function's next call return a code.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, NOT_FOUND = 500 };
#define DEVICES 8
#define DEPTH 64
#define API(name) __attribute__((visibility("default"))) int name
#define BEGIN(name)                                                                                                            \
    do {                                                                                                                       \
        int code = failing(#name);                                                                                             \
        if (code) return code;                                                                                                 \
    } while (0)

typedef struct { int device; int held; } Context;
static Context primaries[DEVICES];
static __thread Context *stack[DEPTH];
static __thread int depth;
static char fail_name[64];
static int fail_code;

__attribute__((visibility("default"))) void sim_fail(const char *name, int code) {
    snprintf(fail_name, sizeof fail_name, "%s", name);
    fail_code = code;
}

static int failing(const char *name) {
    if (!fail_code || strcmp(name, fail_name)) return SUCCESS;
    int code = fail_code;
    fail_code = 0;
    return code;
}

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

static int version(void) { return number("CUDA_SIM_VERSION", 13000); }
static int devices(void) { return number("CUDA_SIM_DEVICES", 1); }
static Context *current(void) { return depth ? stack[depth - 1] : NULL; }

/* what there is */
API(cuInit)(unsigned flags) { BEGIN(cuInit); return devices() ? SUCCESS : NO_DEVICE; }
API(cuDriverGetVersion)(int *found) { *found = version(); return SUCCESS; }
API(cuDeviceGetCount)(int *count) { BEGIN(cuDeviceGetCount); *count = devices(); return SUCCESS; }
API(cuDeviceGet)(int *device, int index) { *device = index; return index < devices() ? SUCCESS : INVALID_DEVICE; }
API(cuDeviceGetName)(char *name, int size, int device) { snprintf(name, size, "Simulated GPU"); return SUCCESS; }
API(cuDeviceTotalMem_v2)(size_t *bytes, int device) { *bytes = (size_t)8 << 30; return SUCCESS; }
API(cuDeviceTotalMem)(size_t *bytes, int device) { return cuDeviceTotalMem_v2(bytes, device); }
API(cuDeviceGetAttribute)(int *value, int which, int device) { *value = which == 75 ? 8 : which == 76 ? 7 : 0; return SUCCESS; }
API(cuGetErrorName)(int code, const char **name) {
    *name = code == 9999 ? "CUDA_ERROR_OF_TOMORROW" : code == 9998 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : NULL;
    return *name ? SUCCESS : INVALID_VALUE;
}

/* contexts */
API(cuCtxGetCurrent)(void **context) { BEGIN(cuCtxGetCurrent); *context = current(); return SUCCESS; }
API(cuCtxSetCurrent)(void *context) {
    BEGIN(cuCtxSetCurrent);
    if (depth) depth--;
    if (context) stack[depth++] = context;
    return SUCCESS;
}
API(cuCtxPushCurrent)(void *context) {
    BEGIN(cuCtxPushCurrent);
    if (!context || depth == DEPTH) return INVALID_VALUE;
    stack[depth++] = context;
    return SUCCESS;
}
API(cuCtxPopCurrent)(void **context) {
    BEGIN(cuCtxPopCurrent);
    if (!depth) return INVALID_CONTEXT;
    *context = stack[--depth];
    return SUCCESS;
}
API(cuCtxGetDevice)(int *device) {
    BEGIN(cuCtxGetDevice);
    if (!current()) return INVALID_CONTEXT;
    *device = current()->device;
    return SUCCESS;
}
API(cuDevicePrimaryCtxRetain)(void **context, int device) {
    BEGIN(cuDevicePrimaryCtxRetain);
    if (device < 0 || device >= devices()) return INVALID_DEVICE;
    primaries[device].device = device;
    primaries[device].held++;
    *context = &primaries[device];
    return SUCCESS;
}
API(cuDevicePrimaryCtxRelease)(int device) { BEGIN(cuDevicePrimaryCtxRelease); primaries[device].held--; return SUCCESS; }
API(cuDevicePrimaryCtxReset)(int device) { BEGIN(cuDevicePrimaryCtxReset); primaries[device].held = 0; return SUCCESS; }
API(cuDevicePrimaryCtxGetState)(int device, unsigned *flags, int *active) {
    *flags = 0;
    *active = primaries[device].held > 0;
    return SUCCESS;
}

/* memory */
API(cuMemGetInfo)(size_t *available, size_t *total) { *available = (size_t)4 << 30; *total = (size_t)8 << 30; return SUCCESS; }
API(cuMemAlloc)(uint64_t *address, size_t size) {
    BEGIN(cuMemAlloc);
    void *block = NULL;
    if (!size || posix_memalign(&block, 256, size)) return INVALID_VALUE;
    *address = (uint64_t)(uintptr_t)block;
    return SUCCESS;
}
API(cuMemFree)(uint64_t address) { BEGIN(cuMemFree); free((void *)(uintptr_t)address); return SUCCESS; }
API(cuMemHostAlloc)(void **address, size_t size, unsigned flags) {
    BEGIN(cuMemHostAlloc);
    return flags == 1 && !posix_memalign(address, 256, size) ? SUCCESS : INVALID_VALUE;
}
API(cuMemFreeHost)(void *address) { BEGIN(cuMemFreeHost); free(address); return SUCCESS; }
API(cuMemcpyHtoDAsync)(uint64_t target, const void *source, size_t size, void *stream) {
    BEGIN(cuMemcpyHtoDAsync);
    memcpy((void *)(uintptr_t)target, source, size);
    return SUCCESS;
}
API(cuMemcpyDtoHAsync)(void *target, uint64_t source, size_t size, void *stream) {
    BEGIN(cuMemcpyDtoHAsync);
    memcpy(target, (void *)(uintptr_t)source, size);
    return SUCCESS;
}
API(cuMemcpyDtoDAsync)(uint64_t target, uint64_t source, size_t size, void *stream) {
    BEGIN(cuMemcpyDtoDAsync);
    memmove((void *)(uintptr_t)target, (void *)(uintptr_t)source, size);
    return SUCCESS;
}
API(cuPointerGetAttribute)(void *data, int which, uint64_t address) {
    BEGIN(cuPointerGetAttribute);
    if (which == 8) *(unsigned *)data = 0; /* IS_MANAGED */
    else if (which == 2) *(unsigned *)data = 2; /* MEMORY_TYPE: the device's */
    else if (which == 9) *(int *)data = number("CUDA_SIM_POINTER_DEVICE", 0); /* DEVICE_ORDINAL */
    else return INVALID_VALUE;
    return SUCCESS;
}

/* streams, events, graphs: numbers */
static uintptr_t next = 0x1000;
static int make(void **handle) { *handle = (void *)(next += 16); return SUCCESS; }
API(cuStreamCreate)(void **stream, unsigned flags) { BEGIN(cuStreamCreate); return make(stream); }
API(cuStreamDestroy)(void *stream) { BEGIN(cuStreamDestroy); return stream ? SUCCESS : INVALID_VALUE; }
API(cuStreamSynchronize)(void *stream) { BEGIN(cuStreamSynchronize); return SUCCESS; }
API(cuStreamWaitEvent)(void *stream, void *event, unsigned flags) { BEGIN(cuStreamWaitEvent); return SUCCESS; }
API(cuEventCreate)(void **event, unsigned flags) { BEGIN(cuEventCreate); return make(event); }
API(cuEventRecord)(void *event, void *stream) { BEGIN(cuEventRecord); return SUCCESS; }
API(cuEventSynchronize)(void *event) { BEGIN(cuEventSynchronize); return SUCCESS; }
API(cuEventDestroy)(void *event) { BEGIN(cuEventDestroy); return SUCCESS; }
API(cuEventElapsedTime)(float *ms, void *start, void *end) {
    BEGIN(cuEventElapsedTime);
    *ms = (float)((uintptr_t)end - (uintptr_t)start) / 16;
    return SUCCESS;
}
API(cuStreamBeginCapture)(void *stream, int mode) { BEGIN(cuStreamBeginCapture); return SUCCESS; }
API(cuStreamEndCapture)(void *stream, void **graph) { BEGIN(cuStreamEndCapture); return make(graph); }
API(cuGraphInstantiateWithFlags)(void **executable, void *graph, unsigned long long flags) {
    BEGIN(cuGraphInstantiate); /* so it is called since CUDA 11.4 */
    return make(executable);
}
API(cuGraphDestroy)(void *graph) { BEGIN(cuGraphDestroy); return graph ? SUCCESS : INVALID_VALUE; }
API(cuGraphLaunch)(void *executable, void *stream) { BEGIN(cuGraphLaunch); return SUCCESS; }
API(cuGraphExecDestroy)(void *executable) { BEGIN(cuGraphExecDestroy); return executable ? SUCCESS : INVALID_VALUE; }

/* how cuda-bindings finds them */
API(cuGetProcAddress_v2)(const char *symbol, void **found, int wanted, uint64_t flags, int *status) {
    *found = wanted > version() ? NULL : dlsym(RTLD_DEFAULT, symbol);
    if (!*found && wanted <= version()) {
        Dl_info info; /* where this library was loaded without RTLD_GLOBAL */
        void *self = dladdr((void *)&failing, &info) ? dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : NULL;
        *found = self ? dlsym(self, symbol) : NULL;
    }
    if (status) *status = *found ? 0 : wanted > version() ? 2 : 1;
    return *found ? SUCCESS : NOT_FOUND;
}
API(cuGetProcAddress)(const char *symbol, void **found, int wanted, uint64_t flags) {
    return cuGetProcAddress_v2(symbol, found, wanted, flags, NULL);
}
