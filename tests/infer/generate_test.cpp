// `heddle generate` and the samples of a training run: the printed forms, prompts and their absence, padded vocabularies, models that fail.
#include "app/model_commands.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "infer/generate.h"
#include "infer/load.h"
#include "kernels/api/norm.h"
#include "kernels/api/rope.h"
#include "kernels/api/sample.h"
#include "tests/train/expect_error.h"
#include "tests/train/pretrain_support.h"
#include "train/config/shape.h"

namespace heddle {
namespace {

using app::generate;
using app::GenerateOptions;

constexpr int32_t kEot = 256;
constexpr const char* kPadded = "320";  // the byte tokenizer has 257 tokens

// What generate() prints.
std::string printed(const GenerateOptions& options) {
  const test::Scratch folder;
  std::fflush(stdout);
  const int kept = ::dup(1), file = ::open((folder / "out").c_str(), O_WRONLY | O_CREAT, 0600);
  ::dup2(file, 1);
  const struct Restore {
    int kept, file;
    ~Restore() {
      std::fflush(stdout);
      ::dup2(kept, 1);
      ::close(kept);
      ::close(file);
    }
  } restore{kept, file};
  CHECK(generate(options) == 0);
  std::fflush(stdout);
  return test::slurp(folder / "out");
}

// A run of twelve steps with a padded vocabulary.
const std::string& padded_run() {
  static const test::Scratch folder;
  static const std::string out = [] {
    REQUIRE(test::run(folder / "run", {{"vocab", kPadded}}) == 0);
    return folder / "run";
  }();
  return out;
}

struct Made {
  std::vector<int32_t> ids;
  std::vector<double> log_probabilities;
};
// What the model of padded_run() says after `prompt`, up to the end of the document.
Made made(const std::vector<int32_t>& prompt, int64_t most, SamplingOptions sampling) {
  const TrainedModel trained = load_trained_model(padded_run(), Device{}, DType::f32);
  sampling.vocab = 257;
  Made all;
  generate_tokens(*trained.model, prompt, most, sampling, [&](int32_t token, const Tensor& logits) {
    all.ids.push_back(token);
    all.log_probabilities.push_back(log_probability(logits.to_vector(), token));
    return token != kEot;
  });
  return all;
}

std::string joined(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) text += concat(text.empty() ? "" : ",", id);
  return text;
}

GenerateOptions options_of(const SamplingOptions& sampling, int64_t most) {
  GenerateOptions o;
  o.path = padded_run();
  o.max_new_tokens = most;
  o.greedy = sampling.greedy, o.temperature = sampling.temperature, o.top_k = sampling.top_k, o.top_p = sampling.top_p;
  o.seed = static_cast<int64_t>(sampling.seed);
  return o;
}

TEST_CASE("generate prints ids, log-probabilities and text of the same tokens, and stops at the end of a document") {
  kernels::register_cpu_kernels();
  const std::vector<int32_t> prompt = {kEot, 'a', 'b'};
  constexpr int64_t kMost = 100;  // past the context of 32
  int ended = 0, whole = 0;
  for (const SamplingOptions& sampling :
       {SamplingOptions{.greedy = true}, SamplingOptions{.seed = 1}, SamplingOptions{.temperature = 3, .seed = 2},
        SamplingOptions{.top_k = 30, .seed = 3}, SamplingOptions{.temperature = 1.2, .top_p = 0.8, .seed = 4}, SamplingOptions{.seed = 5}}) {
    const Made want = made(prompt, kMost, sampling);
    GenerateOptions o = options_of(sampling, kMost);
    o.prompt = "ab";
    std::string text = "ab";
    for (const int32_t id : want.ids) {
      if (id != kEot) text += static_cast<char>(id);
    }
    CHECK(printed(o) == text + "\n");
    o.print_ids = true;
    CHECK(printed(o) == joined(want.ids) + "\n");
    o.print_ids = false, o.logprobs = true;
    std::string lines;
    for (size_t i = 0; i < want.ids.size(); ++i) {
      char number[64];
      std::snprintf(number, sizeof number, "%.6f", want.log_probabilities[i]);
      const std::string shown = want.ids[i] == kEot ? kEndOfText : std::string(1, static_cast<char>(want.ids[i]));
      lines += concat(want.ids[i], "\t", number, "\t", quote_text(shown), "\n");
    }
    CHECK(printed(o) == lines);
    if (!want.ids.empty() && want.ids.back() == kEot) ++ended;
    whole += want.ids.size() == kMost;
  }
  CHECK(ended > 0);  // both ends were seen
  CHECK(whole > 0);
}

TEST_CASE("generate shows each piece of text as soon as it is known") {
  kernels::register_cpu_kernels();
  GenerateOptions o = options_of({.greedy = true}, 6);
  o.prompt = "ab";
  const std::string whole = printed(o);
  static std::vector<int64_t> sizes;  // of the output whenever the model works on the next token
  sizes.clear();
  const test::Intercept<kernels::SampleArgs> see(
      kernels::sample, [](const kernels::SampleArgs&) { sizes.push_back(::lseek(1, 0, SEEK_CUR)); }, nullptr);
  REQUIRE(printed(o) == whole);
  REQUIRE(sizes.size() == 6);
  for (size_t i = 1; i < sizes.size(); ++i) CHECK(sizes[i] == 2 + static_cast<int64_t>(i));  // the prompt and a byte a token
}

TEST_CASE("generate without a prompt begins a document; ids as a prompt get the same beginning, once") {
  kernels::register_cpu_kernels();
  const SamplingOptions sampling{.seed = 8};
  const auto ids_after = [&](const std::vector<std::string>& prompt_ids, const std::string& prompt = "") {
    GenerateOptions o = options_of(sampling, 20);
    o.prompt_ids = prompt_ids, o.prompt = prompt, o.print_ids = true;
    return printed(o);
  };
  const std::string begun = joined(made({kEot}, 20, sampling).ids) + "\n";
  CHECK(ids_after({}) == begun);
  CHECK(ids_after({"256"}) == begun);
  const std::string continued = joined(made({kEot, 'a', 'b'}, 20, sampling).ids) + "\n";
  CHECK(ids_after({"97,98"}) == continued);
  CHECK(ids_after({"256", "97,98"}) == continued);
  CHECK(ids_after({}, "ab") == continued);
  CHECK(ids_after({}, "<|endoftext|>ab") == continued);
  CHECK(continued != begun);
}

TEST_CASE("generate continues the lines of a file, and each prompt several times: in their order, each as it is alone") {
  kernels::register_cpu_kernels();
  const test::Scratch folder;
  std::ofstream(folder / "prompts") << "ab\r\n\nthe last has no end";
  const std::vector<std::string> prompts = {"ab", "ab", "", "", "the last has no end", "the last has no end"};
  constexpr int64_t kMost = 40;
  std::vector<Made> want;
  std::string headed, ids;
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::vector<int32_t> prompt{kEot};
    for (const char c : prompts[i]) prompt.push_back(static_cast<unsigned char>(c));
    want.push_back(made(prompt, kMost, {.temperature = 2, .seed = 7 + i}));
    headed += concat("== ", i + 1, " of 6 ==\n", prompts[i]);
    for (const int32_t id : want.back().ids) {
      if (id != kEot) headed += static_cast<char>(id);
    }
    headed += "\n";
    ids += joined(want.back().ids) + "\n";
  }
  for (const int64_t batch : {1, 4, 16}) {
    GenerateOptions o = options_of({.temperature = 2, .seed = 7}, kMost);
    o.prompts = folder / "prompts", o.samples = 2, o.batch = batch;
    CHECK(printed(o) == headed);
    o.print_ids = true;
    CHECK(printed(o) == ids);
    o.print_ids = false, o.json = true, o.logprobs = true;
    std::istringstream lines(printed(o));
    size_t text = 0;
    for (std::string line; std::getline(lines, line); ++text) {
      const nlohmann::json said = nlohmann::json::parse(line);
      REQUIRE(text < prompts.size());
      CHECK(said["text"] == text);
      CHECK(said["seed"] == 7 + text);
      CHECK(said["prompt"] == prompts[text]);
      CHECK(said["prompt_ids"].size() == prompts[text].size() + 1);
      CHECK(said["ids"] == want[text].ids);
      CHECK(said["continuation"].is_string());
      REQUIRE(said["logprobs"].size() == want[text].log_probabilities.size());
      // Products of another number of rows may add in another order: some hundred roundings of f32 on logits of some tens.
      for (size_t i = 0; i < want[text].log_probabilities.size(); ++i)
        CHECK(std::abs(said["logprobs"][i].get<double>() - want[text].log_probabilities[i]) <= 1e-4);
    }
    CHECK(text == prompts.size());
  }
  GenerateOptions o = options_of({.greedy = true}, 0);
  o.prompts = folder / "prompts";
  CHECK(printed(o) == "== 1 of 3 ==\nab\n== 2 of 3 ==\n\n== 3 of 3 ==\nthe last has no end\n");
}

TEST_CASE("generate refuses what does not go together, and a file of prompts that has none") {
  kernels::register_cpu_kernels();
  const test::Scratch folder;
  std::ofstream(folder / "empty").flush();
  std::ofstream(folder / "one") << "a\n";
  const auto refused = [&](const std::function<void(GenerateOptions&)>& change, ExitCode code, const std::vector<std::string>& text) {
    GenerateOptions o = options_of({}, 4);
    change(o);
    expect_error([&] { generate(o); }, code, text);
  };
  refused([&](auto& o) { o.prompts = folder / "empty"; }, ExitCode::bad_data, {"--prompts", "empty has no line"});
  refused([&](auto& o) { o.prompts = folder / "none"; }, ExitCode::io, {"none"});
  refused([&](auto& o) { o.prompts = folder / ""; }, ExitCode::usage, {"not a regular file"});
  refused([&](auto& o) { o.prompts = folder / "one", o.prompt = "a"; }, ExitCode::usage, {"--prompts FILE", "neither"});
  refused([&](auto& o) { o.prompts = folder / "one", o.logprobs = true; }, ExitCode::usage, {"--logprobs", "--json"});
  refused([](auto& o) { o.samples = 2, o.greedy = true; }, ExitCode::usage, {"--greedy", "--samples"});
  refused([](auto& o) { o.json = true, o.print_ids = true; }, ExitCode::usage, {"--json", "--print-ids"});
}

TEST_CASE("generate says which id or file is missing") {
  kernels::register_cpu_kernels();
  GenerateOptions o = options_of({}, 4);
  for (const bool ids : {false, true}) {
    o.print_ids = ids;
    for (const char* beyond : {"257", "319", "320", "2147483647"}) {  // of the tokenizer, which has 257 tokens, or of the padded model
      o.prompt_ids = {"97", beyond};
      expect_error([&] { generate(o); }, ExitCode::usage,
                   {concat("--prompt-ids: the tokenizer has no token ", beyond, ", but 257 tokens, 0 to 256")});
    }
    o.prompt_ids = {"256"};
    CHECK(printed(o).size() > 1);
  }

  const test::Scratch bare;
  std::filesystem::copy(padded_run(), bare / "run", std::filesystem::copy_options::recursive);
  std::filesystem::remove(bare / "run/tokenizer.json");
  GenerateOptions none = options_of({}, 4);
  none.path = bare / "run";
  expect_error([&] { generate(none); }, ExitCode::usage, {"tokenizer.json", "--prompt-ids"});
  none.prompt_ids = {"97"};
  expect_error([&] { generate(none); }, ExitCode::usage, {"tokenizer.json", "--print-ids"});
  none.print_ids = true;
  CHECK(printed(none).find('\n') != std::string::npos);
  none.prompt_ids = {"319"};  // nothing says where the padding begins
  CHECK(printed(none).size() > 1);
  none.prompt_ids = {"320"};
  expect_error([&] { generate(none); }, ExitCode::usage, {"--prompt-ids: the model has no token 320, but 320 tokens, 0 to 319"});
  none.prompt_ids = {"97"};
  none.print_ids = false, none.logprobs = true;
  CHECK(printed(none).find("\t\n") != std::string::npos);  // no text to show
  none.prompt_ids.clear(), none.prompt = "a";
  expect_error([&] { generate(none); }, ExitCode::usage, {"tokenizer.json", "--prompt-ids"});
}

TEST_CASE("a vocabulary padded beyond the tokenizer's neither ends a run that samples nor shows in what is generated") {
  const test::Scratch folder;
  // Too little is learned to make padding unlikely: without the mask each sample would soon meet it.
  REQUIRE(test::run(folder / "run", {{"vocab", kPadded}, {"sample-every", "3"}, {"sample-tokens", "200"}, {"lr", "1e-6"}}) == 0);
  const std::string samples = test::slurp(folder / "run/samples.txt");
  for (const char* step : {"step 3, ", "step 6, ", "step 9, ", "step 12, "}) CHECK(samples.find(step) != std::string::npos);
  for (int64_t seed = 0; seed < 5; ++seed) {
    GenerateOptions o = options_of({.temperature = 50, .seed = static_cast<uint64_t>(seed)}, 40);
    o.print_ids = true;
    const std::string text = printed(o);
    o.print_ids = false;
    o.prompt_ids = {text.substr(0, text.size() - 1)};
    for (const int32_t id : o.prompt_tokens()) CHECK(id < 257);
  }
}

// One value of a single token's norm is not a number: sampling sees it; training, which has more tokens at a time, does not.
TEST_CASE("a sample that fails is a warning: the run ends as it would without samples") {
  const test::Scratch folder;
  REQUIRE(test::run(folder / "plain") == 0);
  {
    const test::Intercept<kernels::NormForwardArgs> spoil(kernels::norm_forward, nullptr, [](const kernels::NormForwardArgs& args) {
      if (args.y.numel() == args.y.size(-1)) args.y.as<float>()[3] = std::numeric_limits<float>::quiet_NaN();
    });
    REQUIRE(test::run(folder / "sampled", {{"sample-every", "4"}, {"sample-prompt", "ab"}}) == 0);
    GenerateOptions o;
    o.path = folder / "sampled";
    expect_error([&] { generate(o); }, ExitCode::runtime, {"token ", "nan", "diverged"});
  }
  CHECK(test::outcome(folder / "sampled") == test::outcome(folder / "plain"));
  // The same settings leave samples when nothing is wrong.
  REQUIRE(test::run(folder / "well", {{"sample-every", "4"}, {"sample-prompt", "ab"}}) == 0);
  const std::string samples = test::slurp(folder / "well/samples.txt");
  CHECK(samples.find("step 8, ") != std::string::npos);
  CHECK(samples.find(" bytes\nab") != std::string::npos);
  CHECK(test::slurp(folder / "sampled/samples.txt").empty());
}

TEST_CASE("the data's vocabulary is the model's, however small, unless one is asked for") {
  for (const int64_t vocab : {1, 2, 257}) {
    RunConfig c = test::run_config("out");
    CHECK(model_config(c, vocab).vocab == vocab);
    CHECK(c.vocab == vocab);
    RunConfig larger = test::run_config("out", {{"vocab", kPadded}});
    CHECK(model_config(larger, vocab).vocab == 320);
  }
  RunConfig smaller = test::run_config("out", {{"vocab", kPadded}});
  expect_error([&] { model_config(smaller, 321); }, ExitCode::usage, {"--vocab 320", "vocabulary of 321"});
}

TEST_CASE("a run's RoPE base is the one that was asked for, while it trains and when it is loaded") {
  const test::Scratch folder;
  static std::vector<std::vector<double>> tables;  // of every pass
  const auto tables_of = [&](const std::string& name, const test::Flags& flags) {
    test::Flags all = flags;
    all["position"] = "rope", all["norm"] = "rms", all["bias"] = "false", all["steps"] = "1", all["warmup"] = "0";
    tables.clear();
    const test::Intercept<kernels::RopeArgs> see(
        kernels::rope,
        [](const kernels::RopeArgs& args) {
          if (args.table.size(0) == 1) return;  // the one row that a decoding step uses
          std::vector<double> table;
          for (int64_t i = 0; i < args.table.numel(); ++i) table.push_back(static_cast<double>(args.table.as<const float>()[i]));
          tables.push_back(table);
        },
        nullptr);
    REQUIRE(test::run(folder / name, all) == 0);
    GenerateOptions o;
    o.path = folder / name, o.max_new_tokens = 2, o.print_ids = true;
    printed(o);
    REQUIRE(tables.size() > 4);
    for (const std::vector<double>& table : tables) CHECK(table == tables[0]);  // training's, forward and backward, and generation's
    return tables[0];
  };
  for (const double theta : {10000.0, 500.0}) {
    const std::vector<double> table = tables_of(concat("run", theta), {{"rope-theta", concat(theta)}});
    REQUIRE(table.size() == 32 * 16);  // (T, D), [cos | sin]
    for (const int64_t position : {0, 1, 5, 31}) {
      for (int64_t i = 0; i < 8; ++i) {
        const double angle = static_cast<double>(position) * std::exp(-std::log(theta) * static_cast<double>(i) / 8);
        CHECK(std::abs(table[static_cast<size_t>(position * 16 + i)] - std::cos(angle)) <= 1e-7);
        CHECK(std::abs(table[static_cast<size_t>(position * 16 + 8 + i)] - std::sin(angle)) <= 1e-7);
      }
    }
  }
}

}  // namespace
}  // namespace heddle
