// Which tokens of a vocabulary the rows of an embedding, or the columns of a head's logits, stand for.
#pragma once

#include <cstdint>

#include "kernels/api/types.h"

namespace heddle {

// Row r of `rows` is token first + r. Tokens that other shards hold lie outside; rows behind the vocabulary's end are padding. The default is the
// whole vocabulary, a token a row.
struct VocabShard {
  int64_t first = 0;
  int64_t vocabulary = 0;  // tokens of all shards together; 0: first + rows

  HEDDLE_HOST_DEVICE constexpr int64_t tokens(int64_t rows) const { return vocabulary > 0 ? vocabulary : first + rows; }  // in all
  HEDDLE_HOST_DEVICE constexpr int64_t held(int64_t rows) const {                                                         // rows that are no padding
    const int64_t behind = tokens(rows) - first;
    return behind < 0 ? 0 : behind < rows ? behind : rows;
  }
  HEDDLE_HOST_DEVICE constexpr bool whole(int64_t rows) const { return first == 0 && held(rows) == tokens(rows); }
  // The row of a token, -1 when this shard does not hold it.
  HEDDLE_HOST_DEVICE constexpr int64_t row(int64_t token, int64_t rows) const {
    return token >= first && token < first + held(rows) ? token - first : -1;
  }
};

}  // namespace heddle
