// The attention entry points of the CPU, and what both check before they start.
#pragma once

#include "kernels/api/attention.h"

namespace heddle::kernels::cpu {

Refusal attention_refuses(const AttentionForwardArgs&);
void attention_run(const AttentionForwardArgs&, Stream);

Refusal attention_refuses(const AttentionBackwardArgs&);
size_t attention_scratch(const AttentionBackwardArgs&);
void attention_run(const AttentionBackwardArgs&, Stream);

// Tiles live in buffers of one thread, sized for heads up to kMaxHead.
Refusal head_size_refusal(const View& q);

// Every query must see at least its own key: 0 <= document_start[b][t] <= t. False: the first that does not is noted.
bool documents_start_before(Fault* fault, const View& document_start, int64_t queries);

// Of the forward pass, masking aside.
double attention_flops(const View& q, const View& k);

}  // namespace heddle::kernels::cpu
