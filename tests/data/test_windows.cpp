#include <map>

#include "data/tokenizer.h"
#include "data/windows.h"
#include "tests/data/support.h"

using namespace heddle;
using namespace heddle::test;

namespace {

constexpr int32_t kEot = 9999;

WindowOptions options_for(const std::string& glob, int64_t seq, int64_t stride, bool pack) {
  WindowOptions options;
  options.shards = {glob};
  options.seq = seq;
  options.stride = stride;
  options.pack = pack;
  options.vocab = 10000;
  options.eot = kEot;
  return options;
}

}  // namespace

TEST_CASE("every text token is scored exactly once, in its place, with the context promised", "[windows]") {
  const Scratch scratch;
  std::mt19937_64 random(31);
  // Every text token has a value of its own, so a scored target tells which one it is. Two shards; both positions of end-of-text.
  const bool prepend = GENERATE(true, false);
  const bool pack = GENERATE(true, false);
  int32_t next = 0;
  std::map<int32_t, int64_t> place;  // token -> its number in its document
  for (const char* name : {"a.bin", "b.bin"}) {
    std::vector<int32_t> tokens;
    for (int d = 0; d < 12; ++d) {
      if (prepend) tokens.push_back(kEot);
      const int64_t size = static_cast<int64_t>(d == 3 ? 0 : 1 + random() % (d % 3 == 0 ? 70 : 12));
      for (int64_t i = 0; i < size; ++i) place[next] = i, tokens.push_back(next++);
      if (!prepend) tokens.push_back(kEot);
    }
    scratch.write(name, shard_bytes(tokens));
  }
  for (const int64_t seq : {1, 2, 5, 16, 200}) {
    for (const int64_t stride : {int64_t{1}, (seq + 1) / 2, seq}) {
      const Windows windows(options_for(scratch / "*.bin", seq, stride, pack));
      REQUIRE(windows.scored_tokens() == static_cast<uint64_t>(next));
      std::map<int32_t, int> scored;
      uint64_t counted = 0;
      for (uint64_t row = 0; row < windows.rows() + 3; row += 3) {
        OwnedBatch batch(3, seq);
        windows.fill(row, batch.view);
        uint64_t here = 0;
        for (int64_t i = 0; i < 3 * seq; ++i) {
          const size_t at = static_cast<size_t>(i);
          const int32_t target = batch.targets[at];
          if (target < 0) continue;
          ++here;
          REQUIRE(target != kEot);
          ++scored[target];
          // The input is the token before it, and the window reaches back over consecutive tokens of the document to document_start.
          const int64_t number = place.at(target), t = i % seq, context = t - batch.document_start[at] + 1;
          REQUIRE(batch.document_start[at] <= t);
          for (int64_t c = 0; c < context; ++c) {
            const int32_t seen = batch.tokens[static_cast<size_t>(i - c)];
            REQUIRE(seen == (number - c == 0 ? kEot : target - 1 - static_cast<int32_t>(c)));
          }
          // All of the document so far, or at least T - S tokens of it.
          REQUIRE((context == number + 1 || context > seq - stride));
        }
        REQUIRE(windows.scored_tokens(row, 3) == here);
        counted += here;
      }
      REQUIRE(counted == static_cast<uint64_t>(next));
      REQUIRE(scored.size() == static_cast<size_t>(next));
      for (const auto& [token, times] : scored) REQUIRE(times == 1);
    }
  }
}

TEST_CASE("a limit scores exactly the first tokens, with the context they have without it", "[windows]") {
  const Scratch scratch;
  std::mt19937_64 random(33);
  std::vector<int32_t> tokens;
  int64_t text = 0;
  for (int d = 0; d < 9; ++d) {
    tokens.push_back(256);
    for (uint64_t i = 1 + random() % 40; i > 0; --i) tokens.push_back('a' + static_cast<int32_t>(random() % 26)), ++text;
  }
  scratch.write("a.bin", shard_bytes(tokens));
  scratch.write("b.bin", shard_bytes(tokens));
  text *= 2;
  const bool pack = GENERATE(true, false);
  WindowOptions options = options_for(scratch / "*.bin", 8, 4, pack);
  options.vocab = 257;
  options.eot = 256;
  // What is scored, and what each prediction sees, in order.
  const auto predictions = [](const Windows& windows) {
    std::vector<std::vector<int32_t>> all;
    for (uint64_t row = 0; row < windows.rows(); ++row) {
      OwnedBatch batch(1, 8);
      windows.fill(row, batch.view);
      for (size_t t = 0; t < 8; ++t) {
        if (batch.targets[t] < 0) continue;
        all.emplace_back(batch.tokens.begin() + batch.document_start[t], batch.tokens.begin() + static_cast<std::ptrdiff_t>(t) + 1);
        all.back().push_back(batch.targets[t]);
      }
    }
    return all;
  };
  const auto whole = predictions(Windows(options));
  REQUIRE(whole.size() == static_cast<size_t>(text));
  for (const int64_t limit : {int64_t{1}, int64_t{7}, int64_t{8}, int64_t{33}, text / 2 - 1, text / 2 + 1, text - 1, text, text + 5}) {
    options.tokens = limit;
    const Windows windows(options);
    const auto scored = static_cast<uint64_t>(std::min(limit, text));
    CHECK(windows.scored_tokens() == scored);
    CHECK(windows.scored_bytes(0, windows.rows(), Tokenizer::bytes()) == scored);
    const auto some = predictions(windows);
    CHECK(some == std::vector(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(scored)));
  }
}

TEST_CASE("rows beyond the end are padding, a document of its own", "[windows]") {
  const Scratch scratch;
  scratch.write("a.bin", shard_bytes({kEot, 1, 2}));
  const Windows windows(options_for(scratch / "a.bin", 4, 4, true));
  CHECK(windows.rows() == 1);
  OwnedBatch batch(2, 4);
  windows.fill(0, batch.view);
  CHECK(batch.tokens == std::vector<int32_t>{kEot, 1, kEot, kEot, kEot, kEot, kEot, kEot});
  CHECK(batch.targets == std::vector<int32_t>{1, 2, -1, -1, -1, -1, -1, -1});
  CHECK(batch.document_start == std::vector<int32_t>{0, 0, 2, 2, 0, 0, 0, 0});
  CHECK(windows.scored_tokens(1, 5) == 0);
  CHECK(!windows.text_bytes());
}

TEST_CASE("without an end-of-text token a shard is one document, its first token unscored", "[windows]") {
  const Scratch scratch;
  scratch.write("a.bin", shard_bytes({5, 6, 7}));
  WindowOptions options = options_for(scratch / "a.bin", 2, 2, true);
  options.eot.reset();
  const Windows windows(options);
  OwnedBatch batch(1, 2);
  windows.fill(0, batch.view);
  CHECK(batch.tokens == std::vector<int32_t>{5, 6});
  CHECK(batch.targets == std::vector<int32_t>{6, 7});
  CHECK(windows.scored_tokens() == 2);
}

TEST_CASE("scored bytes are the bytes of the targets", "[windows]") {
  const Scratch scratch;
  scratch.write("a.bin", shard_bytes({256, 72, 105, 256, 33}));
  WindowOptions options = options_for(scratch / "a.bin", 8, 8, true);
  options.vocab = 257;
  options.eot = 256;
  const Windows windows(options);
  CHECK(windows.scored_bytes(0, windows.rows(), Tokenizer::bytes()) == 3);
  CHECK(windows.scored_bytes(0, 100, Tokenizer::bytes()) == 3);
}

TEST_CASE("scored words are those of the documents, wherever windows cut them", "[windows]") {
  const Scratch scratch;
  std::vector<int32_t> tokens;
  for (const std::string text : {"Hi, you\n two", "three", "", "\ta b "}) {  // 3 + 1 + 0 + 2; "two" and "three" do not join
    tokens.push_back(256);
    tokens.insert(tokens.end(), text.begin(), text.end());
  }
  scratch.write("a.bin", shard_bytes(tokens));
  for (const int64_t seq : {1, 2, 5, 64}) {
    for (const bool pack : {false, true}) {
      WindowOptions options = options_for(scratch / "a.bin", seq, (seq + 1) / 2, pack);
      options.vocab = 257;
      options.eot = 256;
      const Windows windows(options);
      CHECK(windows.scored_words(0, windows.rows(), Tokenizer::bytes()) == 6);
      CHECK(windows.scored_words(0, windows.rows() + 5, Tokenizer::bytes()) == 6);
      CHECK(windows.scored_words(windows.rows(), 1, Tokenizer::bytes()) == 0);
    }
  }
}

TEST_CASE("windows refuse what cannot be", "[windows]") {
  const Scratch scratch;
  scratch.write("a.bin", shard_bytes({kEot, 1, 2}));
  scratch.write("empty.bin", shard_bytes({kEot, kEot}));
  CHECK(contains(error_of([&] { Windows(options_for(scratch / "a.bin", 4, 5, true)); }, ExitCode::usage), "stride 5"));
  CHECK(contains(error_of([&] { Windows(options_for(scratch / "a.bin", 0, 0, true)); }, ExitCode::usage), "sequence length 0"));
  CHECK(contains(error_of([&] { Windows(options_for(scratch / "empty.bin", 4, 4, true)); }, ExitCode::bad_data), "no token to score"));
}
