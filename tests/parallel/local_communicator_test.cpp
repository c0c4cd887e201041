// One rank: collectives are identities, and wrong calls are errors here too.
#include <cstdlib>

#include "kernels/api/check.h"
#include "parallel/launch.h"
#include "parallel/mesh.h"
#include "tests/support/buffer.h"
#include "tests/support/catch.h"
#include "tests/support/compare.h"

namespace heddle {
namespace {

using test::Buffer;

TEST_CASE("local: every collective of one rank is the identity") {
  const auto comm = local_communicator();
  CHECK(comm->rank() == 0);
  CHECK(comm->size() == 1);
  CHECK(comm->name() == "local");
  for (DType type : {DType::f32, DType::f64, DType::i32}) {
    Buffer data(type, {6}), out(type, {6});
    data.fill([](int64_t i) { return static_cast<double>(3 * i + 1); });
    const Buffer before = data;
    comm->all_reduce(data.view(), Stream{}).join(Stream{});
    comm->broadcast(data.view(), 0, Stream{}).join(Stream{});
    comm->all_gather(data.view(), data.view(), {}, Stream{}).join(Stream{});
    comm->reduce_scatter(data.view(), data.view(), {}, Stream{}).join(Stream{});
    CHECK(data == before);
    comm->all_gather(data.view(), out.view(), {}, Stream{}).join(Stream{});
    CHECK(test::values(out.view()) == test::values(before.view()));
    out.poison();
    comm->reduce_scatter(data.view(), out.view(), {}, Stream{}).join(Stream{});
    CHECK(test::values(out.view()) == test::values(before.view()));
  }
}

TEST_CASE("local: the host plane of one rank") {
  const auto control = local_control();
  CHECK((control->rank() == 0 && control->size() == 1));
  control->barrier();
  const std::string text("a\0b", 3);
  CHECK(control->gather_text(text) == std::vector<std::string>{text});
  CHECK(control->gather_text(text, 0.001) == std::vector<std::string>{text});
  CHECK(control->split(7, 3)->size() == 1);
  CHECK(control->vote_max(-3) == -3);
  CHECK(control->sum_in_rank_order(std::vector<double>{0.1, -2}) == std::vector<double>{0.1, -2});
  CHECK(control->sum_in_rank_order(std::vector<double>{}).empty());
  const Mesh mesh(local_control(), 1, 1, Device{});
  CHECK((mesh.dp().size() == 1 && mesh.tp().size() == 1 && mesh.shape().dp == 1));
  CHECK_THROWS_WITH(Mesh(local_control(), 2, 1, Device{}), Catch::Matchers::Contains("--dp 2 x --tp 1 are 2 ranks, but 1 were started"));
}

TEST_CASE("local: sizes, dtypes and ranks that do not fit are errors that name the collective") {
  const auto comm = local_communicator();
  Buffer six(DType::f32, {6}), five(DType::f32, {5}), ints(DType::i32, {6});
  const auto message = [&](auto call) -> std::string {
    try {
      call();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  const auto names = [](const std::string& text, const char* op) { return text.find(std::string("[") + op + "]") != std::string::npos; };
  CHECK(names(message([&] { comm->all_gather(six.view(), five.view(), {}, Stream{}); }), "all_gather"));
  CHECK(names(message([&] { comm->all_gather(six.view(), ints.view(), {}, Stream{}); }), "all_gather"));
  CHECK(names(message([&] { comm->reduce_scatter(five.view(), six.view(), {}, Stream{}); }), "reduce_scatter"));
  CHECK(names(message([&] { comm->broadcast(six.view(), 1, Stream{}); }), "broadcast"));
  CHECK(names(message([&] { comm->send(six.view(), 0, Stream{}); }), "send"));
  CHECK(names(message([&] { comm->recv(six.view(), 0, Stream{}); }), "recv"));
}

TEST_CASE("a process that no launcher started is a world of one") {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_ID"}) ::unsetenv(name);
  const auto world = world_control();
  CHECK(world->size() == 1);
  CHECK(world->communicator(Device{})->name() == "local");
  abort_world(3);  // of one rank: returns, the caller ends the process its own way
}

}  // namespace
}  // namespace heddle
