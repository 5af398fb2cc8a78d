// Where the calling thread's OpenMP threads run.

#include <omp.h>

#include <cstdint>

#if defined(__linux__)
#include <sched.h>

// Binds each to a core of its own, if there are as many as `cores`; cheap where it did so before.
extern "C" void spread_threads(const int32_t* cores, int64_t num_cores) {
    if (omp_get_max_threads() != num_cores) return;
#pragma omp parallel
    {
        static thread_local int32_t bound = -1;
        const int32_t core = cores[omp_get_thread_num()];
        if (bound != core) {
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
