// The CPU's attention candidates and the checks they share.
#include "kernels/cpu/attention_internal.h"
#include "kernels/cpu/attention_tasks_internal.h"
#include "kernels/cpu/register_internal.h"
#include "kernels/cpu/rules_internal.h"

namespace heddle::kernels::cpu {

Refusal head_size_refusal(const View& q) {
  if (q.rank != 4 || q.size(3) <= attention::kMaxHead) return std::nullopt;
  return refused("head size ", q.size(3), " is above ", attention::kMaxHead);
}

bool documents_start_before(Fault* fault, const View& document_start, int64_t queries) {
  if (!document_start) return true;
  for (int64_t b = 0; b < document_start.size(0); ++b) {
    const int32_t* start = document_start.as<const int32_t>() + b * document_start.step(0);
    for (int64_t t = 0; t < queries; ++t) {
      if (start[t] < 0 || start[t] > t)
        return noted(fault, {.kind = FaultKind::document_start, .row = b, .column = t, .value = start[t], .limit = t});
    }
  }
  return true;
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
