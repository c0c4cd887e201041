// One rank: collectives are identities, and wrong calls are errors here too.
#include <cstdlib>

#include "kernels/api/check.h"
#include "parallel/communicator.h"
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
    comm->all_reduce(data.view(), Stream{});
    comm->start_all_reduce(data.view(), Stream{});
    comm->finish();
    comm->broadcast(data.view(), 0, Stream{});
    comm->all_gather(data.view(), data.view(), Stream{});
    comm->reduce_scatter(data.view(), data.view(), Stream{});
    CHECK(data == before);
    comm->all_gather(data.view(), out.view(), Stream{});
    CHECK(test::values(out.view()) == test::values(before.view()));
    out.poison();
    comm->reduce_scatter(data.view(), out.view(), Stream{});
    CHECK(test::values(out.view()) == test::values(before.view()));
  }
  comm->barrier();
  const std::string text("a\0b", 3);
  CHECK(comm->gather_text(text) == std::vector<std::string>{text});
  CHECK(comm->split(7, 3)->size() == 1);
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
  CHECK(names(message([&] { comm->all_gather(six.view(), five.view(), Stream{}); }), "all_gather"));
  CHECK(names(message([&] { comm->all_gather(six.view(), ints.view(), Stream{}); }), "all_gather"));
  CHECK(names(message([&] { comm->reduce_scatter(five.view(), six.view(), Stream{}); }), "reduce_scatter"));
  CHECK(names(message([&] { comm->broadcast(six.view(), 1, Stream{}); }), "broadcast"));
  CHECK(names(message([&] { comm->send(six.view(), 0, Stream{}); }), "send"));
  CHECK(names(message([&] { comm->recv(six.view(), 0, Stream{}); }), "recv"));
}

TEST_CASE("a process that no launcher started is a world of one") {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_ID"}) ::unsetenv(name);
  const auto world = world_communicator();
  CHECK(world->size() == 1);
  CHECK(world->name() == "local");
  abort_world(3);  // of one rank: returns, the caller ends the process its own way
}

}  // namespace
}  // namespace heddle
