// Collectives between processes: run by mpirun, every rank runs every case. Alone (no launcher) the cases pass over one rank.
#define OMPI_SKIP_MPICXX 1  // the C interface alone
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <thread>

#include "kernels/api/check.h"
#include "parallel/communicator.h"
#include "tests/support/buffer.h"
#include "tests/support/catch.h"
#include "tests/support/compare.h"

namespace heddle {
namespace {

using test::Buffer;
using test::values;

Communicator& world() {
  static const std::unique_ptr<Communicator> comm = world_communicator();
  return *comm;
}

// Element i as rank r holds it: small integers, so that sums are exact in any order and dtype.
double at(int rank, int64_t i) {
  return static_cast<double>((rank + 1) * 10 + i % 7);
}
double sum_at(int64_t i) {
  double sum = 0;
  for (int r = 0; r < world().size(); ++r) sum += at(r, i);
  return sum;
}
std::vector<double> expected(int64_t n, double (*value)(int64_t)) {
  std::vector<double> all;
  for (int64_t i = 0; i < n; ++i) all.push_back(value(i));
  return all;
}
Buffer mine(DType type, int64_t n) {
  Buffer data(type, {n});
  data.fill([](int64_t i) { return at(world().rank(), i); });
  return data;
}
std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}
bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("the world has the launcher's ranks") {
  const char* ranks = std::getenv("OMPI_COMM_WORLD_SIZE");
  if (!ranks) ranks = std::getenv("PMI_SIZE");
  REQUIRE(ranks != nullptr);
  CHECK(world().size() == std::atoi(ranks));
  CHECK(world().size() >= 2);
  CHECK(world().name() == "mpi");
}

TEST_CASE("all_reduce sums f32, f64 and i32 in place, now or started and finished later") {
  for (DType type : {DType::f32, DType::f64, DType::i32}) {
    for (int64_t n : {int64_t{0}, int64_t{1}, int64_t{1000}}) {
      Buffer data = mine(type, n);
      world().all_reduce(data.view(), Stream{});
      CHECK(values(data.view()) == expected(n, sum_at));
      CHECK(data.guards_intact());
    }
  }
  std::vector<Buffer> several;
  for (int64_t n : {5, 1, 70000}) several.push_back(mine(DType::f32, n));
  for (int repeat = 0; repeat < 2; ++repeat) {
    for (Buffer& b : several) b.fill([](int64_t i) { return at(world().rank(), i); });
    for (Buffer& b : several) world().start_all_reduce(b.view(), Stream{});
    Buffer between = mine(DType::f64, 3);  // other collectives may run meanwhile
    world().all_reduce(between.view(), Stream{});
    world().finish();
    CHECK(values(between.view()) == expected(3, sum_at));
    for (Buffer& b : several) CHECK(values(b.view()) == expected(b.view().numel(), sum_at));
  }
  world().finish();  // nothing started: returns
}

TEST_CASE("all_reduce: every rank gets the same bits") {
  Buffer data(DType::f32, {4097});
  data.normal(static_cast<uint32_t>(world().rank()) + 1);
  world().all_reduce(data.view(), Stream{});
  const auto* bytes = reinterpret_cast<const char*>(data.view().data);
  const auto all = world().gather_text(std::string(bytes, static_cast<size_t>(data.view().bytes())));
  for (const std::string& one : all) CHECK((one == all[0]));
}

TEST_CASE("gather_text_within gives what gather_text gives, short and long, again and again") {
  const std::unique_ptr<Communicator> comm = world().split(0, world().rank());
  for (const size_t size : {size_t{0}, size_t{1}, size_t{300000}}) {
    for (int round = 0; round < 20; ++round) {
      const std::string mine(size + static_cast<size_t>(comm->rank()), static_cast<char>('a' + round));
      CHECK((comm->gather_text_within(mine, 30) == comm->gather_text(mine)));
    }
  }
}

TEST_CASE("gather_text_within gives up on a rank that does not answer, in time and by name") {
  const std::unique_ptr<Communicator> comm = world().split(0, world().rank());
  const int silent = comm->size() - 1;
  if (comm->rank() != silent) {
    const auto start = std::chrono::steady_clock::now();
    const std::string text = message([&] { comm->gather_text_within("here", 0.3); });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    CHECK(has(text, "no answer within 0.3 s from"));
    if (comm->rank() == 0) CHECK(has(text, concat("rank ", silent, ":")));
    CHECK(seconds >= 0.3);
    CHECK(seconds < 20);  // on a busy machine too; without the limit it would be for ever
  }
  world().barrier();
}

TEST_CASE("reduce_scatter gives each rank its part of the sum, all_gather joins them again") {
  const int64_t n = 6, all = n * world().size();
  Buffer data = mine(DType::f32, all), part(DType::f32, {n}), joined(DType::f32, {all});
  world().reduce_scatter(data.view(), part.view(), Stream{});
  const std::vector<double> sums = expected(all, sum_at);
  const auto first = sums.begin() + world().rank() * n;
  CHECK(values(part.view()) == std::vector<double>(first, first + n));
  CHECK(part.guards_intact());
  world().all_gather(part.view(), joined.view(), Stream{});
  CHECK(values(joined.view()) == sums);

  // In place: a rank's part already lies where it belongs.
  Buffer whole(DType::bf16, {all});
  whole.fill([&](int64_t i) { return i / n == world().rank() ? static_cast<double>(i) : -1.0; });
  View own = whole.view();
  own.shape[0] = n;
  own.data += world().rank() * n * size_of(own.dtype);
  world().all_gather(own, whole.view(), Stream{});
  for (int64_t i = 0; i < all; ++i) CHECK(test::element(whole.view(), i) == static_cast<double>(i));
}

TEST_CASE("broadcast and send carry any dtype bit by bit") {
  for (DType type : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::u16, DType::u8}) {
    for (int root = 0; root < world().size(); ++root) {
      Buffer data = mine(type, 33);
      world().broadcast(data.view(), root, Stream{});
      for (int64_t i = 0; i < 33; ++i) REQUIRE(test::element(data.view(), i) == at(root, i));
    }
    // Around the ring; rank 0 receives first, so nobody waits for a buffer.
    const int to = (world().rank() + 1) % world().size(), from = (world().rank() + world().size() - 1) % world().size();
    Buffer data = mine(type, 33), got(type, {33});
    if (world().rank() != 0) world().send(data.view(), to, Stream{});
    world().recv(got.view(), from, Stream{});
    if (world().rank() == 0) world().send(data.view(), to, Stream{});
    for (int64_t i = 0; i < 33; ++i) REQUIRE(test::element(got.view(), i) == at(from, i));
  }
}

TEST_CASE("barrier: nobody leaves before the last has come") {
  using Clock = std::chrono::steady_clock;
  world().barrier();
  const auto start = Clock::now();
  if (world().rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(60));
  world().barrier();
  CHECK(Clock::now() - start > std::chrono::milliseconds(40));
}

TEST_CASE("gather_text gives every rank's bytes in rank order") {
  const std::string text = std::string(static_cast<size_t>(world().rank() * 3), 'x') + std::string("\0y", world().rank() == 1 ? 0 : 2);
  std::vector<std::string> want;
  for (int r = 0; r < world().size(); ++r) want.push_back(std::string(static_cast<size_t>(r * 3), 'x') + std::string("\0y", r == 1 ? 0 : 2));
  CHECK(world().gather_text(text) == want);
  CHECK(world().gather_text("") == std::vector<std::string>(static_cast<size_t>(world().size())));
}

TEST_CASE("split groups by color and orders by key") {
  const auto reversed = world().split(5, -world().rank());
  CHECK(reversed->size() == world().size());
  CHECK(reversed->rank() == world().size() - 1 - world().rank());
  const auto alone = world().split(world().rank(), 0);
  CHECK(alone->size() == 1);
  Buffer data = mine(DType::f32, 4);
  alone->all_reduce(data.view(), Stream{});
  CHECK(test::element(data.view(), 0) == at(world().rank(), 0));
  const auto halves = world().split(world().rank() % 2, world().rank());
  data = mine(DType::f32, 4);
  halves->all_reduce(data.view(), Stream{});
  double want = 0;
  for (int r = world().rank() % 2; r < world().size(); r += 2) want += at(r, 0);
  CHECK(test::element(data.view(), 0) == want);
}

TEST_CASE("calls that cannot work are errors that name the collective and leave the communicator usable") {
  const int ranks = world().size();
  Buffer five(DType::f32, {5}), some(DType::f32, {5 * ranks}), ints(DType::i32, {5 * ranks}), bytes(DType::u8, {8});
  Buffer rows(DType::f32, {2, 3}, {.padding = 1});
  CHECK(has(message([&] { world().reduce_scatter(five.view(), some.view(), Stream{}); }), "[reduce_scatter]"));
  CHECK(has(message([&] { world().reduce_scatter(ints.view(), five.view(), Stream{}); }), "[reduce_scatter]"));
  CHECK(has(message([&] { world().all_gather(five.view(), five.view(), Stream{}); }), "[all_gather]"));
  CHECK(has(message([&] { world().all_gather(five.view(), ints.view(), Stream{}); }), "[all_gather]"));
  CHECK(has(message([&] { world().all_reduce(bytes.view(), Stream{}); }), "u8"));
  for (const auto& call : std::vector<std::function<void()>>{
           [&] { world().all_reduce(rows.view(), Stream{}); }, [&] { world().start_all_reduce(rows.view(), Stream{}); },
           [&] { world().broadcast(rows.view(), 0, Stream{}); }, [&] { world().send(rows.view(), 0, Stream{}); },
           [&] { world().recv(rows.view(), 0, Stream{}); }}) {
    CHECK(has(message(call), "strided"));
  }
  const std::string no_rank = message([&] { world().send(five.view(), ranks, Stream{}); });
  CHECK(has(no_rank, "[send]"));
  CHECK(has(no_rank, concat("rank ", world().rank())));
  // A message longer than its receiver expects.
  if (world().rank() == 0) world().send(mine(DType::f32, 5).view(), 1, Stream{});
  if (world().rank() == 1) {
    Buffer two(DType::f32, {2});
    CHECK(has(message([&] { world().recv(two.view(), 0, Stream{}); }), "[recv]"));
  }
  Buffer data = mine(DType::f32, 4);
  world().all_reduce(data.view(), Stream{});
  CHECK(values(data.view()) == expected(4, sum_at));
}

TEST_CASE("a thread of its own may use a communicator of its own, whatever the others wait for") {
  world();
  int level = -1;
  MPI_Query_thread(&level);
  REQUIRE(level == MPI_THREAD_MULTIPLE);
  const auto control = world().split(0, world().rank());
  // Each rank dawdles in another of the two threads: with turns instead of real concurrency the ranks would wait for one another for ever.
  const auto dawdle = [](int i, int who) {
    if ((world().rank() + i) % 2 == who) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  };
  bool writer_ok = true;
  std::thread writer([&] {
    for (int i = 0; i < 25; ++i) {
      dawdle(i, 0);
      const auto texts = control->gather_text(std::to_string(i));
      writer_ok &= texts == std::vector<std::string>(static_cast<size_t>(world().size()), std::to_string(i));
    }
  });
  bool trainer_ok = true;
  for (int i = 0; i < 25; ++i) {
    dawdle(i, 1);
    Buffer data = mine(DType::f32, 2000);
    world().start_all_reduce(data.view(), Stream{});
    world().finish();
    trainer_ok &= values(data.view()) == expected(2000, sum_at);
  }
  writer.join();
  CHECK(writer_ok);
  CHECK(trainer_ok);
}

}  // namespace
}  // namespace heddle
