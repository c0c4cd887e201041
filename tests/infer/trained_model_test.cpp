// A checkpoint read for eval and generate: each byte as often as needed, and no memory for a configuration that its tensors contradict.
#include <fstream>

#include "checkpoint/checkpoints.h"
#include "core/arena.h"
#include "core/storage.h"
#include "infer/load.h"
#include "kernels/api/kernel.h"
#include "tests/data/support.h"
#include "tests/support/catch.h"

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

TransformerConfig small_config() {
  return TransformerConfig{.vocab = 257, .layers = 2, .dim = 64, .heads = 2, .seq = 32}.resolved();
}

std::string scalars_of(const std::string& model) {
  return concat("{\"step\": 3, \"document_mask\": true, \"model\": ", model, "}");
}

// A run that holds one checkpoint of the model `config` describes, whose counters are `scalars`.
void save_model(const std::string& run, const TransformerConfig& config, const std::string& scalars) {
  kernels::register_cpu_kernels();
  const Transformer model(config);
  Arena arena(model, {}, DType::f32);
  arena.init(1);
  const auto control = local_control();
  CheckpointOptions options;
  Checkpoints checkpoints(run, *control, options);
  checkpoints.find_newest();
  StateDict state = model_state(arena, arena.values());
  state.scalars = scalars;
  checkpoints.save(3, state, "");
  checkpoints.wait();
}

std::string message_of(const std::string& run, ExitCode code) {
  try {
    load_trained_model(run, {}, DType::f32);
  } catch (const Error& e) {
    CHECK(e.code() == code);
    return e.what();
  }
  FAIL("it was accepted");
  return {};
}

}  // namespace

TEST_CASE("a trained model is hashed once and read once") {
  const Scratch scratch;
  save_model(scratch / "run", small_config(), scalars_of(to_json(small_config())));
  const auto size = static_cast<double>(std::filesystem::file_size(scratch / "run/ckpt/s3-i1/shard-0-of-1.safetensors"));
  const uint64_t before = bytes_read();
  const TrainedModel trained = load_trained_model(scratch / "run", {}, DType::f32);
  const auto read = static_cast<double>(bytes_read() - before);
  CHECK(trained.step == 3);
  INFO(read << " bytes read of a checkpoint of " << size);
  CHECK(read > 2 * size);
  CHECK(read < 2.5 * size);
}

TEST_CASE("a model is rebuilt from what its checkpoint says it is, every field of it") {
  TransformerConfig odd = small_config();
  odd.kv_heads = 1, odd.mlp = "swiglu", odd.mlp_dim = 24, odd.norm = NormType::rms, odd.norm_affine = false, odd.norm_eps = 3e-7f;
  odd.position = Position::rope, odd.rope_theta = 12345.678, odd.bias = false, odd.qkv_bias = true, odd.qk_norm = true, odd.qk_gain = false;
  odd.tied = false, odd.window = 7, odd.init_std = 0.03f, odd.zero_init_out = true;
  const Scratch scratch;
  save_model(scratch / "run", odd, scalars_of(to_json(odd)));
  const TrainedModel trained = load_trained_model(scratch / "run", {}, DType::f32);
  CHECK(to_json(trained.model->config()) == to_json(odd));
  CHECK(trained.model->config().norm_eps == odd.norm_eps);
  CHECK(trained.document_mask);
  CHECK_FALSE(trained.arena->grads());
  // Every field that is stored is one that differs from the default here: a field left out of to_json would read back as the default.
  const std::string plain = to_json(small_config()), text = to_json(odd);
  for (const char* key : {"kv_heads", "mlp", "mlp_dim", "norm", "norm_affine", "norm_eps", "position", "rope_theta", "bias", "qkv_bias", "qk_norm",
                          "qk_gain", "tied", "window", "init_std", "zero_init_out"}) {
    CAPTURE(key);
    const auto value = [&](const std::string& json) { return json.substr(json.find(concat('"', key, "\":")), 30); };
    CHECK(value(plain) != value(text));
  }
}

TEST_CASE("a forged description is refused before it takes memory") {
  const std::string text = to_json(small_config());
  struct Forged {
    std::string key, value;
  };
  for (const Forged& f : {Forged{"dim", "1048576"}, Forged{"mlp_dim", "1048576"}, Forged{"vocab", "16777216"}, Forged{"layers", "16384"},
                          Forged{"head_dim", "256"}, Forged{"heads", "64"}, Forged{"layers", "1"}, Forged{"dim", "-64"}, Forged{"dim", "64.5"},
                          Forged{"dim", "18446744073709551615"}, Forged{"dim", "\"64\""}, Forged{"bias", "1"}, Forged{"mlp", "\"mystery\""},
                          Forged{"norm", "\"batch\""}, Forged{"norm_eps", "null"}, Forged{"tied", "false"}, Forged{"kv_heads", "3"}}) {
    INFO(f.key << " = " << f.value);
    const Scratch scratch;
    std::string says = text;
    const std::string key = concat('"', f.key, "\":");
    const size_t begin = says.find(key) + key.size();
    REQUIRE(begin > key.size());
    says.replace(begin, says.find_first_of(",}", begin) - begin, f.value);
    save_model(scratch / "run", small_config(), scalars_of(says));
    reset_peaks({});
    const size_t before = memory_stats({}).peak_total;
    const std::string message = message_of(scratch / "run", ExitCode::bad_data);
    INFO(message);
    CHECK(message.size() < 10000);
    CHECK(memory_stats({}).peak_total == before);
  }
}

TEST_CASE("a description with a key too many or too few is refused; one of an earlier version says so") {
  const Scratch scratch;
  std::string text = to_json(small_config());
  save_model(scratch / "more", small_config(), scalars_of(text.substr(0, text.size() - 1) + ", \"adapter\": 1}"));
  CHECK(message_of(scratch / "more", ExitCode::bad_data).find("keys that this version does not know") != std::string::npos);
  text.erase(text.find("\"window\""), std::string("\"window\":0,").size());
  save_model(scratch / "fewer", small_config(), scalars_of(text));
  CHECK(message_of(scratch / "fewer", ExitCode::bad_data).find("\"window\" is missing") != std::string::npos);
  save_model(scratch / "before", small_config(), "{\"step\": 3}");
  CHECK(message_of(scratch / "before", ExitCode::mismatch).find("before 0.2 wrote it") != std::string::npos);
}

}  // namespace heddle::test
