/* A stand-in for NVIDIA's libnvidia-ml.so.1 whose figures come from a text file.
 *
 * The file named by STANDIN_NVML_FILE is read anew at every call. Its lines, "na" for any number
 * that the driver does not tell:
 *
 *   device INDEX UUID TOTAL USED FREE RESERVED NAME   bytes; the name may hold spaces
 *   mig INDEX PARENT UUID TOTAL USED FREE NAME        instance INDEX of the GPU PARENT
 *   process INDEX KIND PID USED                       KIND: compute or graphics
 *   error CODE                                        every call answers this NVML code
 *   fail FUNCTION CODE                                calls that begin so answer this code
 *   delay MILLISECONDS                                every call takes this long
 *
 * No file, or none named: the driver is not loaded. Handles are 1 + the line's number among its
 * kind, MIG instances from 1001 on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK, UNINITIALIZED, INVALID, NOT_SUPPORTED, NOT_FOUND = 6, TOO_SMALL = 7, NO_DRIVER = 9 };
#define NA (~0ULL)
#define MOST 64
#define MIG 1000
typedef unsigned long long bytes;
typedef void *handle;

typedef struct {
    int index, parent;
    char uuid[96], name[96];
    bytes total, used, available, reserved;
} device;
typedef struct {
    int index, graphics;
    unsigned pid;
    bytes used;
} process;
typedef struct {
    device devices[MOST], instances[MOST];
    process processes[MOST];
    int device_count, instance_count, process_count;
} figures;

static int initialized;

static bytes number(const char *word) {
    return strcmp(word, "na") == 0 ? NA : strtoull(word, NULL, 10);
}

static void place(device *d, const char *total, const char *used, const char *available) {
    d->total = number(total), d->used = number(used), d->available = number(available);
}

/* Read the file into `f`; return the code with which FUNCTION is to fail, else OK. */
static int look(const char *function, figures *f) {
    char line[512], a[32], b[32], c[32], d[32], word[96];
    int code = OK, given;
    memset(f, 0, sizeof *f);
    const char *path = getenv("STANDIN_NVML_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return NO_DRIVER;
    while (fgets(line, sizeof line, file)) {
        device *g = &f->devices[f->device_count], *m = &f->instances[f->instance_count];
        process *p = &f->processes[f->process_count];
        if (f->device_count < MOST && sscanf(line, "device %d %95s %31s %31s %31s %31s %95[^\n]",
                &g->index, g->uuid, a, b, c, d, g->name) == 7)
            place(g, a, b, c), g->reserved = number(d), f->device_count++;
        else if (f->instance_count < MOST && sscanf(line, "mig %d %d %95s %31s %31s %31s %95[^\n]",
                &m->index, &m->parent, m->uuid, a, b, c, m->name) == 7)
            place(m, a, b, c), f->instance_count++;
        else if (f->process_count < MOST
                && sscanf(line, "process %d %31s %u %31s", &p->index, a, &p->pid, b) == 4)
            p->graphics = strcmp(a, "graphics") == 0, p->used = number(b), f->process_count++;
        else if (sscanf(line, "error %d", &given) == 1)
            code = given;
        else if (sscanf(line, "fail %95s %d", word, &given) == 2) {
            if (strncmp(function, word, strlen(word)) == 0) code = given;
        } else if (sscanf(line, "delay %d", &given) == 1)
            usleep(given * 1000);
    }
    fclose(file);
    return code;
}

#define LOOK() \
    figures f; \
    if (!initialized) return UNINITIALIZED; \
    int code = look(__func__, &f); \
    if (code != OK) return code

static device *found(figures *f, handle h) {
    long number = (long)h;
    if (number > MIG) return number - MIG <= f->instance_count ? &f->instances[number - MIG - 1] : NULL;
    return number >= 1 && number <= f->device_count ? &f->devices[number - 1] : NULL;
}

int nvmlInitWithFlags(unsigned flags) {
    figures f;
    int code = look(__func__, &f);
    (void)flags;
    if (code == OK) initialized++;
    return code;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
/* Only PyTorch calls this one. Told of a driver, it would count these GPUs among its own. */
int nvmlInit(void) { return NO_DRIVER; }

int nvmlShutdown(void) {
    if (!initialized) return UNINITIALIZED;
    initialized--;
    return OK;
}

const char *nvmlErrorString(int code) {
    static __thread char text[32];
    snprintf(text, sizeof text, "stand-in code %d", code);
    return text;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    LOOK();
    *count = f.device_count;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle *out) {
    LOOK();
    for (int i = 0; i < f.device_count; i++)
        if (f.devices[i].index == (int)index) return *out = (handle)(i + 1L), OK;
    return INVALID;
}

static int text_out(const char *text, char *out, unsigned size) {
    if (strlen(text) >= size) return TOO_SMALL;
    strcpy(out, text);
    return OK;
}
int nvmlDeviceGetUUID(handle h, char *out, unsigned size) {
    LOOK();
    device *d = found(&f, h);
    return d ? text_out(d->uuid, out, size) : INVALID;
}
int nvmlDeviceGetName(handle h, char *out, unsigned size) {
    LOOK();
    device *d = found(&f, h);
    return d ? text_out(d->name, out, size) : INVALID;
}
int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    LOOK();
    return text_out("stand-in", out, size);
}

int nvmlDeviceGetMemoryInfo(handle h, bytes *out) { /* total, free, used */
    LOOK();
    device *d = found(&f, h);
    if (!d) return INVALID;
    out[0] = d->total, out[1] = d->available, out[2] = d->used;
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(handle h, bytes *out) { /* version, total, reserved, free, used */
    LOOK();
    device *d = found(&f, h);
    if (!d) return INVALID;
    out[1] = d->total, out[2] = d->reserved, out[3] = d->available;
    out[4] = d->used == NA || d->reserved == NA ? d->used : d->used - d->reserved;
    return OK;
}

int nvmlDeviceGetMigMode(handle h, unsigned *current, unsigned *pending) {
    LOOK();
    device *d = found(&f, h);
    if (!d) return INVALID;
    if (!f.instance_count) return NOT_SUPPORTED;
    *current = 0;
    for (int i = 0; i < f.instance_count; i++)
        if (f.instances[i].parent == d->index) *current = 1;
    *pending = *current;
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(handle h, unsigned *count) {
    LOOK();
    *count = found(&f, h) && f.instance_count ? 7 : 0;
    return OK;
}
int nvmlDeviceGetMigDeviceHandleByIndex(handle h, unsigned index, handle *out) {
    LOOK();
    device *d = found(&f, h);
    for (int i = 0; d && i < f.instance_count; i++)
        if (f.instances[i].parent == d->index && f.instances[i].index == (int)index)
            return *out = (handle)(MIG + i + 1L), OK;
    return NOT_FOUND;
}

/* `size` is that of the version's struct: pid at 0, used memory at 8, MIG ids at 16 where there. */
static int list(figures *f, handle h, int graphics, unsigned *count, char *out, size_t size) {
    device *d = found(f, h);
    unsigned there = 0, room = *count;
    if (!d || (long)h > MIG) return INVALID;
    for (int i = 0; i < f->process_count; i++) {
        process *p = &f->processes[i];
        if (p->index != d->index || p->graphics != graphics) continue;
        if (out && there < room) {
            char *entry = out + there * size;
            memset(entry, 0, size);
            memcpy(entry, &p->pid, sizeof p->pid);
            memcpy(entry + 8, &p->used, sizeof p->used);
            if (size == 24) memset(entry + 16, 0xff, 8);
        }
        there++;
    }
    *count = there;
    return there > room || (there && !out) ? TOO_SMALL : OK;
}
#define LISTS(name, graphics, size) \
    int name(handle h, unsigned *count, void *out) { \
        LOOK(); \
        return list(&f, h, graphics, count, out, size); \
    }
LISTS(nvmlDeviceGetComputeRunningProcesses, 0, 16)
LISTS(nvmlDeviceGetComputeRunningProcesses_v2, 0, 24)
LISTS(nvmlDeviceGetComputeRunningProcesses_v3, 0, 24)
LISTS(nvmlDeviceGetGraphicsRunningProcesses, 1, 16)
LISTS(nvmlDeviceGetGraphicsRunningProcesses_v2, 1, 24)
LISTS(nvmlDeviceGetGraphicsRunningProcesses_v3, 1, 24)
