// A checkpoint read for eval and generate: each byte as often as needed, and no memory for a configuration that its tensors contradict.
#include <fstream>

#include "core/arena.h"
#include "core/storage.h"
#include "kernels/api/kernel.h"
#include "tests/data/support.h"
#include "tests/support/catch.h"
#include "train/checkpoint/checkpoints.h"
#include "train/model.h"

namespace heddle::test {
namespace {

// Bytes this process has read so far, from whatever file.
uint64_t bytes_read() {
  std::ifstream in("/proc/self/io");
  std::string name;
  uint64_t value = 0;
  in >> name >> value;
  REQUIRE(name == "rchar:");
  return value;
}

RunConfig small_config() {
  RunConfig config;
  for (const auto& [name, text] : std::vector<std::pair<std::string, std::string>>{
           {"layers", "2"}, {"heads", "2"}, {"dim", "64"}, {"seq", "32"}, {"vocab", "257"}, {"out", "run"}}) {
    config.set(name, text, Source::flag, "--" + name);
  }
  return config;
}

// A run that holds one checkpoint of the model `config` describes, saved with the configuration `says`.
void save_model(const std::string& run, RunConfig config, const std::string& says) {
  kernels::register_cpu_kernels();
  const Transformer model(model_config(config, 0));
  Arena arena(model, {}, DType::f32);
  arena.init(1);
  const auto comm = local_control();
  CheckpointOptions options;
  Checkpoints checkpoints(run, *comm, options);
  checkpoints.find_newest();
  StateDict state = model_state(arena, arena.values());
  state.scalars = "{}";
  checkpoints.save(3, state, says.empty() ? to_toml(config) : says);
  checkpoints.wait();
}

}  // namespace

TEST_CASE("a trained model is hashed once and read once") {
  const Scratch scratch;
  RunConfig config = small_config();
  save_model(scratch / "run", config, "");
  const auto size = static_cast<double>(std::filesystem::file_size(scratch / "run/ckpt/s3-i1/shard-0-of-1.safetensors"));
  const uint64_t before = bytes_read();
  const TrainedModel trained = load_trained_model(scratch / "run", {}, DType::f32);
  const auto read = static_cast<double>(bytes_read() - before);
  CHECK(trained.step == 3);
  INFO(read << " bytes read of a checkpoint of " << size);
  CHECK(read > 2 * size);
  CHECK(read < 2.5 * size);
}

TEST_CASE("a forged configuration is refused before it takes memory") {
  RunConfig honest = small_config();
  const Transformer model(model_config(honest, 0));
  const std::string text = to_toml(honest);
  struct Forged {
    std::string key, value;
  };
  for (const Forged& f : {Forged{"dim", "1048576"}, Forged{"mlp-dim", "1048576"}, Forged{"vocab", "16777216"}, Forged{"layers", "16384"},
                          Forged{"head-dim", "256"}, Forged{"heads", "64"}, Forged{"layers", "1"}}) {
    INFO(f.key << " = " << f.value);
    const Scratch scratch;
    std::string says = text;
    const size_t at = says.find("\n" + f.key + " = ");
    REQUIRE(at != std::string::npos);
    const size_t begin = at + f.key.size() + 4;
    says.replace(begin, says.find_first_of(" \n", begin) - begin, f.value);
    save_model(scratch / "run", honest, says);
    reset_peaks({});
    const size_t before = memory_stats({}).peak_total;
    std::string message;
    try {
      load_trained_model(scratch / "run", {}, DType::f32);
    } catch (const Error& e) {
      message = e.what();
      CHECK(e.code() == ExitCode::bad_data);
    }
    INFO(message);
    CHECK(!message.empty());
    CHECK(message.size() < 10000);
    CHECK(memory_stats({}).peak_total == before);
  }
}

}  // namespace heddle::test
