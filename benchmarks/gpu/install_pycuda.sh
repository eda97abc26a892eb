#!/usr/bin/env bash
# Builds and installs PyCUDA where plain pip fails: without cuRAND, and without a libcuda.so to link against.
#
#     bash benchmarks/gpu/install_pycuda.sh [pip's options, as --target DIR]
#
# Needs a C++ compiler and CUDA's headers: CUDA_ROOT/include/cuda.h, by default /usr/local/cuda. Takes minutes.
# What it links against is a libcuda.so.1 of empty functions, thrown away afterwards; `import pycuda.driver`
# takes the driver's.
set -euo pipefail

root=${CUDA_ROOT:-/usr/local/cuda}
python=${PYTHON:-python3}
if [ ! -f "$root/include/cuda.h" ]; then
    echo "Error: no $root/include/cuda.h; set CUDA_ROOT to where CUDA's headers are" >&2
    exit 2
fi
if ! command -v "${CXX:-g++}" >/dev/null; then
    echo "Error: no C++ compiler; apt-get install g++ python3-dev" >&2
    exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# every function that the headers declare, by the name that it has in the library (cuMemAlloc is cuMemAlloc_v2)
mkdir "$work/stub"
printf '#include <%s>\n' cuda.h cudaProfiler.h | "${CXX:-g++}" -x c++ -E -P -I"$root/include" - |
    grep -oE '\bcu[A-Z][A-Za-z0-9_]* *\(' | tr -d ' (' | sort -u |
    sed 's/.*/void &(void) {}/' >"$work/stub/cuda.c"
"${CC:-gcc}" -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$work/stub/libcuda.so" "$work/stub/cuda.c"
if [ -n "${ONLY_STUB:-}" ]; then
    cp "$work/stub/libcuda.so" "$ONLY_STUB"
    exit
fi

"$python" -m pip download -q --no-deps --no-binary pycuda --no-build-isolation -d "$work" "pycuda${PYCUDA_VERSION:+==$PYCUDA_VERSION}"
tar -xzf "$work"/pycuda-*.tar.gz -C "$work"
cd "$work"/pycuda-*/
"$python" configure.py --cuda-root="$root" --no-cuda-enable-curand
LIBRARY_PATH="$work/stub${LIBRARY_PATH:+:$LIBRARY_PATH}" "$python" -m pip install . "$@"
