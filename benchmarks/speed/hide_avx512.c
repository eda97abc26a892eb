/* Hides AVX-512, VNNI, bf16 and AMX from a program: CPUID does not name them, as on a CPU with AVX2 alone.

   Linux lets a thread forbid itself the instruction CPUID (arch_prctl(2), ARCH_SET_CPUID). Its threads and forks
   inherit that; a new program does not, so LD_PRELOAD must load this library into it. Each CPUID then raises
   SIGSEGV, and the handler answers in its place. The program can set no handler of its own for SIGSEGV. */

#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))

enum { ARCH_SET_CPUID = 0x1012, FORBIDDEN = 0, ALLOWED = 1 };

/* Of CPUID's leaf 7 (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2A, CPUID). */
static const unsigned
    /* avx512f, dq, ifma, pf, er, cd, bw, vl */
    LEAF_7_EBX = BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31),
    /* avx512_vbmi, vbmi2, vnni, bitalg, vpopcntdq */
    LEAF_7_ECX = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14),
    /* avx512_4vnniw, 4fmaps, vp2intersect, amx_bf16, avx512_fp16, amx_tile, amx_int8 */
    LEAF_7_EDX = BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25),
    /* avx_vnni, avx512_bf16, amx_fp16, avx_ifma */
    LEAF_7_1_EAX = BIT(4) | BIT(5) | BIT(21) | BIT(23),
    /* avx_vnni_int8, avx_ne_convert, amx_complex, avx_vnni_int16, avx10 */
    LEAF_7_1_EDX = BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19);

typedef int set_action(int, const struct sigaction *, struct sigaction *);
typedef sighandler_t set_handler(int, sighandler_t);

static int is_cpuid(const siginfo_t *fault, const greg_t *registers)
{
    const unsigned char *instruction = (const unsigned char *)registers[REG_RIP];

    return fault->si_code == SI_KERNEL && instruction[0] == 0x0f && instruction[1] == 0xa2;
}

static void answer(int number, siginfo_t *fault, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;

    if (!is_cpuid(fault, registers)) {
        /* the program's own fault comes again, and ends it */
        ((set_handler *)dlsym(RTLD_NEXT, "signal"))(number, SIG_DFL);
        return;
    }
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, ALLOWED);
    __cpuid_count(leaf, part, a, b, c, d);
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, FORBIDDEN);
    if (leaf == 7 && part == 0) {
        b &= ~LEAF_7_EBX;
        c &= ~LEAF_7_ECX;
        d &= ~LEAF_7_EDX;
    } else if (leaf == 7 && part == 1) {
        a &= ~LEAF_7_1_EAX;
        d &= ~LEAF_7_1_EDX;
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

/* Compilers and Python's faulthandler report a SIGSEGV by handlers of their own. */

int sigaction(int number, const struct sigaction *action, struct sigaction *before)
{
    return ((set_action *)dlsym(RTLD_NEXT, "sigaction"))(number, number == SIGSEGV ? 0 : action, before);
}

sighandler_t signal(int number, sighandler_t handler)
{
    return number == SIGSEGV ? SIG_DFL : ((set_handler *)dlsym(RTLD_NEXT, "signal"))(number, handler);
}

__attribute__((constructor)) static void forbid(void)
{
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    set_action *set = (set_action *)dlsym(RTLD_NEXT, "sigaction");

    if (set(SIGSEGV, &action, 0) || syscall(SYS_arch_prctl, ARCH_SET_CPUID, FORBIDDEN)) {
        fputs("this CPU, kernel or virtual machine cannot forbid CPUID\n", stderr);
        _exit(3);
    }
}
