// The CPU's attention candidates and the checks they share.
#include "kernels/cpu/attention_internal.h"
#include "kernels/cpu/attention_tasks_internal.h"
#include "kernels/cpu/register_internal.h"

namespace heddle::kernels::cpu {

Refusal head_size_refusal(const View& q) {
  if (q.rank != 4 || q.size(3) <= attention::kMaxHead) return std::nullopt;
  return concat("head size ", q.size(3), " is above ", attention::kMaxHead);
}

void check_document_start(std::string_view op, const View& document_start, int64_t queries) {
  if (!document_start) return;
  for (int64_t b = 0; b < document_start.size(0); ++b) {
    const int32_t* start = document_start.as<const int32_t>() + b * document_start.step(0);
    for (int64_t t = 0; t < queries; ++t) {
      HEDDLE_CHECK(start[t] >= 0 && start[t] <= t, op, "document_start[", b, "][", t, "] is ", start[t], ", not in [0, ", t, "]");
    }
  }
}

double attention_flops(const View& q, const View& k) {
  return 4.0 * static_cast<double>(q.numel()) * static_cast<double>(k.size(1));
}

void register_cpu_attention() {
  if (!attention_forward.candidates(DeviceType::cpu).empty()) return;
  attention_forward.add(DeviceType::cpu, {"tiles", attention_refuses, nullptr, attention_run});
  attention_backward.add(DeviceType::cpu, {"tiles", attention_refuses, attention_scratch, attention_run});
}

}  // namespace heddle::kernels::cpu
