// Linear layers split over the tensor-parallel ranks (Shoeybi et al. 2019, "Megatron-LM", section 3). One rank is not a special case.
//
//   column: every rank has all of x and some rows of W:            y_r = x W_r^T + b_r
//   row:    x_r meets the columns of W that belong to it:          y = sum over ranks of x_r W_r^T, plus b
//
// A column layer, something that keeps to the rank's own outputs (an activation, attention by heads), a row layer: the ranks meet twice, at x's
// gradient and at y. column_input() and row_output() are those two places.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/layout.h"
#include "core/nn/module.h"
#include "core/ops/ops.h"

namespace heddle {

// x, which all ranks have, on its way into this rank's rows; its gradient is the sum over the ranks.
Tensor column_input(const Tensor& x, const MeshShape& mesh);
// The sum over the ranks of what each computed; its gradient is every rank's.
Tensor row_output(const Tensor& y, const MeshShape& mesh);

// The share of this tp rank of `count` things in a row, heads for example. `shared`: where there are fewer than ranks, neighbours have the same one.
// Error naming `what` when they do not divide.
Range tp_share(std::string_view what, int64_t count, const MeshShape& mesh, bool shared = false);

class ColumnLinear final : public Module {
 public:
  // A logical tensor among those whose product is one; each is split on its own.
  struct Rows {
    std::string name;     // its Parts are "<name>.weight" and "<name>.bias"
    int64_t count = 0;    // over all ranks
    int64_t unit = 1;     // rows that stay together: the width of a head
    bool shared = false;  // fewer units than ranks are replicated, and each replica's gradient is what its own rank makes of it: K and V heads
  };
  struct Options {
    bool bias = false;  // split with the rows
    float init_std = 0.02f;
  };
  // The parameters are "<all the names>.weight" and ".bias": add the layer with an empty name.
  ColumnLinear(int64_t in, const std::vector<Rows>& stack, const Options& options, const MeshShape& mesh = {});

  Tensor forward(const Tensor& x) const { return linear(input(x), weight_, bias_); }  // (N, in) to (N, this rank's rows)
  // For an op that holds the product: x as it goes in.
  Tensor input(const Tensor& x) const { return column_input(x, mesh_); }
  const Parameter& weight() const { return weight_; }
  const Parameter& bias() const { return bias_; }  // undefined when there is none

 private:
  MeshShape mesh_;
  Parameter weight_, bias_;
};

class RowLinear final : public Module {
 public:
  struct Options {
    bool bias = false;
    float init_std = 0.02f;
    int64_t unit = 1;  // columns that stay together
  };
  RowLinear(int64_t in, int64_t out, const Options& options, const MeshShape& mesh = {});

  Tensor forward(const Tensor& x) const { return output(linear(x, weight_, added_bias())); }  // (N, this rank's columns) to (N, out)
  // For an op that holds the product: what it adds, and y as it comes out.
  const Parameter& weight() const { return weight_; }
  const Parameter& added_bias() const { return mesh_.tp_rank == 0 ? bias_ : none_; }  // once in the sum over the ranks
  Tensor output(const Tensor& y) const;

 private:
  MeshShape mesh_;
  Parameter weight_, bias_, none_;
};

}  // namespace heddle
