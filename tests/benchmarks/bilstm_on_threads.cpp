// Runs benchmarks/gpu/bilstm.cu on the CPU: a thread for each of its threads, barriers for warps and clusters.
//
// kernel.inc is the kernel's source, in which shared memory, the store to another block and the wait for the
// cluster are those below. Reads steps, batch, then `projected` and `recurrent` from stdin; writes `output`.

#include <barrier>
#include <cmath>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __cluster_dims__(...)
#define __launch_bounds__(...)
#define __restrict__

struct float4 {
    float x, y, z, w;
};
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct Place {
    int x, y, z;
};
static thread_local Place threadIdx, blockIdx;

constexpr int kBlocks = 8, kWarp = 32;
using State = float4[2][TILE][HIDDEN / 4];
static State shared[kBlocks];
static std::barrier<> cluster(kBlocks *HIDDEN);

struct Warp {
    std::barrier<> barrier{kWarp};
    float values[kWarp];
};
static Warp warps[kBlocks][HIDDEN / kWarp];

static float __shfl_xor_sync(unsigned, float value, int other) {
    Warp &warp = warps[blockIdx.x][threadIdx.x / kWarp];
    const int lane = threadIdx.x % kWarp;
    warp.values[lane] = value;
    warp.barrier.arrive_and_wait();
    const float found = warp.values[lane ^ other];
    warp.barrier.arrive_and_wait();
    return found;
}

static void wait_for_cluster() { cluster.arrive_and_wait(); }

static void store_in_block(float *place, unsigned block, float value) {
    const auto offset = place - reinterpret_cast<float *>(&shared[blockIdx.x]);
    reinterpret_cast<float *>(&shared[block])[offset] = value;
}

#include "kernel.inc"

int main() {
    int sizes[2];
    if (fread(sizes, sizeof(int), 2, stdin) != 2) return 1;
    const size_t steps = sizes[0], batch = sizes[1];
    std::vector<float> projected(steps * batch * 8 * HIDDEN), output(steps * batch * 2 * HIDDEN, NAN);
    std::unique_ptr<float4[]> recurrent(new float4[2 * HIDDEN * HIDDEN]);  // aligned as the kernel reads it
    if (fread(projected.data(), sizeof(float), projected.size(), stdin) != projected.size()) return 1;
    if (fread(recurrent.get(), sizeof(float4), 2 * HIDDEN * HIDDEN, stdin) != 2 * HIDDEN * HIDDEN) return 1;
    for (int z = 0; z < (sizes[1] + TILE - 1) / TILE; ++z) {
        for (int y = 0; y < 2; ++y) {
            for (auto &state : shared) {
                for (auto &value : reinterpret_cast<float(&)[sizeof(State) / sizeof(float)]>(state)) value = NAN;
            }
            std::vector<std::thread> threads;
            for (int x = 0; x < kBlocks; ++x) {
                for (int at = 0; at < HIDDEN; ++at) {
                    threads.emplace_back([&, x, y, z, at] {
                        threadIdx = {at, 0, 0};
                        blockIdx = {x, y, z};
                        bilstm(projected.data(), reinterpret_cast<float *>(recurrent.get()), output.data(), sizes[0],
                               sizes[1]);
                    });
                }
            }
            for (auto &thread : threads) thread.join();
        }
    }
    return fwrite(output.data(), sizeof(float), output.size(), stdout) != output.size();
}
