// Collectives between processes, what every Communicator has to do: run by mpirun, every rank runs every case. Compiled once for MPI on the CPU, and
// with HEDDLE_TEST_NCCL for NCCL on simulated GPUs.
#define OMPI_SKIP_MPICXX 1  // the C interface alone
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include "tests/parallel/communicator_support.h"

namespace heddle {
namespace {

TEST_CASE("the world has the launcher's ranks") {
  const char* ranks = std::getenv("OMPI_COMM_WORLD_SIZE");
  if (!ranks) ranks = std::getenv("PMI_SIZE");
  REQUIRE(ranks != nullptr);
  CHECK(world().size() == std::atoi(ranks));
  CHECK(world().size() >= 2);
  CHECK(world().name() == (kNccl ? "nccl" : "mpi"));
}

TEST_CASE("all_reduce sums f32, bf16, f64 and i32 in place; several may be under way") {
  for (const int64_t most : {int64_t{1} << 30, int64_t{100}}) {
    for (DType type : {DType::f32, DType::bf16, DType::f64, DType::i32}) {
      for (int64_t n : {int64_t{0}, int64_t{1}, int64_t{1000}}) {
        Buffer data = mine(type, n);
        world(most).all_reduce(data.view(), stream()).join(stream());
        CHECK(values(data.view()) == expected(n, sum_at));
        CHECK(data.guards_intact());
      }
    }
  }
  std::vector<Buffer> several;
  for (int64_t n : {5, 1, 70000}) several.push_back(mine(DType::f32, n));
  for (int repeat = 0; repeat < 2; ++repeat) {
    for (Buffer& b : several) b.fill([](int64_t i) { return at(world().rank(), i); });
    std::vector<Work> under_way;
    for (Buffer& b : several) under_way.push_back(world().all_reduce(b.view(), stream()));
    Buffer between = mine(DType::f64, 3);  // other collectives may run meanwhile
    world().all_reduce(between.view(), stream()).join(stream());
    for (const Work& work : under_way) work.join(stream());
    under_way[0].join(stream());  // again: complete
    CHECK(values(between.view()) == expected(3, sum_at));
    for (Buffer& b : several) CHECK(values(b.view()) == expected(b.view().numel(), sum_at));
  }
  Work().join(stream());
}

TEST_CASE("a sum of bf16 is rounded to nearest even") {
  Buffer data(DType::bf16, {2});
  data.fill([](int64_t i) { return world().rank() == 0 ? 1.0 : world().rank() == 1 ? (i == 0 ? 0x1p-8 : 0x1.8p-7) : 0.0; });
  world().all_reduce(data.view(), stream()).join(stream());
  CHECK(values(data.view()) == std::vector<double>{1.0, 1 + 0x1p-6});  // 1 + 2^-8 and 1 + 1.5 2^-7 lie half-way; the even ones are these
}

TEST_CASE("all_reduce: every rank gets the same bits") {
  Buffer data(DType::f32, {4097});
  data.normal(static_cast<uint32_t>(world().rank()) + 1);
  world().all_reduce(data.view(), stream()).join(stream());
  const std::vector<double> sums = values(data.view());
  const auto all = control().gather_text(std::string(reinterpret_cast<const char*>(sums.data()), sums.size() * sizeof(double)));
  for (const std::string& one : all) CHECK((one == all[0]));
}

TEST_CASE("gather_text with a limit gives what it gives without, short and long, again and again") {
  const std::unique_ptr<Control> comm = control().split(0, control().rank());
  for (const size_t size : {size_t{0}, size_t{1}, size_t{300000}}) {
    for (int round = 0; round < 20; ++round) {
      const std::string mine(size + static_cast<size_t>(comm->rank()), static_cast<char>('a' + round));
      CHECK((comm->gather_text(mine, 30) == comm->gather_text(mine)));
    }
  }
}

TEST_CASE("gather_text with a limit gives up on a rank that does not answer, in time and by name") {
  const std::unique_ptr<Control> comm = control().split(0, control().rank());
  const int silent = comm->size() - 1;
  if (comm->rank() != silent) {
    const auto start = std::chrono::steady_clock::now();
    const std::string text = message([&] { comm->gather_text("here", 0.3); });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    CHECK(has(text, "no answer within 0.3 s from"));
    if (comm->rank() == 0) CHECK(has(text, concat("rank ", silent, ":")));
    CHECK(seconds >= 0.3);
    CHECK(seconds < 20);  // on a busy machine too; without the limit it would be for ever
  }
  control().barrier();
}

TEST_CASE("reduce_scatter gives each rank its part of the sum, all_gather joins them again") {
  const int64_t n = 6, all = n * world().size();
  for (const int64_t most : {int64_t{1} << 30, int64_t{8}}) {
    Buffer data = mine(DType::f32, all), part(DType::f32, {n}), joined(DType::f32, {all});
    world(most).reduce_scatter(data.view(), part.view(), {}, stream()).join(stream());
    const std::vector<double> sums = expected(all, sum_at);
    const auto first = sums.begin() + world().rank() * n;
    CHECK(values(part.view()) == std::vector<double>(first, first + n));
    CHECK(part.guards_intact());
    world(most).all_gather(part.view(), joined.view(), {}, stream()).join(stream());
    CHECK(values(joined.view()) == sums);
  }
}

TEST_CASE("large sums, several under way and joined in another order than they began, in parts of any size") {
  const int n = world().size();
  std::vector<int64_t> counts;
  int64_t all = 0, begin = 0;
  for (int r = 0; r < n; ++r) {
    if (r == world().rank()) begin = all;
    counts.push_back(20000 + 777 * r);
    all += counts.back();
  }
  for (const int64_t most : {int64_t{1} << 30, int64_t{5000}}) {
    for (const DType type : {DType::f32, DType::f64}) {
      CAPTURE(name_of(type), most);
      Buffer reduced = mine(type, all), scattered = mine(type, all), apart = mine(type, all),
             part(type, {counts[static_cast<size_t>(world().rank())]});
      View own = scattered.view();
      own.shape[0] = part.view().numel();
      own.data += begin * size_of(type);
      Communicator& comm = world(most);
      const Work first = comm.all_reduce(reduced.view(), stream());
      const Work second = comm.reduce_scatter(scattered.view(), own, counts, stream());  // in place
      const Work third = comm.reduce_scatter(apart.view(), part.view(), counts, stream());
      third.join(stream());
      first.join(stream());
      second.join(stream());
      CHECK(values(reduced.view()) == expected(all, sum_at));
      for (const View& mine : {own, part.view()}) {
        const std::vector<double> got = values(mine);
        int wrong = 0;
        for (size_t i = 0; i < got.size(); ++i) wrong += got[i] != sum_at(begin + static_cast<int64_t>(i));
        CHECK(wrong == 0);
      }
      CHECK((reduced.guards_intact() && scattered.guards_intact() && apart.guards_intact() && part.guards_intact()));
    }
  }
}

TEST_CASE("parts may be uneven, empty, and lie where they belong") {
  // Rank r has 5 r elements: the first none, the last the most.
  std::vector<int64_t> counts;
  int64_t all = 0, begin = 0;
  for (int r = 0; r < world().size(); ++r) {
    if (r == world().rank()) begin = all;
    counts.push_back(5 * r);
    all += 5 * r;
  }
  const int64_t mine_size = counts[static_cast<size_t>(world().rank())];
  const auto own_of = [&](const Buffer& whole) {
    View own = whole.view();
    own.shape[0] = mine_size;
    own.data += begin * size_of(own.dtype);
    return own;
  };
  for (const int64_t most : {int64_t{1} << 30, int64_t{12}}) {
    for (DType type : {DType::f32, DType::bf16, DType::f64}) {
      CAPTURE(name_of(type), most);
      Buffer whole = mine(type, all);
      world(most).reduce_scatter(whole.view(), own_of(whole), counts, stream()).join(stream());  // in place
      const std::vector<double> own = values(own_of(whole));
      for (int64_t i = 0; i < mine_size; ++i) CHECK(own[static_cast<size_t>(i)] == sum_at(begin + i));
      CHECK(whole.guards_intact());
      world(most).all_gather(own_of(whole), whole.view(), counts, stream()).join(stream());
      CHECK(values(whole.view()) == expected(all, sum_at));
    }
  }
}

TEST_CASE("broadcast and send carry any dtype bit by bit") {
  for (DType type : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::u16, DType::u8}) {
    for (int root = 0; root < world().size(); ++root) {
      Buffer data = mine(type, 33);
      world(root % 2 == 0 ? 40 : int64_t{1} << 30).broadcast(data.view(), root, stream()).join(stream());
      const std::vector<double> all = values(data.view());
      for (int64_t i = 0; i < 33; ++i) REQUIRE(all[static_cast<size_t>(i)] == at(root, i));
    }
    // Around the ring; rank 0 receives first, so nobody waits for a buffer.
    const int to = (world().rank() + 1) % world().size(), from = (world().rank() + world().size() - 1) % world().size();
    Buffer data = mine(type, 33), got(type, {33});
    if (world().rank() != 0) world().send(data.view(), to, stream()).join(stream());
    world().recv(got.view(), from, stream()).join(stream());
    if (world().rank() == 0) world().send(data.view(), to, stream()).join(stream());
    const std::vector<double> all = values(got.view());
    for (int64_t i = 0; i < 33; ++i) REQUIRE(all[static_cast<size_t>(i)] == at(from, i));
  }
}

TEST_CASE("grouped transfers wait for no order: everyone with everyone, large messages too") {
  const int ranks = world().size();
  for (const int64_t most : {int64_t{1} << 30, int64_t{10000}}) {
    std::vector<Buffer> out, in;
    std::vector<Transfer> transfers;
    for (int r = 0; r < ranks; ++r) out.push_back(mine(DType::f32, 100000)), in.emplace_back(DType::f32, std::initializer_list<int64_t>{100000});
    for (int r = 0; r < ranks; ++r) {
      if (r == world().rank()) continue;
      transfers.push_back({out[static_cast<size_t>(r)].view(), r, true});
      transfers.push_back({in[static_cast<size_t>(r)].view(), r, false});
    }
    world(most).grouped(transfers, stream()).join(stream());
    for (int r = 0; r < ranks; ++r) {
      if (r == world().rank()) continue;
      const std::vector<double> all = values(in[static_cast<size_t>(r)].view());
      for (int64_t i = 0; i < 100000; i += 997) REQUIRE(all[static_cast<size_t>(i)] == at(r, i));
    }
  }
  world().grouped({}, stream()).join(stream());
}

TEST_CASE("votes and sums are the same on every rank, sums in rank order") {
  CHECK(control().vote_max(control().rank() == 1 ? 7 : -control().rank()) == 7);
  CHECK(control().vote_max(-1 - control().rank()) == -1);
  // 1e17 + 1 + ... loses the ones; the other order would not.
  double want = 0;
  for (int r = 0; r < control().size(); ++r) want += r == 0 ? 1e17 : 1.0;
  CHECK(control().sum_in_rank_order(control().rank() == 0 ? 1e17 : 1.0) == want);
  CHECK(control().sum_in_rank_order(std::vector<double>{1, static_cast<double>(control().rank())})[0] == control().size());
}

TEST_CASE("a mesh puts the ranks on its axes, tp innermost") {
  const auto copy = [] { return control().split(0, control().rank()); };
  const int n = control().size();
  const Mesh data(copy(), n, 1, device());
  CHECK((data.dp().size() == n && data.dp().rank() == control().rank() && data.tp().size() == 1));
  const Mesh tensor(copy(), 1, n, device());
  CHECK((tensor.tp().size() == n && tensor.tp().rank() == control().rank() && tensor.dp().size() == 1));
  CHECK((tensor.shape().tp_rank == control().rank() && tensor.shape().dp_rank == 0));
  CHECK(has(message([&] { Mesh(copy(), n + 1, 1, device()); }), "ranks, but"));
  if (n != 4) return;
  const Mesh both(copy(), 2, 2, device());
  const int rank = control().rank();
  CHECK((both.shape().dp_rank == rank / 2 && both.shape().tp_rank == rank % 2));
  CHECK((both.dp().rank() == rank / 2 && both.tp().rank() == rank % 2));
  Buffer across_dp = mine(DType::f32, 1), across_tp = mine(DType::f32, 1);
  both.dp().all_reduce(across_dp.view(), stream()).join(stream());
  both.tp().all_reduce(across_tp.view(), stream()).join(stream());
  CHECK(element(across_dp.view(), 0) == at(rank % 2, 0) + at(rank % 2 + 2, 0));
  CHECK(element(across_tp.view(), 0) == at(rank / 2 * 2, 0) + at(rank / 2 * 2 + 1, 0));
}

TEST_CASE("timed joins: who waits for a slower rank is told how long, and once") {
  const std::unique_ptr<Communicator> timed = control().communicator(device(), {.time_joins = true});
  CHECK(timed->take_waited() == 0);
  Buffer data(DType::f32, {5});
  control().barrier();
  const bool late = timed->rank() == timed->size() - 1;
  if (late) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  timed->all_reduce(data.view(), stream()).join(stream());
  synchronize(device());
  const double waited = timed->take_waited();
  if (timed->size() > 1 && !late) CHECK(waited > 0.02);
  if (timed->size() == 1) CHECK(waited == 0);
  CHECK(timed->take_waited() == 0);
  CHECK(world().take_waited() == 0);
}

TEST_CASE("barrier: nobody leaves before the last has come") {
  using Clock = std::chrono::steady_clock;
  control().barrier();
  const auto start = Clock::now();
  if (world().rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(60));
  control().barrier();
  CHECK(Clock::now() - start > std::chrono::milliseconds(40));
}

TEST_CASE("gather_text gives every rank's bytes in rank order") {
  const std::string text = std::string(static_cast<size_t>(world().rank() * 3), 'x') + std::string("\0y", world().rank() == 1 ? 0 : 2);
  std::vector<std::string> want;
  for (int r = 0; r < world().size(); ++r) want.push_back(std::string(static_cast<size_t>(r * 3), 'x') + std::string("\0y", r == 1 ? 0 : 2));
  CHECK(control().gather_text(text) == want);
  CHECK(control().gather_text("") == std::vector<std::string>(static_cast<size_t>(world().size())));
}

TEST_CASE("split groups by color and orders by key") {
  const auto reversed = control().split(5, -control().rank());
  CHECK(reversed->size() == control().size());
  CHECK(reversed->rank() == control().size() - 1 - control().rank());
  const auto alone = control().split(control().rank(), 0);
  CHECK(alone->size() == 1);
  const auto halves = control().split(control().rank() % 2, control().rank())->communicator(device());  // outlives its control
  Buffer data = mine(DType::f32, 4);
  halves->all_reduce(data.view(), stream()).join(stream());
  double want = 0;
  for (int r = world().rank() % 2; r < world().size(); r += 2) want += at(r, 0);
  CHECK(element(data.view(), 0) == want);
}

TEST_CASE("calls that cannot work are errors that name the collective and leave the communicator usable") {
  const int ranks = world().size();
  Buffer five(DType::f32, {5}), some(DType::f32, {5 * ranks}), ints(DType::i32, {5 * ranks}), bytes(DType::u8, {8});
  Buffer rows(DType::f32, {2, 3}, {.padding = 1});
  CHECK(has(message([&] { world().reduce_scatter(five.view(), some.view(), {}, stream()); }), "[reduce_scatter]"));
  CHECK(has(message([&] { world().reduce_scatter(ints.view(), five.view(), {}, stream()); }), "[reduce_scatter]"));
  CHECK(has(message([&] { world().all_gather(five.view(), five.view(), {}, stream()); }), "[all_gather]"));
  CHECK(has(message([&] { world().all_gather(five.view(), ints.view(), {}, stream()); }), "[all_gather]"));
  CHECK(has(message([&] { world().all_reduce(bytes.view(), stream()); }), "u8"));
  for (const auto& call :
       std::vector<std::function<void()>>{[&] { world().all_reduce(rows.view(), stream()); }, [&] { world().broadcast(rows.view(), 0, stream()); },
                                          [&] { world().send(rows.view(), 0, stream()); }, [&] { world().recv(rows.view(), 0, stream()); }}) {
    CHECK(has(message(call), "strided"));
  }
  const std::string no_rank = message([&] { world().send(five.view(), ranks, stream()); });
  CHECK(has(no_rank, "[send]"));
  CHECK(has(message([&] { world().recv(five.view(), -1, stream()).join(stream()); }), "[recv]"));
  CHECK(has(no_rank, concat("rank ", world().rank())));
  // A message longer than its receiver expects: NCCL has no way back from that (nccl_communicator_test.cpp).
  const Buffer long_one = mine(DType::f32, 5);
  if (!kNccl && world().rank() == 0) world().send(long_one.view(), 1, stream()).join(stream());
  if (!kNccl && world().rank() == 1) {
    Buffer two(DType::f32, {2});
    CHECK(has(message([&] { world().recv(two.view(), 0, stream()).join(stream()); }), "[recv]"));
  }
  Buffer data = mine(DType::f32, 4);
  world().all_reduce(data.view(), stream()).join(stream());
  CHECK(values(data.view()) == expected(4, sum_at));
}

TEST_CASE("a thread of its own may use a control of its own, whatever the others wait for") {
  world();
  int level = -1;
  MPI_Query_thread(&level);
  REQUIRE(level == MPI_THREAD_MULTIPLE);
  const auto own = control().split(0, control().rank());
  // Each rank dawdles in another of the two threads: with turns instead of real concurrency the ranks would wait for one another for ever.
  const auto dawdle = [](int i, int who) {
    if ((world().rank() + i) % 2 == who) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  };
  bool writer_ok = true;
  std::thread writer([&] {
    for (int i = 0; i < 25; ++i) {
      dawdle(i, 0);
      const auto texts = own->gather_text(std::to_string(i));
      writer_ok &= texts == std::vector<std::string>(static_cast<size_t>(world().size()), std::to_string(i));
    }
  });
  bool trainer_ok = true;
  for (int i = 0; i < 25; ++i) {
    dawdle(i, 1);
    Buffer data = mine(DType::f32, 2000);
    world().all_reduce(data.view(), stream()).join(stream());
    trainer_ok &= values(data.view()) == expected(2000, sum_at);
  }
  writer.join();
  CHECK(writer_ok);
  CHECK(trainer_ok);
}

}  // namespace
}  // namespace heddle
