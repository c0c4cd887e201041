#include "parallel/unit_tree.h"

#include <algorithm>

namespace heddle {

bool siblings(const TreeNode& left, const TreeNode& right) {
  return left.level == right.level && left.index % 2 == 0 && left.index + 1 == right.index;
}

std::vector<TreeNode> tree_nodes(int64_t first, int64_t count) {
  std::vector<TreeNode> nodes;
  for (int64_t at = first, end = first + count; at < end;) {
    int level = 0;
    while (at % (int64_t{2} << level) == 0 && at + (int64_t{2} << level) <= end) ++level;
    nodes.push_back({level, at >> level});
    at += int64_t{1} << level;
  }
  return nodes;
}

int64_t tree_waiting(int64_t first, int64_t count) {
  size_t most = 0;
  for (int64_t done = 1; done < count; ++done) most = std::max(most, tree_nodes(first, done).size());
  return static_cast<int64_t>(most);
}

std::vector<TreeJoin> tree_joins(std::span<const TreeNode> nodes, bool all) {
  struct Sum {
    TreeNode node;
    int64_t at;
  };
  std::vector<TreeJoin> joins;
  std::vector<Sum> waiting;
  const auto join_last = [&] {
    const Sum right = waiting.back();
    waiting.pop_back();
    joins.push_back({waiting.back().at, right.at});
    waiting.back().node = waiting.back().node.parent();
  };
  for (const TreeNode& node : nodes) {
    waiting.push_back({node, node.first()});
    while (waiting.size() > 1 && siblings(waiting[waiting.size() - 2].node, waiting.back().node)) join_last();
  }
  while (all && waiting.size() > 1) join_last();
  return joins;
}

}  // namespace heddle
