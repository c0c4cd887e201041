# The kernels, one name a source: what an architecture is the first to run. Every build (nvcc, simulated) and every gate reads these two lists.
set(heddle_cuda_sm80
  attention_fwd_sm80.cu
  dropout.cu
  gemm_sm80.cu
  grid_sum.cu
  norm_forward.cu)
set(heddle_cuda_sm90a
  gemm_sm90.cu)
