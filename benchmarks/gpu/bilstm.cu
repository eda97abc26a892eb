// The recurrence of one bidirectional LSTM layer in one launch, after Diamos et al., "Persistent RNNs" (ICML
// 2016): weights stay in registers for all time steps. Needs thread block clusters (compute capability 9.0).
//
// A cluster of 8 blocks computes one direction of TILE images. Each block owns HIDDEN / 8 units; 8 threads
// share a unit, and each has the weights of its four gates for an eighth of the columns: HIDDEN / 2 registers.
// After each step a block writes its part of the new state into the shared memory of all eight, and the
// cluster waits; two states in turn make one wait a step enough. Clusters do not wait for each other, so any
// number of images may be launched.
//
// projected  (steps, batch, 2, 4 x HIDDEN)  inputs times weights and both biases; gates i, f, g, o as PyTorch's
// recurrent  (2, 4 x HIDDEN, HIDDEN)        weights of the state
// output     (steps, batch, 2 x HIDDEN)
//
// Grid (8, 2, ceil(batch / TILE)), HIDDEN threads. HIDDEN: a multiple of 32, at most 256. TILE: 1, 2, 4 or 8.

#define BLOCKS 8
#define LANES 8
#define UNITS (HIDDEN / BLOCKS)
#define PIECES (HIDDEN / (4 * LANES))  // float4 of a thread in a row of weights

static_assert(HIDDEN % 32 == 0 && HIDDEN <= 256, "weights fit the registers");
static_assert(TILE >= 1 && TILE <= LANES, "each image of a tile has a lane");

__device__ __forceinline__ void wait_for_cluster() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// Write to the same place of another block's shared memory.
__device__ __forceinline__ void store_in_block(float *place, unsigned block, float value) {
    unsigned own = static_cast<unsigned>(__cvta_generic_to_shared(place)), theirs;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(theirs) : "r"(own), "r"(block));
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(theirs), "f"(value) : "memory");
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

extern "C" __global__ void __cluster_dims__(BLOCKS, 1, 1) __launch_bounds__(HIDDEN)
    bilstm(const float *__restrict__ projected, const float *__restrict__ recurrent, float *__restrict__ output,
           int steps, int batch) {
    __shared__ float4 state[2][TILE][HIDDEN / 4];

    const int lane = threadIdx.x % LANES;
    const int unit = blockIdx.x * UNITS + threadIdx.x / LANES;
    const int direction = blockIdx.y;
    const int image = blockIdx.z * TILE + lane;  // that this thread finishes, where lane < TILE
    const bool finishes = lane < TILE;
    const bool exists = finishes && image < batch;

    float4 weights[4][PIECES];  // columns 32 x piece + 4 x lane and the three after it
#pragma unroll
    for (int gate = 0; gate < 4; ++gate) {
        const size_t row = (size_t(direction) * 4 + gate) * HIDDEN + unit;
        const float4 *columns = reinterpret_cast<const float4 *>(recurrent + row * HIDDEN);
#pragma unroll
        for (int piece = 0; piece < PIECES; ++piece) weights[gate][piece] = columns[LANES * piece + lane];
    }
    for (int i = threadIdx.x; i < TILE * HIDDEN / 4; i += HIDDEN)
        (&state[0][0][0])[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float cell = 0.0f;
    wait_for_cluster();  // every block is there, and its state is zero

    for (int step = 0; step < steps; ++step) {
        const int time = direction ? steps - 1 - step : step;
        const size_t frame = size_t(time) * batch + image;
        const int now = step % 2, next = 1 - now;

        float gates[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (exists) {
#pragma unroll
            for (int gate = 0; gate < 4; ++gate)
                gates[gate] = projected[((frame * 2 + direction) * 4 + gate) * HIDDEN + unit];
        }
        float sums[4][TILE] = {};
#pragma unroll
        for (int piece = 0; piece < PIECES; ++piece) {
#pragma unroll
            for (int at = 0; at < TILE; ++at) {
                const float4 h = state[now][at][LANES * piece + lane];
#pragma unroll
                for (int gate = 0; gate < 4; ++gate) {
                    const float4 w = weights[gate][piece];
                    sums[gate][at] = fmaf(w.x, h.x, sums[gate][at]);
                    sums[gate][at] = fmaf(w.y, h.y, sums[gate][at]);
                    sums[gate][at] = fmaf(w.z, h.z, sums[gate][at]);
                    sums[gate][at] = fmaf(w.w, h.w, sums[gate][at]);
                }
            }
        }
#pragma unroll
        for (int gate = 0; gate < 4; ++gate) {
#pragma unroll
            for (int at = 0; at < TILE; ++at) {
#pragma unroll
                for (int other = LANES / 2; other; other /= 2)
                    sums[gate][at] += __shfl_xor_sync(0xffffffffu, sums[gate][at], other);
                if (lane == at) gates[gate] += sums[gate][at];
            }
        }
        if (finishes) {
            cell = sigmoid(gates[1]) * cell + sigmoid(gates[0]) * tanhf(gates[2]);
            const float hidden = sigmoid(gates[3]) * tanhf(cell);
            float *place = reinterpret_cast<float *>(&state[next][lane][0]) + unit;
#pragma unroll
            for (unsigned block = 0; block < BLOCKS; ++block) store_in_block(place, block, hidden);
            if (exists) output[(frame * 2 + direction) * HIDDEN + unit] = hidden;
        }
        wait_for_cluster();  // the next state is whole, and nobody reads the last one any more
    }
}
