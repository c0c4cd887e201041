# The kernels, one name a source: what an architecture is the first to run. Every build (nvcc, simulated) and every gate reads these two lists.
set(heddle_cuda_sm80
  adamw.cu
  attention_fwd_sm80.cu
  dropout.cu
  embedding_backward.cu
  embedding_forward.cu
  gemm_simt.cu
  gemm_sm80.cu
  grid_sum.cu
  matmul_finish.cu
  muon.cu
  norm_forward.cu
  normalize.cu
  step_state.cu)
set(heddle_cuda_sm90a
  gemm_sm90.cu)
