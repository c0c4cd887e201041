// Muon: orthogonalised momentum of every matrix, stacked ones part by part, AdamW on the rest.
#include "kernels/cpu/intrinsics_internal.h"  // before Eigen

#include <Eigen/SVD>

#include "optim/muon.h"
#include "tests/optim/support.h"

namespace heddle {
namespace {

using test::Bound;
using test::OptimCase;
using test::take_step;
using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Matrix matrix_of(const std::vector<double>& values, int64_t rows, int64_t columns) {
  return Eigen::Map<const Matrix>(values.data(), rows, columns);
}

Matrix random_matrix(int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal;
  Matrix x(rows, columns);
  for (int64_t i = 0; i < rows * columns; ++i) x.data()[i] = normal(engine);
  return x;
}

// The iteration as it acts on singular values: X = U S V^T goes to U p(S) V^T with p(s) = a s + b s^3 + c s^5 (Jordan et al. 2024).
Matrix orthogonalised(const Matrix& x, int iterations) {
  Eigen::JacobiSVD<Matrix, Eigen::ColPivHouseholderQRPreconditioner> svd(x, Eigen::ComputeThinU | Eigen::ComputeThinV);
  Eigen::VectorXd s = svd.singularValues() / (x.norm() + static_cast<double>(1e-7f));
  for (int i = 0; i < iterations; ++i) {
    s = s.unaryExpr([](double v) { return 3.4445 * v - 4.7750 * v * v * v + 2.0315 * v * v * v * v * v; }).eval();
  }
  return svd.matrixU() * s.asDiagonal() * svd.matrixV().transpose();
}

Eigen::VectorXd singular_values(const Matrix& x) {
  return Eigen::JacobiSVD<Matrix>(x).singularValues();
}

// What rounding may do to one element: each iteration's three products round (2 m + n terms, factors of norm below 4), and |p'| <= a carries what
// is there on to the next.
double iteration_bound(const Matrix& x, DType type, int iterations) {
  const double terms = static_cast<double>(2 * std::min(x.rows(), x.cols()) + std::max(x.rows(), x.cols()) + 8);
  double error = 0;
  for (int i = 0; i < iterations; ++i) error = 3.4445 * error + 4 * test::gamma(terms, type);
  return error;
}

DEVICE_TEST_CASE("newton_schulz drives every singular value near 1 and keeps the singular vectors") {
  const DType type = GENERATE(DType::f32, DType::f64);
  struct Size {
    int64_t rows, columns;
  };
  const Size sizes[] = {{6, 40}, {40, 6}, {16, 16}, {1, 9}, {9, 1}, {33, 65}, {100, 130}, {130, 100}};
  for (const Size& size : sizes) {
    for (int iterations : {1, 5, 6}) {
      CAPTURE(name_of(type), size.rows, size.columns, iterations);
      const Matrix start = random_matrix(size.rows, size.columns, 3);
      const Tensor x = test::tensor({start.data(), start.data() + start.size()}, {size.rows, size.columns}, type);
      const Matrix given = matrix_of(x.to_vector(), size.rows, size.columns);
      NewtonSchulz(type, test::device())(x, iterations);
      const Matrix got = matrix_of(x.to_vector(), size.rows, size.columns), want = orthogonalised(given, iterations);
      CHECK((got - want).cwiseAbs().maxCoeff() <= iteration_bound(given, type, iterations));
      if (iterations < 5) continue;
      const Eigen::VectorXd s = singular_values(got);
      CHECK(s.minCoeff() >= 0.6);
      CHECK(s.maxCoeff() <= 1.3);
    }
  }
}

DEVICE_TEST_CASE("newton_schulz leaves a zero matrix zero") {
  const Tensor x = test::zeros({4, 6});
  NewtonSchulz(DType::f32, test::device())(x, 5);
  CHECK(x.to_vector() == std::vector<double>(24, 0.0));
}

constexpr AdamWOptions kRest{.lr = 0.01f, .weight_decay = 0.5f};

struct Stacked {
  const char* name;
  int64_t first_row, rows, columns;
};
constexpr Stacked kParts[] = {{"wide.weight", 0, 5, 31}, {"tall.weight", 0, 18, 5}, {"square.weight", 0, 16, 16},
                              {"qkv.weight", 0, 8, 6},   {"qkv.weight", 8, 4, 6},   {"qkv.weight", 12, 4, 6}};

Matrix part_of(const std::vector<double>& values, const Stacked& part) {
  return matrix_of({values.begin() + part.first_row * part.columns, values.begin() + (part.first_row + part.rows) * part.columns}, part.rows,
                   part.columns);
}

DEVICE_TEST_CASE("muon follows its oracle: momentum, Nesterov, scale, decay, rates, stacked parts") {
  const bool nesterov = GENERATE(false, true);
  CAPTURE(nesterov);
  OptimCase c(DType::f64);
  const MuonOptions options{.lr = 0.03125f, .weight_decay = 0.25f, .momentum = 0.875f, .nesterov = nesterov};
  const auto optimizer = make_muon(c.arena, options, kRest, [](const Layout::Slot& s) { return s.name == "wide.weight" ? 2.0f : 1.0f; });
  std::vector<Matrix> momentum, master;
  std::vector<double> bounds;
  for (const Stacked& part : kParts) {
    momentum.push_back(Matrix::Zero(part.rows, part.columns));
    master.push_back(part_of(c.parameter(part.name).tensor().to_vector(), part));
    bounds.push_back(0);
  }
  for (int step = 0; step < 4; ++step) {
    c.draw_gradients(static_cast<uint32_t>(step));
    StepState s;
    s.adam_t = static_cast<uint64_t>(step);
    s.lr = 1 - 0.25f * static_cast<float>(step);
    s.clip_scale = step == 2 ? 0.125f : 1.0f;
    take_step(*optimizer, s);
    for (size_t k = 0; k < std::size(kParts); ++k) {
      const Stacked& part = kParts[k];
      const Parameter& p = c.parameter(part.name);
      const Matrix grad = part_of(p.tensor().grad().to_vector(), part) * static_cast<double>(s.clip_scale);
      const double beta = options.momentum, decay = options.weight_decay;
      momentum[k] = beta * momentum[k] + (1 - beta) * grad;
      const Matrix direction = nesterov ? Matrix((1 - beta) * grad + beta * momentum[k]) : momentum[k];
      const double rate = static_cast<double>(options.lr) * p.spec().lr_scale * (std::string(part.name) == "wide.weight" ? 2 : 1) * s.lr;
      const double scale = std::sqrt(std::max(1.0, static_cast<double>(part.rows) / static_cast<double>(part.columns)));
      master[k] -= rate * (scale * orthogonalised(direction, options.iterations) + decay * master[k]);
      // The scale is a float; the rest is in f64.
      bounds[k] += rate * scale * (iteration_bound(direction, DType::f64, options.iterations) + 1.3 * 0x1p-24);
      const Matrix got = part_of(p.tensor().to_vector(), part);
      CAPTURE(step, part.name, part.first_row);
      CHECK((got - master[k]).cwiseAbs().maxCoeff() <= bounds[k]);
    }
  }
}

DEVICE_TEST_CASE("muon: the update of every part, stacked ones too, is semi-orthogonal times sqrt(max(1, R / C))") {
  OptimCase c(DType::f32);
  const auto optimizer = make_muon(c.arena, {.lr = 1}, kRest);
  std::map<std::string, std::vector<double>> before;
  for (const Parameter& p : c.arena.parameters()) before[p.name()] = p.tensor().to_vector();
  c.draw_gradients(7);
  StepState s;
  s.lr = 1;
  take_step(*optimizer, s);
  for (const Stacked& part : kParts) {
    CAPTURE(part.name, part.first_row);
    const Parameter& p = c.parameter(part.name);
    const Matrix update = (part_of(before[part.name], part) - part_of(p.tensor().to_vector(), part)) / p.spec().lr_scale;
    const Eigen::VectorXd values =
        singular_values(update) / std::sqrt(std::max(1.0, static_cast<double>(part.rows) / static_cast<double>(part.columns)));
    // Five iterations lift a singular value by at most 3.4445^5: a square Gaussian matrix has smaller ones than that can save.
    if (part.rows != part.columns) CHECK(values.minCoeff() >= 0.6);
    CHECK(values.maxCoeff() <= 1.3);
    CHECK(values.norm() / std::sqrt(static_cast<double>(values.size())) >= 0.6);
  }
}

DEVICE_TEST_CASE("muon: everything that is no matrix moves exactly as under AdamW") {
  OptimCase a(DType::bf16), b(DType::bf16);
  const auto muon = make_muon(a.arena, {}, kRest), adamw = make_adamw(b.arena, kRest);
  for (int step = 0; step < 3; ++step) {
    StepState s;
    s.lr = 0.5f;
    s.adam_t = static_cast<uint64_t>(step);
    a.draw_gradients(static_cast<uint32_t>(step));
    b.draw_gradients(static_cast<uint32_t>(step));
    take_step(*muon, s);
    take_step(*adamw, s);
  }
  const auto got = test::entries(*muon), want = test::entries(*adamw);
  for (const char* prefix : {"model.", "optim.m.", "optim.v."}) {
    for (const char* name : {"table", "norm.weight", "wide.bias"}) {
      CAPTURE(prefix, name);
      CHECK(test::values_of(got.at(std::string(prefix) + name)) == test::values_of(want.at(std::string(prefix) + name)));
    }
  }
  CHECK(test::values_of(got.at("model.wide.weight")) != test::values_of(want.at("model.wide.weight")));
}

DEVICE_TEST_CASE("muon: its phases, taken one by one, are its step") {
  OptimCase a(DType::bf16), b(DType::bf16);
  const auto whole = make_muon(a.arena, {}, kRest);
  Muon phases(b.arena, {}, kRest, {}, {});
  REQUIRE(phases.matrices().size() == std::size(kParts));
  StepState s;
  s.lr = 0.5f;
  a.draw_gradients(1), b.draw_gradients(1);
  take_step(*whole, s);
  const test::DeviceValue<StepState> state(s);
  for (size_t i = phases.matrices().size(); i-- > 0;) {  // in any order
    const Muon::Matrix& m = phases.matrices()[i];
    const Tensor update = Tensor::empty({m.rows, m.columns}, DType::f32, test::device());
    phases.momentum(m, update, state.get());
    phases.orthogonalise(update);
    phases.apply(m, update, state.get());
  }
  const auto want = test::entries(*whole), got = test::entries(phases);
  for (const char* name : {"model.q.weight", "model.v.weight", "optim.momentum.tall.weight", "model.square.weight"}) {
    CAPTURE(name);
    CHECK(test::values_of(got.at(name)) == test::values_of(want.at(name)));
  }
}

DEVICE_TEST_CASE("muon: a matrix of which only a part is here is an error") {
  struct Sliced final : Module {
    Sliced() { add("w", {.kind = ParamKind::matrix, .parts = {{.global = {8, 6}, .box = {{0, 4}, {0, 6}}}}}); }
  };
  const Sliced model;
  Arena arena(model, test::device(), DType::f32);
  CHECK_THROWS_WITH(make_muon(arena, {}, kRest), Catch::Matchers::Contains("w is only partly on this rank"));
  OptimCase c(DType::f32);  // 155 elements of wide.weight: the border at 128 cuts it
  CHECK_THROWS_WITH(make_muon(c.arena, {}, kRest, {}, std::vector<Range>{{0, 128}}),
                    Catch::Matchers::Contains("wide.weight is only partly on this rank"));
}

}  // namespace
}  // namespace heddle
