// How byte-level BPE cuts text into pieces before it merges: hand-written forms of the published regular expressions.
//
//   gpt2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   cl100k  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//   qwen2   the same with \p{N} in place of \p{N}{1,3}
//   none    no cuts
//
// Sources: GPT-2's encoder.py; tiktoken's openai_public.py; the tokenizer.json of Llama-3 and Qwen2. \s is Unicode White_Space, \p{L} and
// \p{N} are the general categories (unicode.h). A byte that is no valid UTF-8 counts as one character that is neither letter, number nor space.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace heddle {

enum class SplitRule : uint8_t { none, gpt2, cl100k, qwen2 };

// The end of the piece that begins at `begin` (< text.size()); > begin. The pieces of a text are [0, e0), [e0, e1), ...
size_t piece_end(SplitRule rule, std::string_view text, size_t begin);

}  // namespace heddle
