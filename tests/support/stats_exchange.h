// What the ranks that share a vocabulary tell each other about a loss, without ranks: every shard is run twice, first to say what it knows, then with
// what all have said.
//
//   StatsExchange exchange;
//   for each shard s, in order: linear_cross_entropy(..., exchange.say({.shard = s}));    // its result means nothing
//   for each shard s:           linear_cross_entropy(..., exchange.hear({.shard = s}));
#pragma once

#include <memory>
#include <vector>

#include "core/ops/ops.h"

namespace heddle::test {

class StatsExchange {
 public:
  LossOptions say(LossOptions options) {
    said_.emplace_back();
    options.gather = [this, shard = said_.size() - 1](const Tensor& stats) {
      said_[shard].push_back(concat(std::vector<Tensor>{reshape(stats, {1, stats.size(0), stats.size(1)})}, 0));  // a copy: the op uses its own again
      return said_[shard].back();
    };
    return options;
  }
  LossOptions hear(LossOptions options) const {
    options.gather = [this, chunk = std::make_shared<size_t>(0)](const Tensor&) {
      std::vector<Tensor> all;
      for (const std::vector<Tensor>& chunks : said_) all.push_back(chunks.at(*chunk));
      ++*chunk;
      return concat(all, 0);
    };
    return options;
  }

 private:
  std::vector<std::vector<Tensor>> said_;  // by shard and chunk: (1, R, 3)
};

}  // namespace heddle::test
