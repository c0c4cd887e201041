// Attention's candidates without tensor cores: f32 and bf16, any strides, head dimensions up to 256.
#include "kernels/cuda/attention_simt.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

template <class Args>
Refusal refuses(const Args& args) {
  if (args.q.dtype != DType::f32 && args.q.dtype != DType::bf16) return refused("f32 and bf16 only, not ", args.q);
  if (args.q.size(3) > kAttentionSimtMostColumns) return refused("head size ", args.q.size(3), " is above ", kAttentionSimtMostColumns);
  return attention_too_large(args);
}

// launch(configuration) with the narrowest that holds the head dimension.
template <class Launch>
void with_config(int head_dim, const Launch& launch) {
  if (head_dim <= 64) return launch.template operator()<AttentionSimtConfig{64}>();
  if (head_dim <= 128) return launch.template operator()<AttentionSimtConfig{128}>();
  launch.template operator()<AttentionSimtConfig{256}>();
}

template <class T>
void forward_as(const AttentionForwardArgs& args, Stream stream) {
  auto p = attention_simt_params<T>(args);
  p.out = heads_view<T>(args.out);
  with_config(p.head_dim, [&]<AttentionSimtConfig kConfig>() { launch_attention_simt_forward<kConfig>(p, stream); });
}

void forward(const AttentionForwardArgs& args, Stream stream) {
  if (args.q.numel() == 0) return;
  if (args.q.dtype == DType::f32) return forward_as<float>(args, stream);
  forward_as<bf16>(args, stream);
}

template <class T>
void backward_as(const AttentionBackwardArgs& args, Stream stream) {
  auto* const delta = reinterpret_cast<float*>(args.scratch.data());
  launch_attention_delta<T>(args, delta, stream);
  auto p = attention_simt_params<T>(args);
  p.d_out = heads_view<const T>(args.d_out);
  p.dq = heads_view<T>(args.dq);
  p.dk = heads_view<T>(args.dk);
  p.dv = heads_view<T>(args.dv);
  p.delta = delta;
  with_config(p.head_dim, [&]<AttentionSimtConfig kConfig>() { launch_attention_simt_backward<kConfig>(p, stream); });
}

void backward(const AttentionBackwardArgs& args, Stream stream) {
  if (args.q.numel() == 0) return;
  if (args.q.dtype == DType::f32) return backward_as<float>(args, stream);
  backward_as<bf16>(args, stream);
}

}  // namespace

void register_attention_simt() {
  attention_forward.add(DeviceType::cuda, {"simt", refuses<AttentionForwardArgs>, nullptr, forward});
  attention_backward.add(DeviceType::cuda, {"simt", refuses<AttentionBackwardArgs>, attention_delta_bytes, backward});
}

}  // namespace heddle::kernels::cuda
