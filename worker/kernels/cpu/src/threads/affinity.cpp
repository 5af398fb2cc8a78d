// CPU affinity of the calling thread's OpenMP threads.

#include <omp.h>

#include <cstdint>

#if defined(__linux__)
#include <sched.h>

// Binds each thread to a core of its own, unless the environment configures OpenMP's thread placement.
extern "C" void spread_threads(const int32_t* cores, int64_t num_cores) {
    if (omp_get_max_threads() != num_cores || omp_get_proc_bind() != omp_proc_bind_false) return;
#pragma omp parallel
    {
        const int32_t core = cores[omp_get_thread_num()];
        static thread_local int32_t bound = -1;
        if (bound != core || sched_getcpu() != core) {  // the affinity may have been changed elsewhere
            cpu_set_t set;
            CPU_ZERO(&set);
            CPU_SET(core, &set);
            if (sched_setaffinity(0, sizeof set, &set) == 0) bound = core;
        }
    }
}
#else
extern "C" void spread_threads(const int32_t*, int64_t) {}
#endif
