# CONTRIBUTING.md, "Add a layer": an adapter behind every MLP of the Transformer.
new_file(core/nn/adapter.h adapter.h)

add_line(models/transformer.h [[#include "core/nn/layers.h"]] [[#include "core/nn/adapter.h"]])
add_line(models/transformer.h [[  Norm norm2_;]] [[  Adapter adapter_;]])
add_line(models/transformer.cpp [[      norm2_(c.dim, norm_options(c)),]] [[      adapter_(c.dim, (c.dim + 3) / 4),]])
add_line(models/transformer.cpp [[  add("mlp", mlp_);]] [[  add("adapter", adapter_);]])
change_line(models/transformer.cpp [[  return {m.sum, mlp_.forward(m.y)};]] [[  return {m.sum, adapter_.forward(mlp_.forward(m.y))};]])
came_to(1 2 5 0)
