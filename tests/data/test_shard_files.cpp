// Shards under a running job, many shards, and ranks that share the reading.
#include <sys/resource.h>
#include <unistd.h>

#include <barrier>
#include <mutex>
#include <thread>

#include "data/file.h"
#include "data/windows.h"
#include "tests/data/support.h"

using namespace heddle;
using namespace heddle::test;

namespace {

constexpr int32_t kEot = 999;

LoaderOptions options_for(const std::string& glob, int64_t seq) {
  LoaderOptions options;
  options.shards = {glob};
  options.seq = seq;
  options.vocab = 1000;
  options.eot = kEot;
  options.order = SampleOrder::sequential;
  return options;
}

std::vector<int32_t> counted(int64_t size, int32_t from = 0) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < size; ++i) tokens.push_back(i % 50 == 0 ? kEot : from + static_cast<int32_t>(i % 400));
  return tokens;
}

// The soft limit on open files, for as long as it lives.
struct OpenLimit {
  rlimit before{};
  explicit OpenLimit(rlim_t most) {
    ::getrlimit(RLIMIT_NOFILE, &before);
    const rlimit lower{most, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &lower) == 0);
  }
  ~OpenLimit() { ::setrlimit(RLIMIT_NOFILE, &before); }
};

}  // namespace

TEST_CASE("a shard cut or overwritten under a loader is an error that names file and offset", "[shard]") {
  const Scratch scratch;
  const std::string path = scratch.write("a.bin", shard_bytes(counted(1000))), whole = slurp(path);
  LoaderOptions options = options_for(path, 64);
  options.prefetch_batch = GENERATE(0, 2);
  Loader loader(options);
  OwnedBatch batch(2, 64);
  const auto fill = [&] {
    if (options.prefetch_batch > 0) loader.prefetch(6, 2);
    loader.fill(6, batch.view);
  };
  fill();
  const OwnedBatch before = batch;
  std::filesystem::resize_file(path, 1024 + 2 * 400);  // samples 6 and 7 begin at tokens 384 and 448
  CHECK(contains(error_of(fill, ExitCode::bad_data), concat(path, ": ends at offset ", 1024 + 2 * 400)));
  std::string changed = whole;
  changed[1024 + 2 * 450 + 1] = '\x7F';
  scratch.write("a.bin", changed);
  CHECK(contains(error_of(fill, ExitCode::bad_data), concat("offset ", 1024 + 2 * 450, " (token number 450) is not below")));
  scratch.write("a.bin", whole);
  fill();  // the same file whole again
  CHECK(batch == before);

  WindowOptions held_out;
  held_out.shards = {path};
  held_out.seq = 64;
  held_out.vocab = 1000;
  held_out.eot = kEot;
  const Windows windows(held_out);
  std::filesystem::resize_file(path, 1024);
  CHECK(contains(error_of([&] { windows.fill(0, batch.view); }, ExitCode::bad_data), "a.bin: ends at offset 1024"));
}

TEST_CASE("a token that the tokenizer lacks is an error, also where a model's padded vocabulary has it", "[shard]") {
  const Scratch scratch;
  for (const int32_t last : {899, 900, 999}) {
    std::vector<int32_t> tokens(64, 5);
    tokens[0] = 800, tokens[63] = last;
    LoaderOptions options = options_for(scratch.write("a.bin", shard_bytes(tokens)), 16);
    options.eot = 800;
    options.tokenizer = TokenizerIdentity{"theirs", std::string(64, 'a'), 900};
    WindowOptions held_out;
    held_out.shards = options.shards;
    held_out.seq = 16;
    held_out.vocab = options.vocab;
    held_out.eot = options.eot;
    held_out.tokenizer = options.tokenizer;
    const std::string says = last < 900 ? ""
                                        : concat(scratch / "a.bin", ": token ", last, " at offset ", 1024 + 2 * 63,
                                                 " (token number 63) is not below the vocabulary size 900");
    for (const std::string& message :
         {error_of([&] { Loader loader(options); }, ExitCode::bad_data), error_of([&] { Windows windows(held_out); }, ExitCode::bad_data)}) {
      INFO(message);
      CHECK(message.empty() == says.empty());
      CHECK(contains(message, says));
    }
    options.tokenizer.reset();  // nothing is known of it but the vocabulary
    CHECK(Loader(options).vocab() == 1000);
  }
}

TEST_CASE("a shard replaced by rename stays what it was while it is open, and is told when it is not", "[shard]") {
  const Scratch scratch;
  const OpenLimit few(64);  // 16 of them for shards
  std::vector<ShardReader> shards;
  for (int i = 0; i < 40; ++i) shards.emplace_back(scratch.write(concat("s", 100 + i, ".bin"), shard_bytes({i, i + 1})));
  const auto replace = [&](int i) {
    scratch.write("new", shard_bytes({7, 7}));
    std::filesystem::rename(scratch / "new", scratch / concat("s", 100 + i, ".bin"));
  };
  replace(39);
  replace(0);
  CHECK(shards[39].token(1) == 40);
  CHECK(contains(error_of([&] { shards[0].token(1); }, ExitCode::bad_data), "s100.bin: another file has taken its place"));
  CHECK(shards[1].token(0) == 1);
}

TEST_CASE("more shards than a process may open or map at once", "[shard]") {
  const Scratch scratch;
  constexpr int kShards = 300;
  for (int i = 0; i < kShards; ++i) scratch.write(concat("s", 1000 + i, ".bin"), shard_bytes({kEot, i, i, i, i, i, i, i, i}));
  const OpenLimit few(40);
  const Loader loader(options_for(scratch / "s*.bin", 8));
  REQUIRE(loader.samples_per_epoch() == kShards);
  // None of them is mapped: the kernel allows 65,530 maps, fewer than a data set may have shards.
  CHECK(!contains(slurp("/proc/self/maps"), scratch.path()));
  std::vector<std::thread> readers;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    readers.emplace_back([&, t] {
      std::mt19937_64 random(static_cast<uint64_t>(t));
      OwnedBatch batch(1, 8);
      for (int trial = 0; trial < 2000; ++trial) {
        const uint64_t sample = random() % kShards;
        const_cast<Loader&>(loader).fill(sample, batch.view);
        wrong += batch.tokens[1] != static_cast<int32_t>(sample) || batch.targets[7] != static_cast<int32_t>(sample);
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  CHECK(wrong == 0);
}

TEST_CASE("what is in no sample is counted: short shards and tails", "[loader]") {
  const Scratch scratch;
  scratch.write("a.bin", shard_bytes(counted(100)));  // 3 samples of 32: tokens 0 .. 96, three left
  scratch.write("b.bin", shard_bytes(counted(32)));   // none
  scratch.write("c.bin", shard_bytes(counted(33)));   // one, nothing left
  scratch.write("d.bin", shard_bytes(counted(7)));
  scratch.write("e.bin", shard_bytes({}));  // nothing is left out of nothing
  const Loader loader(options_for(scratch / "*.bin", 32));
  CHECK(loader.samples_per_epoch() == 4);
  CHECK(loader.left_out().tokens == 3 + 32 + 7);
  CHECK(loader.left_out().short_shards == 2);
  CHECK(loader.left_out().short_tokens == 39);
  CHECK(loader.left_out().first_short == scratch / "b.bin");
  const Loader all(options_for(scratch / "c.bin", 32));
  CHECK(all.left_out().tokens == 0);
  CHECK(all.left_out().first_short == "");
}

TEST_CASE("a data set without one target that counts is refused", "[loader]") {
  const Scratch scratch;
  scratch.write("a.bin", shard_bytes(std::vector<int32_t>(50, kEot)));
  scratch.write("b.bin", shard_bytes(std::vector<int32_t>(20, kEot)));
  LoaderOptions options = options_for(scratch / "*.bin", 8);
  for (const EotPosition position : {EotPosition::prepend, EotPosition::append}) {
    options.eot_position = position;
    const std::string message = error_of([&] { Loader loader(options); }, ExitCode::bad_data);
    CHECK(contains(message, "none of the 64 targets"));
    CHECK(contains(message, "a.bin is one of 2"));
    CHECK(contains(message, "end-of-text token 999"));
  }
  options.document_mask = false;  // then all count
  CHECK(Loader(options).valid_targets(0, 8) == 64);
  options.document_mask = true;
  scratch.write("b.bin", shard_bytes({kEot, 1, kEot, kEot, kEot, kEot, kEot, kEot, kEot}));
  options.eot_position = EotPosition::prepend;
  CHECK(Loader(options).valid_targets(0, 7) == 1);
}

TEST_CASE("ranks share the reading: each shard is read by one, all know the same, an error is everybody's", "[loader]") {
  const Scratch scratch;
  std::mt19937_64 random(17);
  for (int s = 0; s < 7; ++s) {
    std::vector<int32_t> tokens = counted(static_cast<int64_t>(300 + random() % 300), s);
    scratch.write(concat("s", s, ".bin"), shard_bytes(tokens));
  }
  const Loader alone(options_for(scratch / "s*.bin", 16));
  WindowOptions held_out;
  held_out.shards = {scratch / "s*.bin"};
  held_out.seq = 16;
  held_out.vocab = 1000;
  held_out.eot = kEot;
  const Windows alone_windows(held_out);

  // Each rank's own folder holds whole shards where it is to read, and elsewhere ones whose tokens are all wrong: no rank may look at those.
  constexpr int kRanks = 3;
  std::vector<Scratch> folders(kRanks);
  for (int r = 0; r < kRanks; ++r) {
    for (int s = 0; s < 7; ++s) {
      std::string content = slurp(scratch / concat("s", s, ".bin"));
      if (s % kRanks != r) std::fill(content.begin() + 1024, content.end(), '\x03');  // token 771
      folders[static_cast<size_t>(r)].write(concat("s", s, ".bin"), content);
    }
  }
  std::vector<std::string> told(kRanks), lists(kRanks), errors(kRanks);
  std::vector<std::vector<int64_t>> counts(kRanks);
  std::vector<uint64_t> scored(kRanks), rows(kRanks);
  std::barrier sync(kRanks);
  const auto job = [&] {
    std::vector<std::thread> ranks;
    for (int r = 0; r < kRanks; ++r) {
      ranks.emplace_back([&, r] {
        const auto at = static_cast<size_t>(r);
        SharedReading reading{r, kRanks, [&, at](const std::string& mine) {
                                told[at] = mine;
                                sync.arrive_and_wait();
                                const std::vector<std::string> all = told;
                                sync.arrive_and_wait();
                                return all;
                              }};
        LoaderOptions options = options_for(folders[at] / "s*.bin", 16);
        options.reading = reading;
        errors[at] = "";
        try {
          const Loader loader(options);
          lists[at] = loader.shard_list();
          counts[at].clear();
          for (uint64_t i = 0; i < loader.samples_per_epoch(); ++i) counts[at].push_back(loader.valid_targets(i, 1));
          WindowOptions mine = held_out;
          mine.shards = {folders[at] / "s*.bin"};
          mine.reading = reading;
          const Windows windows(mine);
          scored[at] = windows.scored_tokens();
          rows[at] = windows.rows();
        } catch (const Error& error) {
          errors[at] = concat(static_cast<int>(error.code()), " ", error.what());
        }
      });
    }
    for (std::thread& rank : ranks) rank.join();
  };
  job();
  std::vector<int64_t> wanted;
  for (uint64_t i = 0; i < alone.samples_per_epoch(); ++i) wanted.push_back(alone.valid_targets(i, 1));
  for (size_t r = 0; r < kRanks; ++r) {
    CHECK(errors[r] == "");
    CHECK(lists[r] == alone.shard_list());
    CHECK(counts[r] == wanted);
    CHECK(scored[r] == alone_windows.scored_tokens());
    CHECK(rows[r] == alone_windows.rows());
  }
  std::string bad = slurp(scratch / "s4.bin");
  bad[1024 + 2 * 9 + 1] = '\x7F';
  folders[1].write("s4.bin", bad);
  job();
  for (size_t r = 0; r < kRanks; ++r) {
    INFO(errors[r]);
    CHECK(contains(errors[r], "65 "));
    CHECK(contains(errors[r], concat("s4.bin: token ", 0x7F00 + (9 % 256 + 4), " at offset 1042")));
  }
}
